/** The pictures that this browser has made: in IndexedDB, the last ones only. */

const MOST = 200;
const NAME = "vqd";
const PICTURES = "pictures";
let opened;

function open() {
  opened ??= new Promise((done, failed) => {
    const asked = indexedDB.open(NAME, 1);
    asked.onupgradeneeded = () => asked.result.createObjectStore(PICTURES, { keyPath: "id", autoIncrement: true });
    asked.onsuccess = () => done(asked.result);
    asked.onerror = () => failed(asked.error);
  });
  return opened;
}

const settled = (asked) =>
  new Promise((done, failed) => {
    asked.onsuccess = () => done(asked.result);
    asked.onerror = () => failed(asked.error);
  });

async function pictures(mode) {
  return (await open()).transaction(PICTURES, mode).objectStore(PICTURES);
}

/** Keeps it, and lets the oldest go. */
export async function keep(made) {
  const all = await pictures("readwrite");
  await settled(all.add(made));
  const extra = (await settled(all.count())) - MOST;
  if (extra <= 0) return;
  const ids = await settled(all.getAllKeys(null, extra));
  await settled(all.delete(IDBKeyRange.upperBound(ids.at(-1))));
}

/** All of them, the newest first. */
export async function kept() {
  return (await settled((await pictures("readonly")).getAll())).reverse();
}

/** One of them, or without an id all. */
export async function forget(id) {
  const all = await pictures("readwrite");
  await settled(id === undefined ? all.clear() : all.delete(id));
}
