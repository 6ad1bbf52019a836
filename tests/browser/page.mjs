// Uses the gateway's page in headless Chromium as a person would, and tells what was to be seen.
//
// usage: node page.mjs < JSON, with {tools, chromium, gateway, token, scenario, files}: the folder that holds
// node_modules/playwright-core, the browser, the gateway's base URL, its admin token, what to do (a function below), paths
// of files to choose. Prints one JSON object. Each wait is for a condition, and bounded.

import { readFileSync } from "node:fs";
import { createServer, request as httpRequest } from "node:http";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { pathToFileURL } from "node:url";

const given = JSON.parse(await text(process.stdin));
const { chromium } = await import(pathToFileURL(join(given.tools, "node_modules/playwright-core/index.mjs")));
const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", "--disable-quic", "--autoplay-policy=no-user-gesture-required",
];
const PATIENCE_MILLISECONDS = 30_000;
const DESKTOP = { width: 1280, height: 900 };
const PHONE = { width: 390, height: 844 };

// -------------------------------------------------------------------------------------------------------- what is watched

// Runs in the page before its own scripts: how many event streams are held at a time, what screen readers are told.
function watch() {
  const Native = window.EventSource;
  const live = new Set();
  window.streams = { made: 0, most: 0, live: () => live.size };
  window.EventSource = class extends Native {
    constructor(...given) {
      super(...given);
      for (const each of live) if (each.readyState === Native.CLOSED) live.delete(each);
      live.add(this);
      window.streams.made += 1;
      window.streams.most = Math.max(window.streams.most, live.size);
    }
    close() {
      live.delete(this);
      super.close();
    }
  };
  window.spoken = [];
  document.addEventListener("DOMContentLoaded", () => {
    const region = document.getElementById("announcement");
    new MutationObserver(() => window.spoken.push(region.textContent)).observe(region, { childList: true });
  });
}

const browser = await chromium.launch({ executablePath: given.chromium, headless: true, args: FLAGS });

async function visit(address = `${given.gateway}/`, options = {}) {
  const context = await browser.newContext({ viewport: DESKTOP, acceptDownloads: true, ...options });
  context.setDefaultTimeout(PATIENCE_MILLISECONDS);
  const page = await context.newPage();
  page.complaints = [];
  page.elsewhere = [];
  page.on("console", (message) => message.type() === "error" && page.complaints.push(message.text()));
  page.on("pageerror", (error) => page.complaints.push(String(error)));
  page.on("request", (request) => {
    if (!request.url().startsWith(address) && !request.url().startsWith("blob:")) page.elsewhere.push(request.url());
  });
  // The browser is told to hand choosers over when the first listener comes; a key pressed at once would be too early.
  page.on("filechooser", () => {});
  await page.addInitScript(watch);
  await page.goto(address);
  return page;
}

const shown = (page, selector) => page.locator(selector).filter({ visible: true }).first().waitFor();
const textOf = (page, selector) => page.locator(selector).innerText();
const barOf = (page) => page.locator("#bar").evaluate((bar) => bar.value);
const isReady = (page) => page.waitForFunction(() => !document.querySelector("#start").disabled);
const reached = (page, percentage) => page.waitForFunction((least) => document.querySelector("#bar").value >= least, percentage);
const stateIs = (page, word) => page.waitForFunction((wanted) => document.querySelector("#job_state").textContent === wanted, word);
const hashOf = (page) => page.evaluate(() => location.hash.slice(1));

// A drop as the browser tells of it: file paths cannot be dragged into a headless one.
async function drop(page, selector, ...files) {
  const sent = files.map(({ path, name, type }) => ({ name, type, bytes: readFileSync(path).toString("base64") }));
  const data = await page.evaluateHandle((list) => {
    const transfer = new DataTransfer();
    for (const { name, type, bytes } of list) {
      transfer.items.add(new File([Uint8Array.from(atob(bytes), (letter) => letter.charCodeAt(0))], name, { type }));
    }
    return transfer;
  }, sent);
  for (const kind of ["dragenter", "dragover", "drop"]) await page.dispatchEvent(selector, kind, { dataTransfer: data });
}

async function start(page, target, face) {
  await isReady(page);
  if (await page.locator("#again").isVisible()) await page.click("#again");
  await page.setInputFiles("#target", target);
  await page.setInputFiles("#face", face);
  await page.click("#start");
  await shown(page, "#job");
  return hashOf(page);
}

const streams = (page) => page.evaluate(() => ({ made: window.streams.made, most: window.streams.most, live: window.streams.live() }));
const rows = (page) => page.locator("#jobs > li").evaluateAll((list) => list.map((row) => ({
  name: row.querySelector(".row_name").textContent,
  state: row.querySelector(".badge").textContent,
  time: row.querySelector("time").textContent,
})));

// -------------------------------------------------------------------------------------------------------------- scenarios

const { files } = given;
const EVIL = "<img src=x onerror=window.hit=1>.mp4";

const scenarios = {
  // A gateway that wants it said that the people in the pictures agreed.
  async consent() {
    const page = await visit();
    await isReady(page);
    await shown(page, "#consent_row");
    await page.setInputFiles("#target", files.still);
    await page.setInputFiles("#face", files.face);
    await page.click("#start");
    await page.waitForFunction(() => document.querySelector("#consent_error").textContent);
    const error = await textOf(page, "#consent_error");
    const focus = await page.evaluate(() => document.activeElement.id);
    const asked = await page.evaluate(() => performance.getEntriesByType("resource").filter(({ name }) => name.endsWith("/face-swap")).length);
    await page.check("#consent");
    await page.click("#start");
    await shown(page, "#job");
    await stateIs(page, "Done");
    const isChecked = await page.isChecked("#consent");
    return { id: await hashOf(page), error, focus, asked, isChecked, complaints: page.complaints };
  },

  // The main job: both files dropped at once, progress, a reload in the middle, the result beside the original.
  async swap() {
    const page = await visit(undefined, { timezoneId: "Asia/Tokyo" });
    await isReady(page);
    await drop(page, "#face_drop",
      { path: files.face, name: "face.png", type: "image/png" }, { path: files.long, name: EVIL, type: "video/mp4" });
    const chosen = [await textOf(page, "#target_name"), await textOf(page, "#face_name")];
    await page.click("#start");
    await shown(page, "#job");
    const id = await hashOf(page);
    const values = [];
    for (const least of [5, 15, 25]) {
      await reached(page, least);
      values.push(await barOf(page));
    }
    await page.waitForFunction(() => /\d+ of \d+/.test(document.querySelector("#step").textContent));
    const step = await textOf(page, "#step");
    await page.waitForFunction(() => document.querySelector("#eta").textContent.includes("left"));
    const eta = await textOf(page, "#eta");
    const spokenBefore = await page.evaluate(() => window.spoken);
    const streamsBefore = await streams(page);
    const before = await barOf(page);
    const isHeldByReload = page.waitForRequest((request) => request.url().includes(`/-/jobs/${id}/events`));
    await page.reload();
    await isHeldByReload;
    await page.waitForFunction(() => / of /.test(document.querySelector("#step").textContent));
    const after = await barOf(page);
    const stateAfterReload = await textOf(page, "#job_state");
    await shown(page, "#download");
    await page.waitForFunction(() => [...document.querySelectorAll(".pair video")].length === 2
      && [...document.querySelectorAll(".pair video")].every((video) => video.readyState >= 2));
    await page.click(".controls .round");
    await page.waitForFunction(() => [...document.querySelectorAll(".pair video")].every((video) => !video.paused && video.currentTime > 0.4));
    const drifts = await page.evaluate(async () => {
      const films = [...document.querySelectorAll(".pair video")];
      const found = [];
      while (found.length < 20) {
        await new Promise(requestAnimationFrame);
        found.push(Math.abs(films[0].currentTime - films[1].currentTime));
      }
      return found;
    });
    await page.click(".controls .round");
    await page.waitForFunction(() => [...document.querySelectorAll(".pair video")].every((video) => video.paused && !video.seeking));
    await page.locator(".controls input").fill("1");
    await page.waitForFunction(() => [...document.querySelectorAll(".pair video")].every((video) => !video.seeking && Math.abs(video.currentTime - 1) < 0.1));
    const places = await page.evaluate(() => [...document.querySelectorAll(".pair video")].map((video) => video.currentTime));
    const [download] = await Promise.all([page.waitForEvent("download"), page.click("#download")]);
    const outcome = {
      id, chosen, values, step, eta, before, after, stateAfterReload, drifts, places,
      fileName: download.suggestedFilename(), sizeBytes: readFileSync(await download.path()).length,
      captions: await page.locator("#stage figcaption").allInnerTexts(),
      sources: await page.evaluate(() => [...document.querySelectorAll(".pair video")].map((video) => new URL(video.src).protocol)),
      title: await textOf(page, "#job_title"), rows: await rows(page), spoken: [spokenBefore, await page.evaluate(() => window.spoken)],
      streams: [streamsBefore, await streams(page)],
      hit: await page.evaluate(() => window.hit ?? null), planted: await page.locator("img[onerror]").count(),
    };
    return { ...outcome, complaints: page.complaints, elsewhere: page.elsewhere };
  },

  // Two jobs on one worker: the one that waits is canceled from the list, the one that runs on its stage.
  async cancel() {
    const page = await visit();
    await start(page, files.clip, files.face); // what a finished run teaches, the one that waits is told
    await shown(page, "#download");
    const running = await start(page, files.endless, files.face);
    await reached(page, 1);
    const waiting = await start(page, files.clip, files.face);
    await page.waitForFunction(() => document.querySelector("#step").textContent.includes("starts in"));
    const step = await textOf(page, "#step");
    await page.evaluate((id) => { location.hash = id; }, running);
    await page.waitForFunction(() => document.querySelector("#job_title").textContent === "endless.mp4");
    await page.locator(`#jobs li:has(a[href="#${waiting}"])`).getByRole("button", { name: "Cancel" }).click();
    await page.waitForFunction((id) => document.querySelector(`#jobs li:has(a[href="#${id}"]) .badge`).textContent === "Canceled", waiting);
    const runningMeanwhile = await textOf(page, "#job_state");
    await page.click("#cancel");
    await stateIs(page, "Canceled");
    await page.waitForFunction(() => document.querySelector("#stage").textContent.includes("There is no result."));
    return {
      running, waiting, step, runningMeanwhile, rows: await rows(page), streams: await streams(page), complaints: page.complaints,
      controls: await page.locator("#job .actions > :visible").allInnerTexts(),
    };
  },

  // A still is compared by a slider, which the keyboard moves.
  async still() {
    const page = await visit();
    await start(page, files.still, files.face);
    await shown(page, "#download");
    await shown(page, ".slider");
    await page.waitForFunction(() => [...document.querySelectorAll(".slider img")].every((picture) => picture.complete && picture.naturalWidth > 0));
    const splitOf = () => page.locator(".slider").evaluate((box) => box.style.getPropertyValue("--split"));
    const range = page.locator(".slider input");
    const first = await splitOf();
    await range.focus();
    await page.keyboard.press("ArrowLeft");
    const moved = await splitOf();
    await page.keyboard.press("Home");
    return {
      splits: [first, moved, await splitOf()], told: await range.getAttribute("aria-valuetext"),
      sizes: await page.locator(".slider img").evaluateAll((list) => list.map((picture) => [picture.clientWidth, picture.clientHeight])),
      complaints: page.complaints,
    };
  },

  // A GIF comes back as a GIF, beside the one that was sent.
  async gif() {
    const page = await visit();
    await start(page, files.gif, files.face);
    await shown(page, "#download");
    await page.waitForFunction(() => [...document.querySelectorAll(".pair img")].filter((picture) => picture.complete && picture.naturalWidth > 0 && !picture.hidden).length === 2);
    const [download] = await Promise.all([page.waitForEvent("download"), page.click("#download")]);
    return {
      head: readFileSync(await download.path()).subarray(0, 6).toString("latin1"),
      sources: await page.locator(".pair img").evaluateAll((list) => list.map((picture) => new URL(picture.src).protocol)),
      captions: await page.locator("#stage figcaption").allInnerTexts(), complaints: page.complaints,
    };
  },

  // What is refused is said where it was chosen; nothing chosen is lost.
  async refuse() {
    const page = await visit();
    await isReady(page);
    await page.click("#start");
    const nothingChosen = await page.locator(".slot .error").allInnerTexts();
    const complaintsBefore = [...page.complaints];
    await page.setInputFiles("#target", { name: "notes.mp4", mimeType: "video/mp4", buffer: Buffer.from("no film at all") });
    await page.setInputFiles("#face", files.face);
    await page.click("#start");
    await page.waitForFunction(() => document.querySelector("#target_error").textContent !== "");
    return {
      nothingChosen, complaintsBefore, complaints: page.complaints, error: await textOf(page, "#target_error"),
      invalid: await page.getAttribute("#target", "aria-invalid"), focused: await page.evaluate(() => document.activeElement.id),
      names: [await textOf(page, "#target_name"), await textOf(page, "#face_name")], rows: await rows(page),
    };
  },

  // What the browser takes for another kind is told before it is sent; an empty file, and one too many bytes, in words.
  async unfit() {
    const page = await visit();
    await isReady(page);
    await page.setInputFiles("#face", { name: "IMG_0001.HEIC", mimeType: "image/heic", buffer: Buffer.from("no picture at all") });
    const atOnce = await textOf(page, "#face_error");
    await page.setInputFiles("#face", files.face);
    const mended = await textOf(page, "#face_error");
    await page.setInputFiles("#target", { name: "none.png", mimeType: "image/png", buffer: Buffer.alloc(0) });
    await page.click("#start");
    const empty = await textOf(page, "#target_error");
    await page.route("**/face-swap", (route) => route.fulfill({
      status: 413, json: { detail: "The body is larger than 1100 MiB.", code: "too_large" },
    }));
    await page.setInputFiles("#target", files.still);
    await page.click("#start");
    await page.waitForFunction(() => document.querySelector("#form_error").textContent);
    const tooLarge = await textOf(page, "#form_error");
    await page.setInputFiles("#target", files.clip);
    const left = await textOf(page, "#form_error");
    await drop(page, "#face_drop", ...[["clip", "a.mp4", "video/mp4"], ["clip", "b.mp4", "video/mp4"], ["face", "c.png", "image/png"]].map(
      ([file, name, type]) => ({ path: files[file], name, type })));
    const dropped = [await textOf(page, "#target_name"), await textOf(page, "#face_name"), await textOf(page, "#form_error")];
    return { atOnce, mended, empty, tooLarge, left, dropped };
  },

  // A face that is none: the same film is tried again with another photo, also after a reload.
  async again() {
    const page = await visit();
    await start(page, { name: "\u0635\u0648\u0631\u0629.mp4", mimeType: "video/mp4", buffer: readFileSync(files.clip) }, files.faceless);
    await stateIs(page, "Failed");
    const direction = await page.locator("#job_title").evaluate((title) => getComputedStyle(title).direction);
    await page.reload();
    await stateIs(page, "Failed");
    await page.waitForFunction(() => document.querySelector("#again").textContent === "Try again");
    const error = await textOf(page, "#job_error");
    await page.click("#again");
    const name = await textOf(page, "#target_name");
    await page.setInputFiles("#face", files.face);
    await page.click("#start");
    await stateIs(page, "Done");
    return { error, name, direction, button: await textOf(page, "#again"), complaints: page.complaints };
  },

  // A worker is lost with the only attempt, and nobody is there to take it up.
  async lost() {
    const page = await visit();
    await isReady(page);
    const id = "01a20000-0000-7000-8000-000000000001";
    const at = new Date().toISOString();
    const body = {
      id, state: "queued", fraction: 0, last_event: 1, results: [], warnings: [], error: null, cancel_requested: false, created_at: at,
      started_at: null, finished_at: null, upstream: null, queue_position: 0, expected_start_seconds: null,
      waiting: { ahead_own: 0, ahead_others: 0, retry_in_seconds: 0, upstreams: [{ name: "gpu", fits: null, reason: "it does not answer" }] },
    };
    const told = [
      ["dispatched", { job_id: id, at }, 2], ["started", { job_id: id, at }, 3],
      ["progress", { job_id: id, fraction: 0.4, message: "Swap face", eta_seconds: 90 }, null],
    ];
    const written = (events) => events.map(([name, data, number]) => `${number ? `id: ${number}\n` : ""}event: ${name}\ndata: ${JSON.stringify(data)}\n\n`).join("");
    let isLost = false;
    await page.route(`**/-/jobs/${id}`, (route) => route.fulfill({ json: { ...body, last_event: isLost ? 4 : 1 } }));
    await page.route(`**/-/jobs/${id}/events*`, (route) => route.fulfill({
      contentType: "text/event-stream",
      body: written(isLost ? [["requeued", { job_id: id, at, message: "The worker was lost." }, 4]] : told),
    }));
    await page.evaluate((named) => { location.hash = named; }, id);
    await page.waitForFunction(() => document.querySelector("#eta").textContent.includes("left"));
    isLost = true;
    await stateIs(page, "Waiting");
    await page.waitForFunction(() => document.querySelector("#step").textContent.includes("gpu"));
    return { eta: await textOf(page, "#eta"), step: await textOf(page, "#step") };
  },

  // The pool: what each upstream does.
  async pool() {
    const page = await visit();
    await page.waitForFunction(() => document.querySelectorAll("#pool > li").length === 2);
    return { upstreams: await page.locator("#pool > li").allInnerTexts(), whole: await page.content(), complaints: page.complaints };
  },

  // An upstream that still has prompts that were given up, as /health tells it, with markup in what it says.
  async stale() {
    const page = await visit();
    await page.route("**/health", async (route) => {
      const answer = await route.fetch();
      const body = await answer.json();
      Object.assign(body.upstreams[0], { name: "<b>gpu</b>", stale_prompts: 2, foreign_prompts: 1, reason: "removing <i>2</i> prompts" });
      await route.fulfill({ response: answer, json: body });
    });
    await page.waitForFunction(() => document.querySelector("#pool").textContent.includes("<i>2</i>"));
    const row = page.locator("#pool > li").first();
    return {
      lines: (await row.innerText()).split("\n").filter(Boolean), state: await row.locator(".dot").getAttribute("data-state"),
      markup: await row.locator("b, i").count(), complaints: page.complaints,
    };
  },

  // A template is broken and mended under the eyes of the visitor: the caller edits it when told to.
  async fault() {
    const page = await visit();
    await page.waitForFunction(() => document.querySelector("#pool_word").textContent === "Ready");
    console.error("break it");
    await page.waitForFunction(() => document.querySelectorAll("#pool_notes > li").length > 0);
    const notes = await page.locator("#pool_notes > li").allInnerTexts();
    const pill = await textOf(page, "#pool_word");
    console.error("mend it");
    await page.waitForFunction(() => document.querySelector("#pool_word").textContent === "Ready");
    return { notes, pill, left: await page.locator("#pool_notes > li").count(), complaints: page.complaints };
  },

  // What the browser keeps, within which bounds, and how it goes.
  async memory() {
    const page = await visit();
    const kept = () => page.evaluate(async () => {
      const promised = (request) => new Promise((resolve, reject) => {
        request.onsuccess = () => resolve(request.result);
        request.onerror = () => reject(request.error);
      });
      const database = await promised(indexedDB.open("comfygate", 1));
      const originals = await promised(database.transaction("originals").objectStore("originals").getAll());
      database.close();
      return { jobs: JSON.parse(localStorage.getItem("comfygate.jobs")).map(({ name }) => name), originals: originals.map(({ name }) => name) };
    });
    const goes = (count) => page.waitForFunction((wanted) => document.querySelectorAll("#jobs > li").length === wanted, count);
    const removed = await start(page, files.still, files.face);
    await shown(page, "#download");
    const purged = await start(page, files.still, files.face);
    await shown(page, "#download");
    const outcome = { both: await kept() };
    await page.locator(`#jobs li:has(a[href="#${removed}"])`).getByRole("button", { name: "Remove" }).click();
    await goes(1);
    outcome.afterRemoval = await kept();
    await fetch(`${given.gateway}/-/purge`, {
      method: "POST", headers: { Authorization: `Bearer ${given.token}`, "Content-Type": "application/json" },
      body: JSON.stringify({ job: purged }),
    });
    await page.reload();
    await goes(0);
    outcome.afterPurge = await kept();
    await page.evaluate(async () => {
      const memory = await import("/-/ui/memory.js");
      for (let number = 0; number < 35; number += 1) {
        const id = `01a20000-0000-7000-8000-${String(number).padStart(12, "0")}`;
        await memory.remember(id, `${number}`, new File(["x"], `${number}`));
      }
    });
    outcome.many = await kept();
    return outcome;
  },

  // Keys mode, below a path that a proxy takes away; the link breaks and comes back.
  async keys() {
    const proxy = await strippingProxy("/swap");
    const page = await visit(`${proxy.origin}/swap/`);
    await shown(page, "#key_form");
    const closed = { upstreams: await page.locator("#pool > li").count(), start: await page.isDisabled("#start") };
    const use = async (token) => {
      await page.fill("#token", token);
      await page.keyboard.press("Enter");
    };
    await use("wrong");
    await page.waitForFunction(() => document.querySelector("#token_error").textContent !== "");
    const wrong = await textOf(page, "#token_error");
    await use(given.token);
    await page.locator("#key_form").waitFor({ state: "hidden" });
    const id = await start(page, files.long, files.face);
    await reached(page, 5);
    proxy.cut();
    await shown(page, "#offline_banner");
    const lost = { pill: await textOf(page, "#pool_word"), complaints: page.complaints.splice(0) };
    proxy.mend();
    await page.locator("#offline_banner").waitFor({ state: "hidden" });
    await shown(page, "#download");
    lost.complaints.push(...page.complaints.splice(0));
    await page.reload();
    await shown(page, "#download");
    await page.waitForFunction(() => [...document.querySelectorAll(".pair video")].filter((video) => video.readyState >= 2).length === 2);
    // Jobs that it is to remember beside that one; with a key each request counts.
    await page.evaluate((ids) => {
      const others = ids.map((id) => ({ id, name: "other.png", at: Date.now() }));
      localStorage.setItem("comfygate.jobs", JSON.stringify([...JSON.parse(localStorage.getItem("comfygate.jobs")), ...others]));
    }, given.others);
    await page.reload();
    await page.waitForFunction(
      (count) => document.querySelectorAll('#jobs .badge[data-state="succeeded"]').length === count, given.others.length + 1,
    );
    const askedOneByOne = proxy.paths.filter((path) => given.others.some((other) => path.includes(other))).length;
    await page.goto(`${proxy.origin}/swap/-/ui/`);
    const outcome = {
      id, closed, wrong, lost, askedOneByOne, streams: await streams(page), complaints: page.complaints, elsewhere: page.elsewhere, final: page.url(),
      kept: await page.evaluate(() => [Object.values(localStorage).join(), Object.values(sessionStorage).join()]),
      eventRequests: proxy.paths.filter((path) => path.includes("/events")).length,
    };
    proxy.close();
    return outcome;
  },

  // Everything by keyboard, from choosing to downloading.
  async keyboard() {
    const page = await visit();
    await isReady(page);
    const order = [];
    const outlines = [];
    const tab = async () => {
      await page.keyboard.press("Tab");
      const [name, outline] = await page.evaluate(() => {
        const at = document.activeElement;
        const ring = at.type === "file" ? at.closest(".drop") : at;
        return [at.id || at.className || at.tagName, getComputedStyle(ring).outlineStyle];
      });
      order.push(name);
      outlines.push(outline);
      return name;
    };
    const tabTo = async (name) => {
      for (let step = 0; step < 15; step += 1) if (await tab() === name) return;
      throw new Error(`no way to ${name}: ${order}`);
    };
    const choose = async (key, file) => {
      const [chooser] = await Promise.all([page.waitForEvent("filechooser"), page.keyboard.press(key)]);
      await chooser.setFiles(file);
    };
    await tabTo("target");
    await choose("Enter", files.clip);
    await tabTo("face");
    await choose("Space", files.face);
    await tabTo("start");
    await page.keyboard.press("Enter");
    await shown(page, "#download");
    const focusedAtEnd = await page.evaluate(() => document.activeElement.id);
    await page.waitForFunction(() => document.querySelectorAll(".controls button").length === 2);
    await tabTo("button round");
    await page.keyboard.press("Space");
    await page.waitForFunction(() => [...document.querySelectorAll(".pair video")].every((video) => video.currentTime > 0));
    await tabTo("download");
    const [download] = await Promise.all([page.waitForEvent("download"), page.keyboard.press("Enter")]);
    await tabTo("again");
    await page.keyboard.press("Space");
    await shown(page, "#compose");
    return { order, outlines, focusedAtEnd, file: download.suggestedFilename(), complaints: page.complaints };
  },

  // What assistive technology is given, and whether everything fits, on a phone and a desktop, dark and light.
  async looks() {
    const outcome = {};
    for (const [name, viewport, colorScheme] of [["phone dark", PHONE, "dark"], ["phone light", PHONE, "light"], ["desktop dark", DESKTOP, "dark"], ["desktop light", DESKTOP, "light"]]) {
      const page = await visit(undefined, { viewport, colorScheme });
      await isReady(page);
      const empty = await page.locator("body").ariaSnapshot();
      const unnamed = await page.evaluate(() => [...document.querySelectorAll("button, a, input, progress")].filter(
        (each) => !(each.getAttribute("aria-label") || each.getAttribute("aria-labelledby") || each.textContent.trim() || each.labels?.length)).map((each) => each.outerHTML));
      await page.setInputFiles("#target", { name: `${"a very long name ".repeat(9)}.png`, mimeType: "image/png", buffer: readFileSync(files.still) });
      await page.setInputFiles("#face", files.face);
      const widths = [await page.evaluate(() => document.documentElement.scrollWidth)];
      if (colorScheme === "light") {
        await page.click("#start");
        await shown(page, "#download");
        await shown(page, ".slider");
        widths.push(await page.evaluate(() => document.documentElement.scrollWidth));
      }
      outcome[name] = {
        empty, unnamed, widths, width: viewport.width, complaints: page.complaints,
        sizeIsSeen: await page.locator("#target_size").evaluate((size) => size.scrollWidth <= size.clientWidth || getComputedStyle(size).display === "inline"),
        background: await page.evaluate(() => getComputedStyle(document.body).backgroundColor),
      };
      await page.context().close();
    }
    return outcome;
  },
};

// ------------------------------------------------------------------------------------------------------------ the proxy

// Takes a prefix away and adds no header: a gateway behind it can only be used by relative addresses.
async function strippingProxy(prefix) {
  let isCut = false;
  const paths = [];
  const sockets = new Set();
  const server = createServer((incoming, answer) => {
    if (isCut || !incoming.url.startsWith(`${prefix}/`)) {
      incoming.socket.destroy();
      return;
    }
    paths.push(incoming.url);
    const { hostname, port } = new URL(given.gateway);
    const onward = httpRequest(
      { hostname, port, method: incoming.method, path: incoming.url.slice(prefix.length), headers: incoming.headers },
      (reply) => {
        answer.writeHead(reply.statusCode, reply.headers);
        reply.pipe(answer);
      },
    );
    onward.on("error", () => answer.destroy());
    answer.on("close", () => onward.destroy());
    incoming.pipe(onward);
  });
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    socket.on("error", () => {});
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    origin: `http://127.0.0.1:${server.address().port}`,
    paths,
    cut: () => { isCut = true; sockets.forEach((socket) => socket.destroy()); },
    mend: () => { isCut = false; },
    close: () => { server.close(); sockets.forEach((socket) => socket.destroy()); },
  };
}

try {
  console.log(JSON.stringify(await scenarios[given.scenario]()));
} finally {
  await browser.close();
}
