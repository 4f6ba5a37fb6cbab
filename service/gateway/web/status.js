/** What the service is doing, in the head of the page. */

import { askJson } from "./api.js";
import { byId, el } from "./dom.js";

const EVERY_MS = 2000;
const WORDS = { 0: "The service does not answer", 401: "An API key is needed", 403: "This key may not see it" };

export async function watchStatus() {
  document.addEventListener("click", ({ target }) => {
    if (!byId("status").contains(target)) byId("status").open = false;
  });
  for (;;) {
    if (document.visibilityState === "visible") await show();
    await new Promise((done) => setTimeout(done, EVERY_MS));
  }
}

async function show() {
  try {
    const { models } = await askJson("v1/status", { quiet: true });
    const ready = models.some(({ workers }) => workers.ready);
    tell(ready ? "ready" : "waiting", summary(models, ready));
    byId("status-more").replaceChildren(...(models.length ? models.map(about) : [el("p", {}, "No worker has registered.")]));
  } catch (error) {
    tell("down", WORDS[error.status] ?? "The service cannot say");
    byId("status-more").replaceChildren(el("p", {}, error.message));
  }
}

function tell(state, text) {
  byId("status").dataset.state = state;
  byId("status-text").textContent = text;
}

const sum = (numbers) => Object.values(numbers).reduce((total, number) => total + number, 0);
const count = (number, one) => `${number} ${one}${number === 1 ? "" : "s"}`;

function summary(models, ready) {
  if (!ready) return models.length ? "Not ready" : "No worker";
  const jobs = models.reduce((total, model) => total + sum(model.jobs), 0);
  const pictures = models.reduce((total, model) => total + model.pictures, 0);
  return jobs ? `${count(jobs, "job")}, ${count(pictures, "picture")} in progress` : "Ready";
}

function about({ id, jobs, oldest_s: oldest, pictures, workers }) {
  const waits = Math.max(0, ...Object.values(oldest));
  const lanes = Object.entries(jobs).map(([lane, number]) => `${number} ${lane}`);
  const states = Object.entries(workers).map(([state, number]) => `${number} ${state}`);
  const facts = {
    Jobs: lanes.join(", "),
    "Pictures in progress": pictures,
    "Longest wait": waits ? `${waits.toFixed(1)} s` : "none",
    Workers: states.join(", "),
  };
  const rows = Object.entries(facts).map(([name, fact]) => el("div", {}, el("dt", {}, name), el("dd", {}, String(fact))));
  return el("section", {}, el("h3", {}, id), el("dl", {}, rows));
}
