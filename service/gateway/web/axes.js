/** The form of a sweep: which two settings, and which values of each. */

import { el } from "./dom.js";
import { FIELDS } from "./fields.js";

const SWEPT = ["guidance_scale", "purity_r", "tokens_per_step", "steps", "sampler", "seed"];
const MOST_CELLS = 64;

export class Axes {
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
