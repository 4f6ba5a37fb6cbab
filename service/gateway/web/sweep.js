/** A sweep: a picture for every pair of values, as jobs of their own that run together. */

import { Problem } from "./api.js";
import { button, el } from "./dom.js";
import { download, fileName } from "./download.js";
import { FIELDS, heading } from "./fields.js";
import { Chosen } from "./grid.js";
import { drawSheet } from "./sheet.js";
import { make } from "./stage.js";
import { Tile } from "./tile.js";

/** Each pair's own request. `unused(sampler)`: the fields that this sampler does not take. */
export function cellRequest(request, across, down, unused) {
  const cell = { ...request, [across.name]: across.value, [down.name]: down.value, n: 1 };
  const idle = unused(cell.sampler);
  return Object.fromEntries(Object.entries(cell).filter(([name]) => !idle.includes(name)));
}

/** Makes all cells on `stage`; what was made goes to `onMade`. Returns the problems. */
export async function runSweep(request, [across, down], { stage, signal, acts, unused, onMade }) {
  const columns = across.values.map((value) => heading(across.name, value));
  const rows = down.values.map((value) => heading(down.name, value));
  const grid = down.values.map(() => across.values.map(() => new Tile()));
  const chosen = new Chosen(acts);
  const title = String(request.prompt ?? request.label ?? "Pictures");
  const save = button("Download the sheet", async () => {
    const cells = grid.map((line) => line.map((tile) => tile.made?.blob ?? null));
    const seed = [across.name, down.name].includes("seed") ? undefined : request.seed;
    const note = [request.model, seed === undefined ? "" : `seed ${seed}`].filter(Boolean).join(" · ");
    download(await drawSheet({ title, note, columns, rows, cells }), fileName({ ...request, prompt: `${title} sweep` }, seed, "png"));
  }, { class: "strong sheet", disabled: true });
  stage.replaceChildren(el("div", { class: "bar" }, el("h2", {}, title), save), table(grid, columns, rows, chosen), chosen.element);
  const problems = [];
  await Promise.all(
    grid.flatMap((line, row) =>
      line.map(async (tile, column) => {
        const [x, y] = [{ name: across.name, value: across.values[column] }, { name: down.name, value: down.values[row] }];
        try {
          const cell = cellRequest(request, x, y, unused);
          onMade(await make(cell, [tile], { signal }));
          for (const { name } of [x, y]) if (!(name in cell)) tile.note(`${FIELDS[name].symbol} does not apply`);
          save.disabled = false;
        } catch (error) {
          if (!(error instanceof Problem)) throw error;
          problems.push(error);
        }
      }),
    ),
  );
  return problems;
}

function table(grid, columns, rows, chosen) {
  const head = el("tr", {}, el("td"), columns.map((text) => el("th", { scope: "col" }, text)));
  const lines = grid.map((line, row) => {
    const cells = line.map((tile) => el("td", {}, chosen.cell(tile)));
    return el("tr", {}, el("th", { scope: "row" }, rows[row]), cells);
  });
  return el("div", { class: "scroll" }, el("table", { class: "sweep" }, el("thead", {}, head), el("tbody", {}, lines)));
}
