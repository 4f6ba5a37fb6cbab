/** The lines for a program that make what is on the screen. */

import { hasKey } from "./api.js";
import { button, byId, copy, el } from "./dom.js";
import { fileName } from "./download.js";
import { curl, javascript, python } from "./snippets.js";

export function showCode(form) {
  const request = form.read();
  const name = fileName(request, request.seed, request.format ?? form.card.defaults.format);
  const part = (title, text) => {
    const pressed = button("Copy", () => copy(pressed, text), { class: "quiet" });
    return el("section", {}, el("div", { class: "bar" }, el("h3", {}, title), pressed), el("pre", { tabindex: 0 }, el("code", {}, text)));
  };
  const place = byId("code").querySelector("div");
  place.replaceChildren(
    part("curl", curl(request, name, hasKey())),
    part("Python, with this service's client", python(request, name)),
    part("JavaScript, for Node", javascript(request, name, hasKey())),
  );
}
