/** What the chosen model is, and whose work is in it. */

import { byId, el } from "./dom.js";

export function showModel({ id, description, licence, attributions }) {
  const facts = [description, `Licence: ${licence}`, ...attributions].filter(Boolean);
  byId("about").querySelector("summary").textContent = `About ${id}`;
  byId("about").querySelector("div").replaceChildren(...facts.map((fact) => el("p", { class: "note" }, fact)));
  const empty = byId("empty-about");
  if (empty) empty.textContent = description;
}
