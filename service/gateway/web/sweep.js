/** A sweep: two fields, a few values of each, and a picture for every pair. */

import { Problem } from "./api.js";
import { button, el } from "./dom.js";
import { download, fileName } from "./download.js";
import { FIELDS, heading } from "./fields.js";
import { Chosen } from "./grid.js";
import { drawSheet } from "./sheet.js";
import { make } from "./stage.js";
import { Tile } from "./tile.js";

const SWEPT = ["guidance_scale", "purity_r", "tokens_per_step", "steps", "sampler", "seed"];
export const MOST_CELLS = 64;

/** Which two fields, and which values: the part of the form. */
export class SweepPart {
  constructor(place) {
    this.place = place;
  }

  build(card) {
    const offered = SWEPT.filter((name) => card.fields.includes(name));
    this.card = card;
    this.error = el("p", { class: "error", hidden: true });
    this.axes = ["Across", "Down"].map((title, index) => this.axis(title, offered, offered[index]));
    this.place.replaceChildren(...this.axes.map(({ element }) => element), this.error);
  }

  axis(title, offered, first) {
    const names = offered.map((name) => el("option", { value: name }, FIELDS[name].label));
    const which = el("select", { "aria-label": `${title}: which setting` }, names);
    const values = el("input", { type: "text", "aria-label": `${title}: its values, with commas`, autocomplete: "off" });
    which.value = first;
    values.value = this.usual(first);
    which.addEventListener("change", () => (values.value = this.usual(which.value)));
    return { which, values, element: el("div", { class: "axis" }, el("span", {}, title), which, values) };
  }

  /** Three values to begin with: around the model's own. */
  usual(name) {
    if (name === "sampler") return this.card.samplers.slice(0, 3).join(", ");
    if (name === "seed") return "1, 2, 3";
    const { minimum, maximum } = this.card.ranges[name];
    const own = this.card.defaults[name] ?? minimum;
    const { around = [0.5, 1, 2], step } = FIELDS[name];
    const near = around.map((factor) => (step === 1 ? Math.round(own * factor) : Number((own * factor).toFixed(2))));
    return [...new Set(near.filter((value) => value >= minimum && value <= maximum))].join(", ");
  }

  /** [{name, values}, …] across and down; null when they make no grid, and then it says why. */
  read() {
    const axes = this.axes.map(({ which, values }) => ({
      name: which.value,
      values: values.value.split(",").map((text) => text.trim()).filter(Boolean).map(valueOf(which.value)),
    }));
    const cells = axes[0].values.length * axes[1].values.length;
    const wrong =
      axes[0].name === axes[1].name ? "Choose two different settings."
      : cells === 0 ? "Write at least one value for each, with commas between them."
      : cells > MOST_CELLS ? `These are ${cells} pictures; at most ${MOST_CELLS} go into one sweep.`
      : "";
    this.error.textContent = wrong;
    this.error.hidden = !wrong;
    return wrong ? null : axes;
  }

  count() {
    return this.axes.reduce((total, { values }) => total * values.value.split(",").filter((text) => text.trim()).length, 1);
  }
}

/** Numbers where there are numbers; what is none goes to the service, which says what may stand there. */
const valueOf = (name) => (text) => (name === "sampler" || !/^-?\d+(\.\d+)?$/.test(text) ? text : Number(text));

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
          onMade(await make(cellRequest(request, x, y, unused), [tile], { signal }));
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
