/** One job from the request to its pictures. */

import { Problem, ask, askJson } from "./api.js";
import { readEvents } from "./events.js";

const OVER = ["succeeded", "failed", "cancelled"];
const AGAIN_MS = 1000;
const LOOK_MS = 2000;
const PATIENCE_MS = 30_000;

/** A browser keeps six connections to a host: two are left for everything else. */
const follow = atMost(4, followNow);

/**
 * Makes the pictures of `request`. `onWait` gets the job while it waits, `onProgress` its events; `signal` cancels it.
 * Returns {job, pictures}; throws Problem, with status 499 when it was cancelled.
 */
export async function runJob(request, { signal, onWait, onProgress }) {
  const accepted = await askJson("generate", { method: "POST", body: request, headers: { Prefer: "respond-async" } });
  const { id } = accepted;
  onWait(accepted);
  const cancel = () => ask(`jobs/${id}`, { method: "DELETE" }).catch(() => {}); // it may be over already
  signal.addEventListener("abort", cancel, { once: true });
  if (signal.aborted) cancel();
  try {
    await follow(id, onWait, onProgress);
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
async function followNow(id, onWait, onProgress) {
  const look = () => askJson(`jobs/${id}`).then(onWait, () => {}); // what is wrong, the events say
  const looking = setInterval(look, LOOK_MS);
  const heard = (event) => {
    clearInterval(looking);
    onProgress(event);
  };
  try {
    await listen(id, heard);
  } finally {
    clearInterval(looking);
  }
}

/** The events of a job, over as many connections as it takes. Throws Problem when none could be made for too long. */
async function listen(id, onProgress) {
  let after = "";
  let lostAt = 0;
  for (;;) {
    try {
      const headers = after ? { "Last-Event-ID": after } : {};
      const response = await ask(`jobs/${id}/events?preview=purity`, { headers });
      if (response.status === 204) return;
      lostAt = 0;
      for await (const { id: place, event, data } of readEvents(response)) {
        after = place;
        onProgress(JSON.parse(data));
        if (OVER.includes(event)) return;
      }
    } catch (error) {
      lostAt ||= Date.now();
      const lasting = error instanceof Problem && error.status !== 0 && error.status !== 503;
      if (lasting || Date.now() - lostAt > PATIENCE_MS) throw error;
      console.warn("the events of a job broke off", error);
    }
    await new Promise((done) => setTimeout(done, AGAIN_MS));
  }
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
