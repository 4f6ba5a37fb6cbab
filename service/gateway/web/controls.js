/** The controls of the form. Each is a row with `get` and `set`; undefined is what the model would take by itself. */

import { button, el } from "./dom.js";
import { makeRow } from "./row.js";

/** A slider with a number beside it. */
function slider(name, about, card) {
  const range = card.ranges[name] ?? { minimum: about.least, maximum: about.most };
  const usual = card.defaults[name] ?? about.usual ?? range.minimum;
  const limits = { min: range.minimum, max: range.maximum, step: about.step };
  const number = el("input", { type: "number", class: "short", "aria-label": about.label, ...limits });
  // Its steps are counted from its lowest value, which the range's own need not fit.
  const track = el("input", { type: "range", ...limits, min: Math.ceil(range.minimum / about.step) * about.step });
  const row = makeRow(name, about, track, number);
  const set = (value = usual) => {
    number.value = value;
    track.value = value;
  };
  track.addEventListener("input", () => (number.value = track.value));
  number.addEventListener("input", () => (track.value = number.value));
  set();
  const same = () => Number(number.value) === usual && !about.always;
  const get = () => (number.value === "" || same() ? undefined : Number(number.value));
  return { ...row, get, set, now: () => get() ?? usual };
}

function number(name, about) {
  const input = el("input", { type: "number", min: about.least, step: "any" });
  const set = (value = "") => (input.value = value);
  return { ...makeRow(name, about, input), set, get: () => (input.value === "" ? undefined : Number(input.value)) };
}

function text(name, about) {
  const area = el("textarea", { rows: name === "prompt" ? 2 : 1, maxlength: 2000, spellcheck: "false", placeholder: about.example });
  const set = (value = "") => (area.value = value);
  return { ...makeRow(name, about, area), set, get: () => (area.value.trim() ? area.value : undefined) };
}

/** One of some names; `usual` is the model's own. */
function select(name, about, options, usual) {
  const list = Object.entries(options).map(([value, words]) => el("option", { value }, words));
  const input = el("select", {}, list);
  const set = (value = usual) => (input.value = value);
  set();
  return { ...makeRow(name, about, input), set, get: () => (input.value === usual ? undefined : input.value) };
}

function choice(name, about, card) {
  const usual = card.defaults[name] ?? Object.keys(about.options)[0];
  return select(name, about, about.options, usual);
}

function sampler(name, about, card) {
  const words = Object.fromEntries(card.sampler_cards.map((one) => [one.name, one.name]));
  const control = select(name, about, words, card.defaults.sampler);
  const what = el("p", { class: "note" });
  const describe = () => {
    what.textContent = card.sampler_cards.find((one) => one.name === control.control.value)?.description ?? "";
  };
  control.element.append(what);
  control.control.addEventListener("change", describe);
  describe();
  const set = (value) => (control.set(value), describe());
  return { ...control, set, now: () => control.control.value };
}

function toggle(name, about, card) {
  const usual = card.defaults[name] ?? ["metadata", "composite"].includes(name);
  const box = el("input", { type: "checkbox" });
  const row = makeRow(name, about, box);
  row.element.classList.add("check");
  const set = (value = usual) => (box.checked = value);
  set();
  return { ...row, set, get: () => (box.checked === usual ? undefined : box.checked) };
}

function label(name, about, card) {
  const list = el("datalist", { id: "labels" }, card.labels.map((one) => el("option", { value: one })));
  const input = el("input", { type: "text", list: "labels", autocomplete: "off" });
  const row = makeRow(name, { ...about, hint: `${about.hint} There are ${card.classes}.` }, input);
  row.element.append(list);
  const set = (value = "") => (input.value = value);
  const read = (text) => (/^\d+$/.test(text) ? Number(text) : text);
  return { ...row, set, get: () => (input.value.trim() === "" ? undefined : read(input.value.trim())) };
}

function seed(name, about) {
  const input = el("input", { type: "text", inputmode: "numeric", autocomplete: "off", placeholder: "new each time" });
  const set = (value = "") => (input.value = value);
  const row = makeRow(name, about, input, button("New each time", () => set(), { class: "quiet" }));
  // What is no number goes to the service, which says what may stand here.
  const read = (text) => (/^\d+$/.test(text) ? Number(text) : text);
  return { ...row, set, get: () => (input.value.trim() === "" ? undefined : read(input.value.trim())) };
}

const KINDS = { slider, number, text, choice, sampler, toggle, label, seed };

export const makeControl = (name, about, card) => KINDS[about.kind ?? "slider"](name, about, card);
