/** What went wrong, above the pictures. When the service says how long to wait, the wait is counted down. */

import { button, byId, el } from "./dom.js";

let counting = 0;

export function clearNotice() {
  clearInterval(counting);
  byId("notice").replaceChildren();
}

/** `again`: what the person may try once the wait is over; nothing is tried without them. */
export function showNotice(text, { retryAfter = 0, again } = {}) {
  clearNotice();
  const retry = again && button("Try again", () => (clearNotice(), again()));
  byId("notice").replaceChildren(el("p", {}, text), ...(retry ? [retry] : []));
  if (!retry || !retryAfter) return;
  const until = Date.now() + retryAfter * 1000;
  const tick = () => {
    const left = Math.ceil((until - Date.now()) / 1000);
    retry.disabled = left > 0;
    retry.textContent = left > 0 ? `Try again in ${left} s` : "Try again";
    if (left <= 0) clearInterval(counting);
  };
  counting = setInterval(tick, 250);
  tick();
}
