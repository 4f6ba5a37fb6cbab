/** A sweep as one picture: the cells with their labels, drawn by hand on a canvas. */

import { el } from "./dom.js";

const LEAST_CELL = 128;
const GAP = 8;
const TITLE = 56;
const HEAD = 32;
const SIDE = 120;
const FONT = "system-ui, sans-serif";

/** `cells[row][column]` is a Blob, or null where there is no picture. Returns a PNG. */
export async function drawSheet({ title, note, columns, rows, cells }) {
  const pictures = await Promise.all(cells.map((row) => Promise.all(row.map((blob) => blob && createImageBitmap(blob)))));
  const first = pictures.flat().find(Boolean);
  const scale = Math.max(1, Math.ceil(LEAST_CELL / first.width));
  const [w, h] = [first.width * scale, first.height * scale];
  const width = SIDE + columns.length * (w + GAP) + GAP;
  const canvas = el("canvas", { width, height: TITLE + HEAD + rows.length * (h + GAP) + GAP });
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  const write = (text, x, y, font, align, most) => {
    Object.assign(context, { fillStyle: "#111", font: `${font} ${FONT}`, textAlign: align, textBaseline: "middle" });
    context.fillText(text, x, y, most);
  };
  write(title, GAP, 20, "600 18px", "left", width - 2 * GAP);
  write(note, GAP, 44, "13px", "left", width - 2 * GAP);
  const left = (column) => SIDE + GAP + column * (w + GAP);
  const top = (row) => TITLE + HEAD + row * (h + GAP);
  columns.forEach((text, column) => write(text, left(column) + w / 2, TITLE + HEAD / 2, "15px", "center", w));
  rows.forEach((text, row) => write(text, SIDE, top(row) + h / 2, "15px", "right", SIDE - GAP));
  pictures.forEach((line, row) =>
    line.forEach((picture, column) => picture && context.drawImage(picture, left(column), top(row), w, h)),
  );
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}
