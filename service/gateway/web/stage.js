/** Runs a request, and shows its pictures while they are made. */

import { Problem } from "./api.js";
import { el } from "./dom.js";
import { Chosen } from "./grid.js";
import { runJob } from "./job.js";
import { Tile } from "./tile.js";

/**
 * Makes the pictures of `request` in `tiles`, one for each. Returns what was made, as Tile.done has it.
 * Throws Problem, after the tiles have said it.
 */
export async function make(request, tiles, { signal, expected }) {
  const began = performance.now();
  const onWait = (job) => tiles.forEach((tile) => tile.wait(job));
  const onProgress = (event) => tiles.forEach((tile, index) => tile.progress(event, index));
  try {
    const { job, pictures } = await runJob(request, { signal, onWait, onProgress });
    const took = (performance.now() - began) / 1000;
    const made = pictures.map((blob, index) => madeOf(request, job, index, blob, took));
    await Promise.all(pictures.map(whole));
    made.forEach((one, index) => tiles[index].done(one, expected));
    return made;
  } catch (error) {
    const told = error instanceof Problem ? error.message : "This page has a fault; its console says which.";
    for (const tile of tiles) tile.fail(told);
    throw error;
  }
}

/** A file that is cut off must not become a picture of ours. */
async function whole(blob) {
  (await createImageBitmap(blob)).close();
}

/** A picture by itself: with the request that makes it alone again, and with what went in, which the service forgets. */
function madeOf({ image, mask }, job, index, blob, took) {
  const { seed, tokens_sha256: tokens } = job.images[index];
  const { image_sha256: _, mask_sha256: __, ...alone } = job.images[index].request;
  const request = { ...alone, ...(image && { image }), ...(mask && { mask }) };
  return { request, seed, tokens, blob, took, warnings: job.warnings, at: Date.now() };
}

/** Place for one picture. */
export function showOne(stage, acts) {
  const tile = new Tile(acts);
  stage.replaceChildren(el("div", { class: "tiles" }, tile.element));
  return tile;
}

/** Place for several. */
export function showMany(stage, count, acts) {
  const tiles = Array.from({ length: count }, () => new Tile());
  const chosen = new Chosen(acts);
  const cells = tiles.map((tile) => chosen.cell(tile));
  stage.replaceChildren(el("div", { class: "tiles many" }, cells), chosen.element);
  return tiles;
}
