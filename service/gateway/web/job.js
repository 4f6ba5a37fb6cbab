/** One job from the request to its pictures. */

import { Problem, ask, askJson } from "./api.js";
import { readEvents } from "./events.js";

const OVER = ["succeeded", "failed", "cancelled"];
const AGAIN_MS = 1000;
const PATIENCE_MS = 30_000;

/** A browser keeps six connections to a host: two are left for everything else. */
const follow = atMost(4, followNow);

/**
 * Makes the pictures of `request`. `onProgress` gets the events; `signal` cancels the job.
 * Returns {job, pictures}; throws Problem, with status 499 when it was cancelled.
 */
export async function runJob(request, { signal, onProgress }) {
  const { id } = await askJson("generate", { method: "POST", body: request, headers: { Prefer: "respond-async" } });
  const cancel = () => ask(`jobs/${id}`, { method: "DELETE" }).catch(() => {}); // it may be over already
  signal.addEventListener("abort", cancel, { once: true });
  if (signal.aborted) cancel();
  try {
    await follow(id, onProgress);
  } finally {
    signal.removeEventListener("abort", cancel);
  }
  const job = await askJson(`jobs/${id}`);
  if (job.status === "cancelled") throw new Problem(499, "Cancelled.");
  if (job.status === "failed") throw failureOf(job);
  const pictures = job.images.map(async ({ index }) => (await ask(`jobs/${id}/images/${index}`)).blob());
  return { job, pictures: await Promise.all(pictures) };
}

/** Until the job's last event, across lost connections. */
async function followNow(id, onProgress) {
  let after = "";
  let heard = Date.now();
  while (Date.now() - heard < PATIENCE_MS) {
    try {
      const headers = after ? { "Last-Event-ID": after } : {};
      const response = await ask(`jobs/${id}/events?preview=purity`, { headers });
      if (response.status === 204) return;
      for await (const { id: place, event, data } of readEvents(response)) {
        heard = Date.now();
        after = place;
        onProgress(JSON.parse(data));
        if (OVER.includes(event)) return;
      }
    } catch (error) {
      if (error instanceof Problem && error.status !== 0 && error.status !== 503) throw error;
      console.warn("the events of a job broke off", error);
    }
    await new Promise((done) => setTimeout(done, AGAIN_MS));
  }
  throw new Problem(0, "The service fell silent; the job may still be made.");
}

function failureOf({ error = "It failed.", error_type: type = "" }) {
  const [, field, message] = /^(\w+): (.*)$/s.exec(error) ?? [];
  if (type.endsWith(":invalid-request") && field) return new Problem(422, error, { errors: [{ field, message }] });
  return new Problem(500, error);
}

/** `work`, so that at most `most` run at once and the others wait in turn. */
function atMost(most, work) {
  let free = most;
  const waiting = [];
  return async (...given) => {
    if (free > 0) free -= 1;
    else await new Promise((turn) => waiting.push(turn));
    try {
      return await work(...given);
    } finally {
      if (waiting.length) waiting.shift()();
      else free += 1;
    }
  };
}
