// The page: what to swap, one job on the stage, the jobs of this browser, the pool. The address' hash names the job on
// the stage, so a reload, a bookmark and the back button all lead to it. What the server or a file says is only ever
// shown as text.

import * as compose from "./compose.js";
import { byId, say } from "./dom.js";
import * as gateway from "./gateway.js";
import * as jobs from "./jobs.js";
import * as memory from "./memory.js";
import * as pool from "./pool.js";
import * as stage from "./stage.js";

const POLL_MILLISECONDS = 3000;

const hashId = () => (memory.JOB_ID.test(location.hash.slice(1)) ? location.hash.slice(1) : null);

// ------------------------------------------------------------------------------------------------------------ the link

let isClosed = true; // the gateway has not answered yet, or wants a token that it was not given

async function pollHealth() {
  let health;
  try {
    health = await gateway.health();
  } catch (error) {
    pool.showAway();
    showLost(error instanceof gateway.Unreachable ? "" : error.message);
    return;
  }
  byId("offline_banner").hidden = true;
  pool.show(health);
  const wasClosed = isClosed;
  isClosed = health.upstreams === undefined;
  compose.setClosed(isClosed);
  compose.setConsentRequired(health.consent_required === true);
  byId("key_form").hidden = !isClosed;
  if (isClosed) showTokenError(gateway.token() ? "The gateway does not accept this key." : "");
  if (wasClosed && !isClosed) await enter();
}

function showLost(reason) {
  const banner = byId("offline_banner");
  banner.hidden = false;
  say(banner, reason || "The gateway does not answer. Jobs that it has accepted are safe; this page goes on by itself once it is back.");
}

/** What is shown once the gateway lets us in: the job that the address names, else what is still at work. */
async function enter() {
  jobs.clear();
  const [latest] = memory.remembered();
  if (!hashId() && latest) {
    const body = await jobs.refresh(latest.id).catch(() => null);
    if (body && !gateway.ENDS.has(body.state)) history.replaceState(null, "", `#${latest.id}`);
  }
  await showHash();
}

// Nothing is asked for before a token is there: every answer would be a refusal.
const showHash = () => stage.open(isClosed ? null : hashId());
const pollJobs = async () => { if (!isClosed) await jobs.poll(); };
// A key has a number of requests a minute, which the page leaves to its user: every other time is enough.
let rounds = 0;
const pollJobsNowAndThen = async () => { if (!gateway.isCounted() || rounds++ % 2 === 0) await pollJobs(); };

// ----------------------------------------------------------------------------------------------------------- the token

function showTokenError(text) {
  say(byId("token_error"), text);
  if (text) byId("token").setAttribute("aria-invalid", "true");
  else byId("token").removeAttribute("aria-invalid");
}

async function useToken(event) {
  event.preventDefault();
  gateway.setToken(byId("token").value.trim());
  byId("token").value = "";
  await pollHealth();
  if (isClosed) byId("token").focus();
  else if (!hashId()) byId("target").focus();
  await pollJobs();
}

// --------------------------------------------------------------------------------------------------------------- start

/** Calls act again and again, each time after the last has ended, and not while nobody looks. */
async function repeat(act) {
  if (!document.hidden) await act();
  setTimeout(() => repeat(act), POLL_MILLISECONDS);
}

function goHome(event) {
  event.preventDefault();
  if (location.hash) location.hash = "";
  byId("main").focus();
}

// A token that is accepted no more is met by whoever asks first; how the gateway is tells the rest.
compose.prepare({ onStarted: (id) => { location.hash = id; }, onUnauthorized: pollHealth });
// When one job changes its state, its worker and the jobs behind it do too.
stage.prepare({ onUnauthorized: pollHealth, onState: () => { pollHealth(); pollJobs(); } });
byId("jobs_title").tabIndex = -1;
byId("key_form").addEventListener("submit", useToken);
byId("again").addEventListener("click", (event) => {
  compose.offer(stage.toTryAgain());
  goHome(event);
});
byId("home").addEventListener("click", goHome);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // its hash would name no job
  byId("main").focus();
});
window.addEventListener("hashchange", showHash);
window.addEventListener("storage", jobs.show);
document.addEventListener("visibilitychange", () => document.hidden || (pollHealth(), pollJobs()));

jobs.show();
repeat(pollHealth);
repeat(pollJobsNowAndThen);
