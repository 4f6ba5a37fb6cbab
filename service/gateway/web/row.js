/** A field of the form: its name, a hint that a "?" opens, its control, and what is wrong with it. */

import { el } from "./dom.js";

/** `control` gets the ids that say its name, its hint and its error to those who cannot see them. */
export function makeRow(name, { label, symbol, hint }, control, ...beside) {
  const id = `field-${name}`;
  const help = el("p", { id: `${id}-hint`, class: "hint", hidden: true }, hint);
  const error = el("p", { id: `${id}-error`, class: "error", hidden: true });
  control.id = id;
  control.setAttribute("aria-describedby", `${help.id} ${error.id}`);
  const ask = el("button", { type: "button", class: "ask", title: hint, "aria-label": `About ${label}`, "aria-expanded": "false" }, "?");
  ask.addEventListener("click", () => {
    help.hidden = !help.hidden;
    ask.setAttribute("aria-expanded", String(!help.hidden));
  });
  const name_ = el("label", { for: id }, label, symbol ? el("i", {}, ` ${symbol}`) : null);
  const head = el("div", { class: "head" }, name_, ask, el("span", { class: "beside" }, beside));
  return { element: el("div", { class: "field", "data-field": name }, head, control, help, error), control, error };
}

/** Says what is wrong, or with no text that nothing is. */
export function markRow({ control, error }, text) {
  error.textContent = text;
  error.hidden = !text;
  if (text) control.setAttribute("aria-invalid", "true");
  else control.removeAttribute("aria-invalid");
}
