/** One picture: while it is made, and once it is there. */

import { button, copy, el } from "./dom.js";
import { download, fileName } from "./download.js";
import { linkOf } from "./link.js";

export class Tile {
  /**
   * `acts`: what the page can do with a request: {again, four, edit, restore}; edit is null where no picture goes in.
   * Without any it is a small one, to be chosen.
   */
  constructor(acts) {
    this.acts = acts;
    this.frame = el("div", { class: "frame waiting" });
    this.bar = el("progress", { max: 1, value: 0, "aria-label": "How much of the picture is there" });
    this.caption = el("figcaption", {}, "Waiting for its turn");
    this.element = el("figure", { class: "tile" }, this.frame, this.bar, this.caption);
  }

  /** Its job, as long as nothing of it is made. */
  wait({ status, ahead, estimate_s: estimate }) {
    if (status !== "queued" || ahead === undefined) return;
    const first = ahead === 0 ? "it is next" : `${ahead} ${ahead === 1 ? "job goes" : "jobs go"} first`;
    this.caption.textContent = `Waiting: ${first}${estimate ? `, about ${Math.ceil(estimate)} s` : ""}`;
  }

  /** An event of its job; `index`: which picture of the job this is. */
  progress({ evaluation, evaluations, committed, status, previews = [] }, index) {
    this.bar.value = committed;
    if (status === "running") this.caption.textContent = `Step ${evaluation} of ${evaluations}`;
    const { b64_png: preview, purity_map: purity } = previews.find((one) => one.index === index) ?? {};
    if (preview) this.see("preview", preview, "The picture so far");
    if (purity) this.see("purity", purity, "Where the model is sure: the brighter, the surer");
  }

  see(name, png, alt) {
    let picture = this.frame.querySelector(`.${name}`);
    if (!picture) this.frame.append((picture = el("img", { class: name, alt })));
    picture.src = `data:image/png;base64,${png}`;
    this.frame.classList.remove("waiting");
  }

  /** `made`: {request, seed, tokens, blob, took, warnings}; `expected`: the hash that a link promised. */
  done(made, expected) {
    this.made = made;
    const { request, seed, blob } = made;
    const words = request.prompt ?? request.label ?? "A picture";
    const picture = el("img", { class: "picture", alt: `${words}, seed ${seed}`, src: URL.createObjectURL(blob) });
    this.frame.className = "frame";
    this.frame.replaceChildren(picture);
    this.bar.remove();
    if (this.acts) this.caption.replaceChildren(...this.facts(expected), el("div", { class: "actions" }, this.actions()));
    else this.caption.remove();
    this.element.dataset.tokens = made.tokens;
  }

  note(text) {
    this.element.append(el("figcaption", {}, text));
  }

  facts(expected) {
    const { seed, tokens, took, warnings = [] } = this.made;
    const facts = [`Seed ${seed}`, took && `${took.toFixed(2)} s`].filter(Boolean).join(" · ");
    const hash = el("code", { class: "tokens", title: `SHA-256 of its tokens: ${tokens}. Equal hashes are equal pictures.` }, tokens.slice(0, 12));
    const same = tokens === expected;
    const verdict = same ? "the same picture as in the link" : "not the picture of the link: another model or version";
    return [
      el("p", {}, `${facts} · `, hash),
      expected ? el("p", { class: same ? "good" : "error" }, verdict) : null,
      ...warnings.map((warning) => el("p", { class: "note" }, warning)),
    ].filter(Boolean);
  }

  actions() {
    const { request, seed, tokens, blob } = this.made;
    const link = linkOf(request, tokens);
    return [
      button("Download", () => download(blob, fileName(request, seed)), { class: "save" }),
      link
        ? button("Copy link", (event) => copy(event.target, link), { class: "link" })
        : button("Copy link", null, { disabled: true, title: "A picture went in, and is too large for a link" }),
      button("Use its settings", () => this.acts.restore(request), { class: "restore" }),
      button("Another seed", () => this.acts.again(request), { class: "again" }),
      button("Four at a time", () => this.acts.four(request), { class: "four" }),
      this.acts.edit ? button("Paint over it", () => this.acts.edit(blob), { class: "edit" }) : null,
    ];
  }

  fail(text) {
    this.frame.className = "frame failed";
    this.frame.replaceChildren();
    this.bar.remove();
    this.caption.replaceChildren(el("p", { class: "error" }, text));
  }
}
