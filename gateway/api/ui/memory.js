// What this browser remembers: the jobs that it started (localStorage), and the files that they change, so that a result
// can be compared with its original after a reload (IndexedDB). Both are bounded; both go when a job is removed.
// Where the browser forbids storage, the page works without memory.

const LIST_KEY = "comfygate.jobs";
const MAX_JOBS = 30;
const MAX_ORIGINALS = 10;
const MAX_ORIGINAL_BYTES = 500_000_000;
const STORE = "originals";
export const JOB_ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

let fallback = [];
const held = new Map(); // id -> original: for as long as the page is open, whatever the browser stores

/** The jobs, newest first: {id, name, at}. */
export function remembered() {
  try {
    const found = JSON.parse(localStorage.getItem(LIST_KEY) ?? "[]");
    return found.filter((entry) => JOB_ID.test(entry?.id) && typeof entry.name === "string");
  } catch {
    return fallback;
  }
}

function keep(list) {
  fallback = list;
  try {
    localStorage.setItem(LIST_KEY, JSON.stringify(list));
  } catch { /* they stay in fallback */ }
}

export async function remember(id, name, original) {
  const list = [{ id, name, at: Date.now() }, ...remembered().filter((entry) => entry.id !== id)];
  keep(list.slice(0, MAX_JOBS));
  await Promise.all(list.slice(MAX_ORIGINALS).map((entry) => dropOriginal(entry.id)));
  held.set(id, original);
  if (original.size <= MAX_ORIGINAL_BYTES) await inStore("readwrite", (store) => store.put(original, id));
}

export async function forget(id) {
  keep(remembered().filter((entry) => entry.id !== id));
  await dropOriginal(id);
}

/** The file that a job changes, or null. */
export const original = async (id) => held.get(id) ?? (await inStore("readonly", (store) => store.get(id))) ?? null;

function dropOriginal(id) {
  held.delete(id);
  return inStore("readwrite", (store) => store.delete(id));
}

// One request in one transaction; undefined when the browser has no room or no such storage.
async function inStore(mode, act) {
  try {
    const database = await promised(openDatabase());
    try {
      return await promised(act(database.transaction(STORE, mode).objectStore(STORE)));
    } finally {
      database.close();
    }
  } catch {
    return undefined;
  }
}

function openDatabase() {
  const opening = indexedDB.open("comfygate", 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore(STORE);
  return opening;
}

function promised(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
