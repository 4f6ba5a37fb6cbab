/** Asks for the API key, once the service wants one. */

import { hasKey, useKey } from "./api.js";
import { byId } from "./dom.js";

const dialog = byId("key");

document.addEventListener("keyneeded", ({ detail: problem }) => {
  const why = byId("key-why");
  why.hidden = !hasKey();
  why.textContent = problem.message;
  if (!dialog.open) dialog.showModal();
});

dialog.querySelector("form").addEventListener("submit", () => {
  useKey(byId("key-value").value.trim(), byId("key-keep").checked);
  byId("key-value").value = "";
});
byId("key-cancel").addEventListener("click", () => dialog.close());
