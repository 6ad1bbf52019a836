// The jobs that this browser started: what is known of each, and the list of them.

import { announce, byId, element, say, timeText } from "./dom.js";
import * as gateway from "./gateway.js";
import * as memory from "./memory.js";

export const STATE_WORDS = {
  queued: "Waiting", dispatched: "Starting", running: "Running", finishing: "Finishing",
  succeeded: "Done", failed: "Failed", canceled: "Canceled",
};

const known = new Map(); // id -> the job's last known body
const rows = new Map(); // id -> {row, parts}: kept, so that the focus is not lost when the list is drawn anew
let current = null; // id of the job on the stage
let tell = () => {};

export const nameOf = (id) => memory.remembered().find((entry) => entry.id === id)?.name ?? "";
export const isOver = (id) => gateway.ENDS.has(known.get(id)?.state);

/** Calls listener(body) whenever something was learned of a job. */
export function onBody(listener) {
  tell = listener;
}

export function setCurrent(id) {
  current = id;
  show();
}

/** What was known is asked for anew: another token may see other jobs. */
export function clear() {
  known.clear();
  show();
}

/** Asks for a job, shows it in the list, tells the listener. A job that the gateway knows no more leaves the list. */
export async function refresh(id) {
  try {
    return learn(await gateway.job(id));
  } catch (error) {
    if (error.status === 404) {
      await memory.forget(id);
      known.delete(id);
      show();
    }
    throw error;
  }
}

function learn(body) {
  // An answer may be older than what a stream has said since it was asked for.
  if (known.get(body.id)?.last_event > body.last_event) return known.get(body.id);
  known.set(body.id, body);
  show();
  tell(body);
  return body;
}

/** Cancels a job. That it had ended already is no error: how it ended is shown. */
export async function cancel(id) {
  try {
    learn(await gateway.cancel(id));
  } catch (error) {
    if (error.status !== 409) throw error;
    await refresh(id);
  }
}

/**
 * Asks for every job that has not ended. They are asked for, not streamed: a tab holds one stream. Where requests are
 * counted, for all but the one on the stage at once; one that is not among the newest hundred is asked for by itself.
 */
export async function poll() {
  const listed = new Set();
  const others = memory.remembered().filter(({ id }) => id !== current && !isOver(id));
  if (gateway.isCounted() && others.length > 1) {
    for (const body of await gateway.jobs().catch(() => [])) {
      listed.add(body.id);
      if (others.some(({ id }) => id === body.id)) learn(body);
    }
    if (!listed.size) return; // what was refused, or not answered, is not asked for in pieces
  }
  const own = memory.remembered().map(({ id }) => id);
  // The one on the stage may have been started elsewhere: its address is all that it takes.
  for (const id of current && !own.includes(current) ? [current, ...own] : own) {
    if (isOver(id) || (listed.has(id) && id !== current)) continue;
    try {
      await refresh(id);
    } catch (error) {
      if (error instanceof gateway.Unreachable) return; // the rest would wait for as long
    }
  }
}

/** Takes note of what a stream said before the next poll says it too: after event `number` the job is in this state. */
export function note(id, state, number) {
  const body = known.get(id);
  if (!body || body.last_event >= number) return;
  known.set(id, { ...body, state, last_event: number });
  show();
}

/** Moves a job's small bar; bars never go back. */
export function mark(id, fraction) {
  const bar = rows.get(id)?.bar;
  if (bar) bar.value = Math.max(bar.value, fraction * 100);
}

/** Draws the list. */
export function show() {
  const entries = memory.remembered();
  byId("jobs_empty").hidden = entries.length > 0;
  for (const id of rows.keys()) if (!entries.some((entry) => entry.id === id)) rows.delete(id);
  const wanted = entries.map(rowOf);
  const list = byId("jobs");
  const isChanged = wanted.length !== list.children.length || wanted.some((row, index) => row !== list.children[index]);
  if (isChanged) list.replaceChildren(...wanted);
}

function rowOf({ id, name, at }) {
  if (!rows.has(id)) rows.set(id, newRow(id, name, at));
  const { row, link, badge, bar, stop, save, remove } = rows.get(id);
  const body = known.get(id);
  row.classList.toggle("current", current === id);
  if (current === id) link.setAttribute("aria-current", "true");
  else link.removeAttribute("aria-current");
  badge.dataset.state = body?.state ?? "unknown";
  say(badge, STATE_WORDS[body?.state] ?? "…");
  bar.hidden = isOver(id) || !body;
  if (body) mark(id, body.fraction);
  stop.hidden = !body || isOver(id);
  stop.disabled = Boolean(body?.cancel_requested);
  save.hidden = !body?.results[0];
  if (body?.results[0]) save.href = gateway.downloadUrl(body.results[0].link);
  remove.hidden = Boolean(body) && !isOver(id);
  return row;
}

function newRow(id, name, at) {
  const about = () => element("span", { className: "unseen" }, ` ${name}`);
  const link = element("a", { href: `#${id}`, className: "row_name", dir: "auto", title: name }, name);
  const badge = element("span", { className: "badge" });
  const bar = element("progress", { max: 100, value: 0, "aria-label": `Progress of ${name}` });
  const stop = element("button", { type: "button", className: "quiet" }, "Cancel", about());
  const save = element("a", { className: "quiet", download: "" }, "Download", about());
  const remove = element("button", { type: "button", className: "quiet" }, "Remove", about());
  stop.addEventListener("click", () => stopOne(id, stop));
  remove.addEventListener("click", () => removeOne(id));
  const time = element("time", { dateTime: new Date(at).toISOString(), className: "hint" }, timeText(at));
  const row = element(
    "li", {}, element("div", { className: "row_head" }, link, badge), bar,
    element("div", { className: "row_foot" }, time, save, stop, remove),
  );
  return { row, link, badge, bar, stop, save, remove };
}

async function stopOne(id, button) {
  button.disabled = true;
  say(byId("jobs_error"), "");
  try {
    await cancel(id);
    announce(`Canceling ${nameOf(id)}`);
    byId("jobs_title").focus();
  } catch (error) {
    button.disabled = false;
    say(byId("jobs_error"), error.message);
  }
}

async function removeOne(id) {
  await memory.forget(id);
  known.delete(id);
  if (current === id) location.hash = "";
  else show();
  byId("jobs_title").focus();
}
