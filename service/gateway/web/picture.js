/** The picture that one may start from, and what of it is painted over. Only for models that take one. */

import { button, byId, el } from "./dom.js";
import { Mask } from "./mask.js";

const OF_A_PICTURE = ["image", "mask", "strength", "composite", "image_sha256", "mask_sha256"];
const OF_A_MASK = ["composite", "mask_sha256"];

export class PicturePart {
  constructor() {
    this.fold = byId("picture-in");
    this.place = el("div", { class: "of-picture", hidden: true });
    this.mask = new Mask(() => this.paint(this.mask.file()));
    this.canvas = el("canvas", { class: "start", "aria-hidden": "true" });
    this.chooser = el("input", { type: "file", accept: "image/png,image/jpeg,image/webp", class: "unseen", id: "picture-file" });
    this.easel = el("div", { class: "easel", hidden: true }, this.canvas, this.mask.element);
    this.error = el("p", { class: "error", hidden: true });
    this.take = button("Take it away", () => this.clear(), { class: "quiet", hidden: true });
    const drop = el("label", { class: "drop", for: "picture-file" }, "Choose a picture, or drop or paste one");
    this.fold.querySelector("div").append(this.chooser, drop, this.error, this.easel, this.mask.tools, this.place, this.take);
    this.chooser.addEventListener("change", () => this.open(this.chooser.files[0]));
    this.listen();
  }

  listen() {
    document.addEventListener("dragover", (event) => this.offered(event.dataTransfer) && event.preventDefault());
    document.addEventListener("drop", (event) => this.accept(event, event.dataTransfer));
    document.addEventListener("paste", (event) => {
      // What is copied from a text or a table is often there as a picture as well.
      if (!event.clipboardData.types.includes("text/plain")) this.accept(event, event.clipboardData);
    });
  }

  /** Any file: one that is no picture would be opened by the browser, in place of this page. */
  offered(data) {
    return !this.fold.hidden && [...(data?.items ?? [])].some(({ kind }) => kind === "file");
  }

  accept(event, data) {
    if (!this.offered(data)) return;
    event.preventDefault();
    this.open(data.files[0]);
  }

  build(card) {
    this.fold.hidden = !card.fields.includes("image");
    this.place.replaceChildren();
    const { image_width: width, image_height: height } = card.shapes;
    if (this.canvas.width === width && this.canvas.height === height) return;
    Object.assign(this.canvas, { width, height });
    this.mask.resize(width, height);
    this.clear();
  }

  /** A file of the person's, or a picture that was made here: cut to the model's shape and size. */
  async open(file) {
    if (!file) return;
    this.error.hidden = true;
    try {
      const picture = await createImageBitmap(file);
      this.draw(picture);
      this.image = this.canvas.toDataURL("image/png");
      this.mask.clear();
      this.paint(undefined);
      this.show(true);
    } catch {
      this.error.textContent = `${file.name ?? "This"} is no picture that a browser can read.`;
      this.error.hidden = false;
    }
  }

  /** What is painted over is usually all made anew, a whole picture is not: `onPaint` hears when that changes. */
  paint(painted) {
    if (!painted !== !this.painted) this.onPaint?.(Boolean(painted));
    this.painted = painted;
  }

  draw(picture) {
    const { width, height } = this.canvas;
    const scale = Math.max(width / picture.width, height / picture.height);
    const [w, h] = [picture.width * scale, picture.height * scale];
    const context = this.canvas.getContext("2d");
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, height);
    context.imageSmoothingQuality = "high";
    context.drawImage(picture, (width - w) / 2, (height - h) / 2, w, h);
  }

  show(shown) {
    for (const part of [this.easel, this.mask.tools, this.place, this.take]) part.hidden = !shown;
    this.fold.open ||= shown;
  }

  clear() {
    this.image = this.painted = undefined;
    this.chooser.value = "";
    this.mask.clear();
    this.show(false);
  }

  /** As a request has them; they are sent as they came, for the same bytes make the same picture. */
  write(image, mask) {
    this.clear();
    if (!image || this.fold.hidden) return;
    Object.assign(this, { image, painted: mask });
    this.show(true);
    load(image, (picture) => this.draw(picture));
    if (mask) load(mask, (picture) => this.mask.draw(picture));
  }

  /** `request` with the picture in it, or without what means nothing without one. */
  complete(request) {
    const idle = this.image ? (this.painted ? [] : OF_A_MASK) : OF_A_PICTURE;
    const rest = Object.fromEntries(Object.entries(request).filter(([name]) => !idle.includes(name)));
    return { ...rest, ...(this.image && { image: this.image }), ...(this.painted && { mask: this.painted }) };
  }
}

function load(text, then) {
  const picture = new Image();
  picture.addEventListener("load", () => then(picture));
  picture.src = text.startsWith("data:") ? text : `data:image/png;base64,${text}`;
}
