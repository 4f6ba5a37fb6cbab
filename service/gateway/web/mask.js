/** The brush: what is painted over is made anew. With a pointer, or with arrows, space and E. */

import { button, el } from "./dom.js";

const PAINT = "rgb(99 91 255)";
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Mask {
  /** `changed` is called after each stroke. */
  constructor(changed) {
    this.changed = changed;
    this.canvas = el("canvas", {
      class: "mask", tabindex: 0, role: "application",
      "aria-label": "Paint over what is to change. Arrows move the brush, Space paints, E erases.",
    });
    this.cursor = el("div", { class: "cursor", hidden: true });
    this.element = el("div", { class: "brush" }, this.canvas, this.cursor);
    this.size = el("input", { type: "range", min: 1, max: 16, step: 1, "aria-label": "Size of the brush" });
    this.erases = el("input", { type: "checkbox" });
    this.tools = el(
      "div", { class: "tools", hidden: true },
      el("label", {}, "Brush", this.size),
      el("label", { class: "check" }, this.erases, "Erase"),
      button("Clear", () => (this.clear(), this.changed()), { class: "quiet" }),
      button("Invert", () => this.invert(), { class: "quiet" }),
      el("p", { class: "note" }, "Paint over what is to change; with nothing painted, all of it may."),
    );
    this.place = { x: 0, y: 0 };
    this.listen();
  }

  listen() {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.place = this.at(event);
      this.stroke(this.place, this.place);
      event.preventDefault();
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!event.buttons) return;
      const to = this.at(event);
      this.stroke(this.place, to);
      this.place = to;
    });
    canvas.addEventListener("pointerup", () => this.changed());
    canvas.addEventListener("keydown", (event) => this.press(event));
    canvas.addEventListener("focus", () => this.point());
    canvas.addEventListener("blur", () => (this.cursor.hidden = true));
  }

  press(event) {
    const move = MOVES[event.key];
    const { width, height } = this.canvas;
    const far = Math.max(1, this.size.value / 2);
    if (move) {
      this.place.x = Math.min(width, Math.max(0, this.place.x + move[0] * far));
      this.place.y = Math.min(height, Math.max(0, this.place.y + move[1] * far));
      this.point();
    } else if (event.key === " ") {
      this.stroke(this.place, this.place);
      this.changed();
    } else if (event.key.toLowerCase() === "e") this.erases.checked = !this.erases.checked;
    else return;
    event.preventDefault();
  }

  /** Shows where the brush of the keyboard is. */
  point() {
    this.cursor.hidden = !this.canvas.matches(":focus-visible");
    this.cursor.style.left = `${(100 * this.place.x) / this.canvas.width}%`;
    this.cursor.style.top = `${(100 * this.place.y) / this.canvas.height}%`;
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * this.canvas.width;
    return { x, y: ((event.clientY - box.top) / box.height) * this.canvas.height };
  }

  get context() {
    return this.canvas.getContext("2d", { willReadFrequently: true });
  }

  stroke(from, to) {
    const { context } = this;
    context.globalCompositeOperation = this.erases.checked ? "destination-out" : "source-over";
    Object.assign(context, { strokeStyle: PAINT, lineCap: "round", lineWidth: Number(this.size.value) });
    context.beginPath();
    context.moveTo(from.x, from.y);
    context.lineTo(to.x + 0.01, to.y); // a line without length is not drawn
    context.stroke();
    context.globalCompositeOperation = "source-over";
  }

  resize(width, height) {
    Object.assign(this.canvas, { width, height });
    this.size.max = Math.ceil(width / 2);
    this.size.value = Math.ceil(width / 5);
    this.place = { x: width / 2, y: height / 2 };
  }

  clear() {
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
  }

  /** Each pixel anew; `painted` gets the four numbers that it has. */
  each(painted) {
    const { width, height } = this.canvas;
    const pixels = this.context.getImageData(0, 0, width, height);
    const [r, g, b] = PAINT.match(/\d+/g).map(Number);
    for (let i = 0; i < pixels.data.length; i += 4) {
      const is = painted(pixels.data.subarray(i, i + 4));
      pixels.data.set([r, g, b, is ? 255 : 0], i);
    }
    this.context.putImageData(pixels, 0, 0);
  }

  invert() {
    this.each(([, , , alpha]) => alpha < 128);
    this.changed();
  }

  /** A mask as requests have it: what is painted over is transparent if any of it is, else white. */
  draw(picture) {
    this.clear();
    const { width, height } = this.canvas;
    this.context.drawImage(picture, 0, 0, width, height);
    const all = this.context.getImageData(0, 0, width, height).data;
    const clear = all.some((value, place) => place % 4 === 3 && value < 255);
    this.each(([red, , , alpha]) => (clear ? alpha < 128 : red > 127));
  }

  /** White on black, as a data URL; undefined when nothing is painted. */
  file() {
    const { width, height } = this.canvas;
    const pixels = this.context.getImageData(0, 0, width, height);
    let any = false;
    for (let i = 0; i < pixels.data.length; i += 4) {
      const shade = pixels.data[i + 3] > 127 ? 255 : 0;
      any ||= shade > 0;
      pixels.data.set([shade, shade, shade, 255], i);
    }
    if (!any) return undefined;
    const copy = el("canvas", { width, height });
    copy.getContext("2d").putImageData(pixels, 0, 0);
    return copy.toDataURL("image/png");
  }
}
