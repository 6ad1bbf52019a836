// One job: how far it is, what came of it, before and after side by side.

import { comparison } from "./compare.js";
import { announce, byId, durationText, element, say, sizeText, timeText } from "./dom.js";
import * as gateway from "./gateway.js";
import * as jobs from "./jobs.js";
import * as memory from "./memory.js";

const TITLE = "comfygate: face swap";
const NEW = "New swap";

let stage = null; // the job shown: {id, stream, view, original, fraction, endsAt, startedAt, lastSpoken, isShown}
let tellUnauthorized = () => {};
let tellState = () => {};

/** Shows a job, or none. Whatever was shown before is left, its stream too: there is one at most. */
export async function open(id) {
  close();
  byId("compose").hidden = Boolean(id);
  byId("job").hidden = !id;
  document.title = TITLE;
  jobs.setCurrent(id);
  if (!id) return;
  const current = {
    id, stream: null, view: null, original: null, fraction: 0, endsAt: null, startedAt: null, lastSpoken: null, isShown: false,
  };
  stage = current;
  clear(id);
  current.original = await memory.original(id);
  if (stage !== current) return;
  showComparison(null);
  let body = null;
  try {
    body = await jobs.refresh(id);
  } catch (error) {
    if (stage !== current) return;
    if (error instanceof gateway.Refusal) {
      showRefusal(error);
      return;
    }
  }
  // What happened until now is shown; the stream tells the rest, or all when the gateway did not answer.
  if (stage === current && !gateway.ENDS.has(body?.state)) attach(current, body?.last_event ?? 0);
}

function close() {
  stage?.stream?.stop();
  stage?.view?.close();
  stage = null;
}

function clear(id) {
  showTitle(jobs.nameOf(id));
  say(byId("again"), NEW);
  for (const part of ["job_times", "job_error", "step", "eta", "job_state"]) say(byId(part), "");
  delete byId("job_state").dataset.state;
  byId("job_notes").replaceChildren();
  byId("stage").replaceChildren();
  for (const part of ["working", "download", "cancel"]) byId(part).hidden = true;
  byId("bar").value = 0;
  say(byId("percent"), "0 %");
  byId("job_title").focus();
}

function attach(current, after) {
  current.stream = gateway.follow(current.id, after, {
    onEvent: (name, data, number) => stage === current && showEvent(current, name, data, number),
    onEnd: async (refusal) => {
      if (stage !== current) return;
      try {
        if (refusal) throw refusal;
        await jobs.refresh(current.id);
      } catch (error) {
        // Where the gateway went away between its last event and this, the next poll tells how it ended.
        if (stage === current && error instanceof gateway.Refusal) showRefusal(error);
      }
    },
  });
}

// ------------------------------------------------------------------------------------------------------- while it runs

function showEvent(current, name, data, number) {
  if (name === "progress") showProgress(data);
  else if (name === "requeued") {
    showState("queued", number);
    say(byId("step"), data.message ?? "The worker was lost; waiting for another one.");
  } else if (name === "cancel_requested") say(byId("step"), "Canceling…");
  else if (name === "warning") addNote(data.message);
  else if (name === "dispatched" || name === "started") {
    current.startedAt ??= Date.parse(data.at);
    showState(name === "started" ? "running" : "dispatched", number);
  } else if (name === "finishing") {
    showState("finishing", number);
    say(byId("step"), "Fetching and checking the result");
  }
}

function showProgress({ fraction, message, eta_seconds: eta }) {
  stage.fraction = Math.max(stage.fraction, fraction);
  const percentage = Math.floor(stage.fraction * 100);
  byId("bar").value = stage.fraction * 100;
  say(byId("percent"), `${percentage} %`);
  if (message) say(byId("step"), message);
  // A polled body has no such figure, which says nothing about the stream's last one.
  if (eta !== undefined) stage.endsAt = Number.isFinite(eta) ? Date.now() + eta * 1000 : null;
  showLeft();
  document.title = `${percentage} % · comfygate`;
  const quarter = Math.floor(percentage / 25);
  stage.lastSpoken ??= quarter; // where a job stood when it was opened is seen, not news
  if (quarter > stage.lastSpoken) {
    stage.lastSpoken = quarter;
    announce(`${quarter * 25} percent done`);
  }
  jobs.mark(stage.id, stage.fraction);
}

function showLeft() {
  if (!stage || byId("working").hidden) return;
  const left = stage.endsAt === null ? null : (stage.endsAt - Date.now()) / 1000;
  let text = "";
  if (left !== null) text = left > 1 ? `about ${durationText(left)} left` : "almost done";
  else if (stage.startedAt) text = `${durationText((Date.now() - stage.startedAt) / 1000)} so far`;
  say(byId("eta"), text);
}

function showState(state, number) {
  const badge = byId("job_state");
  if (badge.dataset.state === state) return;
  announce(jobs.STATE_WORDS[state] ?? state);
  badge.dataset.state = state;
  if (state === "queued") { // once more, perhaps: what the lost attempt promised, and its clock, say nothing of the next
    stage.endsAt = null;
    stage.startedAt = null;
    showLeft();
  }
  say(badge, jobs.STATE_WORDS[state] ?? state);
  jobs.note(stage.id, state, number);
  tellState();
}

function addNote(text) {
  const list = byId("job_notes");
  if (text && ![...list.children].some((note) => note.textContent === text)) list.append(element("li", {}, text));
}

// ----------------------------------------------------------------------------------------------- what is known of it all

function showBody(body) {
  if (body.id !== stage?.id || stage.isShown) return;
  const hasEnded = gateway.ENDS.has(body.state);
  showState(body.state, body.last_event);
  showTitle(jobs.nameOf(body.id) || body.output_name);
  say(byId("job_times"), factsText(body));
  say(byId("job_error"), body.state === "failed" ? body.error?.message || "The face swap failed." : "");
  byId("working").hidden = hasEnded;
  byId("cancel").hidden = hasEnded;
  byId("cancel").disabled = body.cancel_requested;
  body.warnings.forEach(addNote);
  if (body.started_at) stage.startedAt ??= Date.parse(body.started_at);
  if (hasEnded) {
    showEnd(body);
    return;
  }
  if (body.fraction > stage.fraction) showProgress({ fraction: body.fraction, message: body.step });
  if (body.state === "queued" && !body.cancel_requested) say(byId("step"), waitText(body));
}

// A long name is cut by the style sheet.
function showTitle(name) {
  say(byId("job_title"), name || "Face swap");
  byId("job_title").title = name;
}

function factsText(body) {
  const parts = [`Started ${timeText(body.created_at)}`];
  if (body.finished_at) parts.push(`took ${durationText((Date.parse(body.finished_at) - Date.parse(body.created_at)) / 1000)}`);
  if (body.upstream) parts.push(`on ${body.upstream}`);
  if (body.results[0]) parts.push(sizeText(body.results[0].size_bytes));
  return parts.join(" · ");
}

function waitText({ queue_position: position, expected_start_seconds: seconds, waiting }) {
  const workers = waiting?.upstreams ?? [];
  if (waiting && workers.length === 0) return "Waiting: there are no workers";
  // Of one that cannot be asked it is not known whether it could.
  if (workers.length > 0 && workers.every(({ fits, reason }) => fits === false || (fits === null && reason))) {
    return `Waiting: no worker can run it. ${workers.map(({ name, reason }) => `${name}: ${reason}`).join("; ")}`;
  }
  if (waiting?.retry_in_seconds >= 1) return `Waiting for another try in ${durationText(waiting.retry_in_seconds)}`;
  // By fair share, which may put others before or behind; where a job is too far back for that, by age.
  const ahead = Number.isFinite(waiting?.ahead_own) ? waiting.ahead_own + waiting.ahead_others : position;
  const start = Number.isFinite(seconds) && seconds >= 1 ? `; starts in about ${durationText(seconds)}` : "";
  if (!ahead) return `Waiting for a free worker${start}`;
  return `Waiting, ${ahead} ${ahead === 1 ? "job" : "jobs"} ahead${start}`;
}

function showEnd(body) {
  stage.isShown = true;
  stage.stream?.stop();
  document.title = `${jobs.STATE_WORDS[body.state]} · comfygate`;
  // The button that had the focus is gone: it goes to what tells of the end.
  if (document.activeElement === document.body) byId("job_title").focus();
  const [result] = body.results;
  say(byId("again"), toTryAgain() ? "Try again" : NEW);
  if (!result) {
    showComparison(null, { isOver: true });
    return;
  }
  byId("download").href = gateway.downloadUrl(result.link);
  byId("download").hidden = false;
  // A report of faces is nothing to look at.
  const isPicture = /^(image|video)\//.test(result.content_type);
  const after = { url: gateway.downloadUrl(result.link), type: result.content_type, isKept: () => gateway.isKept(result.link) };
  showComparison(isPicture ? after : null, { isOver: true });
}

function showComparison(after, { isOver = Boolean(after) } = {}) {
  stage.view?.close();
  stage.view = after || stage.original ? comparison(stage.original, after, isOver) : null;
  byId("stage").replaceChildren(...(stage.view ? [stage.view.element] : []));
}

function showRefusal(error) {
  const words = { 401: "A key is needed to see this job.", 404: "This job is not here (any more): jobs are kept for a limited time." };
  say(byId("job_error"), words[error.status] ?? error.message);
  byId("working").hidden = true;
  byId("cancel").hidden = true;
  if (error.status === 401) tellUnauthorized();
}

async function cancel() {
  const current = stage;
  if (!current) return;
  byId("cancel").disabled = true;
  say(byId("step"), "Canceling…");
  say(byId("job_error"), "");
  try {
    await jobs.cancel(current.id);
  } catch (error) {
    if (stage !== current) return;
    say(byId("job_error"), error.message);
    byId("cancel").disabled = false;
  }
}

/** What the job shown was to change, where it failed: to be tried again, with another face perhaps. Else null. */
export const toTryAgain = () => (byId("job_state").dataset.state === "failed" ? stage?.original ?? null : null);

/** Wires the buttons. onUnauthorized is called when a token is asked for, onState when the job is in another state. */
export function prepare({ onUnauthorized, onState }) {
  tellState = onState;
  tellUnauthorized = onUnauthorized;
  jobs.onBody(showBody);
  byId("cancel").addEventListener("click", cancel);
  setInterval(showLeft, 1000);
}
