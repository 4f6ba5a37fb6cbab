/** What was made in this browser, as small pictures under the large ones. */

import { button, byId, el } from "./dom.js";
import { forget, keep, kept } from "./store.js";

const PAGE = 24;
const place = byId("history");
let shown = PAGE;
let urls = [];

/** `choose` gets what was made, when the person picks it. */
export class History {
  constructor(choose) {
    this.choose = choose;
    byId("more").addEventListener("click", () => ((shown += PAGE), this.show()));
    byId("forget").addEventListener("click", async () => {
      if (!window.confirm("Forget all pictures made in this browser?")) return;
      await forget();
      this.show();
    });
  }

  async add(made) {
    try {
      for (const one of made) await keep(one);
      await this.show();
    } catch (error) {
      console.warn("this browser keeps no history", error); // a private window, or a full disk
    }
  }

  async show() {
    const all = await kept();
    urls.forEach((url) => URL.revokeObjectURL(url));
    urls = [];
    place.hidden = !all.length;
    place.querySelector("ul").replaceChildren(...all.slice(0, shown).map((made) => this.item(made)));
    byId("more").hidden = all.length <= shown;
  }

  item(made) {
    const { request, seed, blob, id } = made;
    const words = request.prompt ?? request.label ?? "A picture";
    const url = URL.createObjectURL(blob);
    urls.push(url);
    const picture = el("img", { src: url, alt: "", loading: "lazy" });
    const look = el("button", { type: "button", title: `${words}, seed ${seed}`, "aria-label": `${words}, seed ${seed}` }, picture);
    look.addEventListener("click", () => this.choose(made));
    const drop = button("×", async () => (await forget(id), this.show()), { class: "drop-one", "aria-label": `Forget ${words}, seed ${seed}` });
    return el("li", {}, look, drop);
  }
}
