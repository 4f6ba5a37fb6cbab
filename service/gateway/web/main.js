/** The page: what its buttons do, with the parts that do it. */

import { showModel } from "./about.js";
import { Problem, askJson } from "./api.js";
import { Axes } from "./axes.js";
import { showCode } from "./code.js";
import { byId, say } from "./dom.js";
import { Form } from "./form.js";
import { History } from "./history.js";
import "./key.js";
import { readLink } from "./link.js";
import { clearNotice, showNotice } from "./notice.js";
import { PicturePart } from "./picture.js";
import { make, showMany, showOne } from "./stage.js";
import { watchStatus } from "./status.js";
import { runSweep } from "./sweep.js";

const MAX_SEED = 2 ** 32;
const stage = byId("stage");
const picture = new PicturePart();
const form = new Form(picture);
const sweep = new Axes(byId("sweep"));
const history = new History(look);
let running = null;

const sweeping = () => document.querySelector("input[name=mode]:checked").value === "sweep";

function acts() {
  const take = async (blob) => {
    await picture.open(blob);
    byId("picture-in").scrollIntoView({ block: "nearest" });
  };
  return {
    restore: (request) => {
      restore(request);
      byId("form").scrollIntoView({ block: "nearest" });
      say("Its settings are in the form");
    },
    again: (request) => run({ ...request, seed: undefined, image_index: undefined }),
    four: (request) => run({ ...request, seed: undefined, image_index: undefined, n: 4 }),
    edit: byId("picture-in").hidden ? null : take,
  };
}

const pictures = (request) => request.n ?? form.card.defaults.n ?? 1;

function restore(request) {
  const wrong = form.write(request);
  refresh();
  if (wrong) showNotice(wrong);
}

/** A picture that was made before, on the stage again. */
function look(made) {
  showOne(stage, acts()).done(made);
  stage.scrollIntoView({ block: "nearest" });
}

/** Puts a request into the form, and makes it. */
function run(request) {
  byId("form").elements.mode.value = "one";
  restore(JSON.parse(JSON.stringify(request))); // without what is undefined
  start();
}

async function start(expected) {
  if (!form.card) return;
  if (running) return showNotice("One thing at a time: cancel what is being made, or wait for it.");
  clearNotice();
  form.clearErrors();
  const request = form.read();
  const axes = sweeping() ? sweep.read() : null;
  if (sweeping() && !axes) return;
  const before = [...stage.childNodes];
  running = new AbortController();
  busy(true);
  try {
    if (axes) await startSweep(request, axes);
    else await startPictures(request, expected);
  } catch (error) {
    if (error.status === 422 && !axes) stage.replaceChildren(...before); // the fields say it
    tell(error, () => start(expected));
  } finally {
    running = null;
    busy(false);
  }
}

async function startPictures(request, expected) {
  const count = pictures(request);
  const tiles = count > 1 ? showMany(stage, count, acts()) : [showOne(stage, acts())];
  stage.scrollIntoView({ block: "nearest" });
  const made = await make(request, tiles, { signal: running.signal, expected });
  say(made.length > 1 ? `${made.length} pictures are ready` : "The picture is ready");
  history.add(made);
}

async function startSweep(request, axes) {
  const seed = request.seed ?? Math.floor(Math.random() * MAX_SEED); // the same for all, or nothing could be compared
  const problems = await runSweep({ ...request, seed }, axes, {
    stage,
    signal: running.signal,
    acts: acts(),
    unused: (sampler) => form.unused(sampler),
    onMade: (made) => history.add(made),
  });
  if (problems.length) throw problems[0];
  say("The sweep is ready");
}

function tell(error, again) {
  if (!(error instanceof Problem)) {
    showNotice("This page has a fault; its console says which.");
    throw error;
  }
  if (error.status === 499) return say("Cancelled");
  const left = form.showErrors(error.errors);
  const told = left.map(({ field, message, allowed }) => `${field}: ${message}${allowed ? ` (allowed: ${allowed})` : ""}`);
  if (error.errors.length && !left.length) return say(error.message);
  const later = [0, 401, 429, 503].includes(error.status);
  showNotice(told.join("; ") || error.message, { retryAfter: error.retryAfter, again: later ? again : undefined });
}

/** One button takes the other's place, and the keyboard's focus with it. */
function busy(is) {
  const [goes, comes] = is ? [byId("make"), byId("cancel")] : [byId("cancel"), byId("make")];
  const focused = document.activeElement === goes;
  goes.hidden = true;
  comes.hidden = false;
  if (focused) comes.focus();
  stage.setAttribute("aria-busy", String(is));
}

/** What depends on what stands in the form. */
function refresh() {
  if (!form.card) return;
  if (sweep.card !== form.card) sweep.build(form.card);
  byId("sweep").hidden = !sweeping();
  showModel(form.card);
  const count = sweeping() ? sweep.count() : pictures(form.read());
  byId("make").textContent = count === 1 ? "Make a picture" : `Make ${count} pictures`;
  if (byId("code").open) showCode(form);
}

async function loadModels() {
  try {
    const { data } = await askJson("v1/models");
    if (!data.length) throw new Problem(503, "No worker is there yet, so no model can be asked.", { retryAfter: 5 });
    form.setModels(data);
  } catch (error) {
    return tell(error, loadModels);
  }
  byId("make").disabled = false;
  clearNotice();
  refresh();
  openLink();
}

/** Restores and makes what a link says; then the address is plain again, for the form may change. */
function openLink() {
  const linked = readLink(location.hash);
  if (!linked || !form.card) return;
  window.history.replaceState(null, "", location.pathname);
  byId("form").elements.mode.value = "one";
  restore(linked.request);
  if (!byId("notice").firstChild) start(linked.tokens);
}

byId("form").addEventListener("submit", (event) => {
  event.preventDefault();
  start();
});
byId("form").addEventListener("input", refresh);
byId("form").addEventListener("change", refresh);
byId("cancel").addEventListener("click", () => running?.abort());
byId("code").addEventListener("toggle", refresh);
byId("reset").addEventListener("click", refresh);
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) start();
});
document.addEventListener("newkey", loadModels);
window.addEventListener("hashchange", openLink);

byId("settings").open = !window.matchMedia("(max-width: 52rem)").matches;
loadModels();
history.show().catch((error) => console.warn("this browser keeps no history", error));
watchStatus();
