// The gateway's API as this page uses it. Every address is relative to where the page's files came from, so a gateway
// under a sub-path of a proxy works without being told.

const BASE = new URL("../../", import.meta.url);
const TOKEN_KEY = "comfygate.token";
const RETRY_MILLISECONDS = 3000;
const PATIENCE_MILLISECONDS = 15000;
const LOST = new Set([502, 503, 504]); // what a proxy says for a gateway that is away
const EVENTS = ["queued", "dispatched", "started", "progress", "finishing", "requeued", "warning", "cancel_requested"];

export const ENDS = new Set(["succeeded", "failed", "canceled"]);

/** A refusal: the server's own sentence, its code and the form field it is about. */
export class Refusal extends Error {
  constructor(status, { detail, code, field } = {}) {
    super(typeof detail === "string" && detail ? detail : `The gateway answered with status ${status}.`);
    this.status = status;
    this.code = code ?? "";
    this.field = field ?? "";
  }
}

/** The gateway did not answer at all, or a proxy said that it did not. */
export class Unreachable extends Error {
  constructor() {
    super("The gateway does not answer. Is it running, and are you connected?");
  }
}

export const url = (path) => new URL(path, BASE).href;
export const downloadUrl = (link) => url(`download/${encodeURIComponent(link)}`);

// ----------------------------------------------------------------------------------------------------------- the token

// Where storage is forbidden by the browser, the token lives as long as the page.
let fallbackToken = "";
// Whether the gateway asks nobody for a token; null until it has said so.
let isOpen = null;

export function token() {
  try {
    return sessionStorage.getItem(TOKEN_KEY) ?? fallbackToken;
  } catch {
    return fallbackToken;
  }
}

export function setToken(value) {
  fallbackToken = value;
  try {
    if (value) sessionStorage.setItem(TOKEN_KEY, value);
    else sessionStorage.removeItem(TOKEN_KEY);
  } catch { /* it stays in fallbackToken */ }
}

function authorization() {
  return token() ? { Authorization: `Bearer ${token()}` } : {};
}

// ------------------------------------------------------------------------------------------------------------ requests

async function ask(method, path, { headers = authorization(), signal = AbortSignal.timeout(PATIENCE_MILLISECONDS) } = {}) {
  let answer;
  try {
    answer = await fetch(url(path), { method, headers, cache: "no-store", signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable();
  }
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => ({}));
  // The gateway's own refusals carry a code; a proxy's page in its place does not.
  if (LOST.has(answer.status) && !body.code) throw new Unreachable();
  throw new Refusal(answer.status, body);
}

/**
 * How the gateway is. Without a token a gateway that wants one says one word only; that answer tells its mode, so it is
 * asked for before a token is shown to it.
 */
export async function health() {
  if (isOpen !== false || !token()) {
    const plain = await (await ask("GET", "health", { headers: {} })).json();
    isOpen = plain.upstreams !== undefined;
    if (isOpen || !token()) return plain;
  }
  return (await ask("GET", "health")).json();
}

/** Whether requests are counted: then as few as will do are sent. */
export const isCounted = () => isOpen === false;

/** The newest hundred jobs, without why they wait. */
export const jobs = async () => (await (await ask("GET", "-/jobs?limit=100")).json()).jobs;
export const job = async (id) => (await ask("GET", `-/jobs/${id}`)).json();
export const cancel = async (id) => (await ask("DELETE", `-/jobs/${id}`)).json();

/** Whether a result is still there to be had. */
export async function isKept(link) {
  try {
    await ask("HEAD", `download/${encodeURIComponent(link)}`);
    return true;
  } catch (error) {
    return !(error instanceof Refusal);
  }
}

/**
 * Sends the form; resolves to the job's id. XMLHttpRequest, because fetch cannot tell how much of a body has left.
 * onProgress(fraction) is called while bytes leave; the signal aborts.
 */
export function submit(form, { onProgress, signal }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", url("face-swap"));
    request.responseType = "json";
    request.setRequestHeader("Accept", "application/json");
    for (const [name, value] of Object.entries(authorization())) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onload = () => {
      const id = request.response?.prompt_id;
      if (request.status === 200 && id) resolve(id);
      else reject(new Refusal(request.status, request.response ?? {}));
    };
    request.onerror = () => reject(new Unreachable());
    request.onabort = () => reject(new DOMException("canceled", "AbortError"));
    signal.addEventListener("abort", () => request.abort(), { once: true });
    request.send(form);
  });
}

// ------------------------------------------------------------------------------------------------------------- streams

/**
 * A job's events after number `after` until it ends or stop() is called: onEvent(name, data, number of the last
 * durable event), then once onEnd(refusal or null). Nothing is called after stop(). EventSource where the gateway is open; where it wants a token, which EventSource cannot send, the
 * same stream is read with fetch.
 */
export function follow(id, after, listener) {
  return isOpen === false ? followWithToken(id, after, listener) : followOpen(id, after, listener);
}

// A refusal that another try would meet again.
const isFinal = (error) => error instanceof Refusal && error.status < 500 && error.status !== 429;

function followOpen(id, after, { onEvent, onEnd }) {
  let isStopped = false;
  let source = null;
  let timer = null;
  let cursor = after;

  const stop = () => {
    isStopped = true;
    clearTimeout(timer);
    source.close();
  };
  const end = (refusal) => {
    stop();
    onEnd(refusal);
  };
  // EventSource comes back by itself from a lost connection, but not from an answer other than 200: the job tells why.
  const recover = async () => {
    try {
      const { state } = await job(id);
      if (isStopped) return;
      if (ENDS.has(state)) end(null);
    } catch (error) {
      if (isStopped) return;
      if (isFinal(error)) end(error);
    }
    if (!isStopped) timer = setTimeout(connect, RETRY_MILLISECONDS);
  };
  const connect = () => {
    // When the browser comes back by itself it says the number of the last event, which counts more than this one.
    source = new EventSource(url(`-/jobs/${id}/events?last_event_id=${cursor}`));
    for (const name of [...EVENTS, ...ENDS]) {
      source.addEventListener(name, (event) => {
        if (isStopped) return;
        cursor = Number(event.lastEventId || cursor);
        onEvent(name, JSON.parse(event.data), cursor);
        if (ENDS.has(name) && !isStopped) end(null);
      });
    }
    source.onerror = () => {
      if (!isStopped && source.readyState === EventSource.CLOSED) recover();
    };
  };
  connect();
  return { stop };
}

function followWithToken(id, after, { onEvent, onEnd }) {
  const leaving = new AbortController();
  const isStopped = () => leaving.signal.aborted;
  const end = (refusal) => {
    if (isStopped()) return;
    leaving.abort();
    onEnd(refusal);
  };
  const run = async () => {
    let cursor = after;
    while (!isStopped()) {
      try {
        const headers = { ...authorization(), Accept: "text/event-stream", "Last-Event-ID": String(cursor) };
        const answer = await ask("GET", `-/jobs/${id}/events`, { headers, signal: leaving.signal });
        if (answer.status === 204) end(null);
        else {
          for await (const { id: number, event, data } of blocks(answer.body)) {
            if (isStopped()) break;
            if (number) cursor = Number(number);
            if (event) onEvent(event, JSON.parse(data), cursor);
            if (ENDS.has(event)) end(null);
          }
        }
      } catch (error) {
        if (isFinal(error)) end(error);
      }
      if (!isStopped()) await new Promise((resolve) => setTimeout(resolve, RETRY_MILLISECONDS));
    }
  };
  run();
  return { stop: () => leaving.abort() };
}

// The blocks of an event stream, as objects of their fields. The gateway ends lines with LF and puts data on one.
async function* blocks(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const lines = part.split("\n").filter((line) => line.indexOf(":") > 0);
      yield Object.fromEntries(lines.map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1).trimStart()]));
    }
  }
}
