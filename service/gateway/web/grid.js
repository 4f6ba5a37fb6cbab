/** Several pictures at once: small ones to choose from, and the chosen one below with all that can be done with it. */

import { el } from "./dom.js";
import { Tile } from "./tile.js";

export class Chosen {
  constructor(acts) {
    this.acts = acts;
    this.element = el("div", { class: "chosen" }, el("p", { class: "note" }, "Choose a picture to see more of it."));
  }

  /** A tile that can be chosen once its picture is there. */
  cell(tile) {
    const cell = el("button", { type: "button", class: "cell", "aria-label": "Look at this picture" }, tile.element);
    cell.addEventListener("click", () => tile.made && this.show(tile.made, cell));
    return cell;
  }

  show(made, cell) {
    const tile = new Tile(this.acts);
    tile.done(made);
    this.current?.removeAttribute("aria-current");
    this.current = cell;
    cell.setAttribute("aria-current", "true");
    this.element.replaceChildren(tile.element);
    this.element.scrollIntoView({ block: "nearest" });
  }
}
