/** The form: what a model takes becomes controls, and the controls a request. */

import { makeControl } from "./controls.js";
import { byId, el } from "./dom.js";
import { FIELDS } from "./fields.js";
import { makeRow, markRow } from "./row.js";

const PLACES = {
  words: byId("words"),
  knobs: byId("knobs"),
  advanced: byId("advanced").querySelector("div"),
};

export class Form {
  /** `picture`: the part with the picture that one may start from. */
  constructor(picture) {
    this.picture = picture;
    this.cards = [];
    this.carried = {};
    byId("reset").addEventListener("click", () => this.write({ ...this.words(), model: this.card.id }));
  }

  /** The models that are served; keeps what stands in the form. */
  setModels(cards) {
    const before = this.card ? this.read() : {};
    this.cards = cards;
    this.build(cards.find(({ id }) => id === before.model) ?? cards[0]);
    this.write(before);
  }

  build(card) {
    this.card = card;
    this.controls = Object.create(null); // a link may name anything, "constructor" too
    for (const place of Object.values(PLACES)) place.replaceChildren();
    if (this.cards.length > 1) PLACES.words.append(this.modelRow());
    this.picture.build(card);
    for (const [name, about] of Object.entries(FIELDS)) {
      if (!about.place || about.kind === "model" || !card.fields.includes(name)) continue;
      const control = makeControl(name, about, card);
      this.controls[name] = control;
      (PLACES[about.place] ?? this.picture.place).append(control.element);
    }
    this.picture.onPaint = (painted) => this.controls.strength?.set(painted ? 1 : undefined);
    this.controls.sampler?.control.addEventListener("change", () => this.hideUnused());
    this.hideUnused();
  }

  modelRow() {
    const options = this.cards.map(({ id }) => el("option", { value: id, selected: id === this.card.id }, id));
    const list = el("select", {}, options);
    list.addEventListener("change", () => {
      const asked = this.words();
      this.build(this.cards.find(({ id }) => id === list.value));
      this.write({ ...asked, model: list.value });
      byId("field-model").focus();
    });
    this.model = makeRow("model", FIELDS.model, list);
    return this.model.element;
  }

  /** The fields that mean nothing to a sampler of this model. */
  unused(sampler = this.controls.sampler?.now()) {
    return this.card.sampler_cards.find(({ name }) => name === sampler)?.unused ?? [];
  }

  hideUnused() {
    const unused = this.unused();
    for (const [name, { element }] of Object.entries(this.controls)) element.hidden = unused.includes(name);
  }

  /** The request as the form has it: only what differs from the model's defaults. */
  read() {
    const request = { ...this.carried };
    if (this.cards.length > 1) request.model = this.card.id;
    const unused = this.unused();
    for (const [name, control] of Object.entries(this.controls)) {
      const value = unused.includes(name) ? undefined : control.get();
      if (value !== undefined) request[name] = value;
    }
    return this.picture.complete(request);
  }

  words() {
    const { prompt, label, negative_prompt: without } = this.read();
    return Object.fromEntries(Object.entries({ prompt, label, negative_prompt: without }).filter(([, value]) => value));
  }

  /** Puts a request into the form; what has no control is carried along, and said. */
  write(request) {
    const { model, image, mask, ...asked } = request;
    const wanted = this.cards.find(({ id }) => id === model);
    if (wanted && wanted !== this.card) this.build(wanted);
    this.clearErrors();
    this.carried = {};
    for (const control of Object.values(this.controls)) control.set();
    for (const [name, value] of Object.entries(asked)) {
      if (value === null) continue;
      const control = this.controls[name];
      control?.set(value);
      if (control && (control.get() ?? control.now?.() ?? value) === value) continue;
      control?.set();
      this.carried[name] = value;
    }
    this.picture.write(image, mask);
    if (mask && asked.strength === undefined) this.picture.onPaint(true);
    this.hideUnused();
    const names = Object.keys(this.carried);
    byId("carried").hidden = !names.length;
    byId("carried").textContent = `Also as in the link: ${names.map((name) => `${name} ${JSON.stringify(this.carried[name])}`).join(", ")}`;
    return model === undefined || wanted ? null : `No model "${model}" is served here.`;
  }

  clearErrors() {
    for (const control of Object.values(this.controls)) markRow(control, "");
  }

  /** Shows each error at its field, and goes to the first; returns those that have none. */
  showErrors(errors) {
    const own = errors.filter(({ field }) => this.controls[field]);
    for (const { field, message, allowed } of own) {
      const control = this.controls[field];
      markRow(control, allowed ? `${message} (allowed: ${allowed})` : message);
      const folded = control.element.closest("details");
      if (folded) folded.open = true;
    }
    if (own.length) this.controls[own[0].field].control.focus();
    return errors.filter((error) => !own.includes(error));
  }
}
