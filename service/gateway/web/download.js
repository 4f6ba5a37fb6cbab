/** Files for the person. */

import { el } from "./dom.js";

/** Says the prompt and the seed, in letters that every file system takes. */
export function fileName(request, seed, format = request.format ?? "png") {
  const words = String(request.prompt ?? request.label ?? "picture").toLowerCase();
  const slug = words.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "").slice(0, 48) || "picture";
  return `${[slug, seed].filter((part) => part !== undefined).join("-")}.${format === "jpeg" ? "jpg" : format}`;
}

export function download(blob, name) {
  const url = URL.createObjectURL(blob);
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
