// Opens pages in headless Chromium and lets each do to a gateway what a stranger's page could do.
//
// usage: node foreign_pages.mjs < JSON, with {tools, chromium, gateway, job, download, face, target, pages}: the folder that
// holds node_modules/playwright-core, the browser, the gateway's base URL, the id of a job that waits, the path of a
// finished file, two pictures in base64, the pages to open. Prints one JSON object: page -> attempt -> what became of it.
//
// "evil.test" stands for 127.0.0.1 in this browser, so everything stays on loopback.

import { createServer } from "node:http";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { pathToFileURL } from "node:url";

const given = JSON.parse(await text(process.stdin));
const { chromium } = await import(pathToFileURL(join(given.tools, "node_modules/playwright-core/index.mjs")));
const gatewayPort = new URL(given.gateway).port;
const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", "--disable-quic", "--host-resolver-rules=MAP evil.test 127.0.0.1",
];

// Runs inside a page. Every attempt ends in a word, a status or a text; none may take longer than a few seconds.
async function attempts({ base, job, download, face, target }) {
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const form = () => {
    const data = new FormData();
    data.set("target_image", new Blob([bytes(target)], { type: "image/jpeg" }), "target.jpg");
    data.set("image", new Blob([bytes(face)], { type: "image/jpeg" }), "face.jpg");
    data.set("return_prompt_id_only", "true");
    return data;
  };
  const within = (promise) =>
    Promise.race([promise, new Promise((resolve) => setTimeout(() => resolve("nothing in 5 s"), 5000))]);
  const ask = (path, options) =>
    within(fetch(base + path, { credentials: "include", ...options }).then(
      (answer) => (answer.type === "opaque" ? "opaque" : answer.status), () => "refused"));
  const listen = () => within(new Promise((resolve) => {
    const source = new EventSource(`${base}/events/${job}`);
    source.addEventListener("queued", () => { source.close(); resolve("heard"); });
    source.onerror = () => { source.close(); resolve("refused"); };
  }));
  const talk = (first) => within(new Promise((resolve) => {
    const socket = new WebSocket(`${base.replace("http", "ws")}/face-swap-ws`);
    socket.onopen = () => first.forEach((frame) => socket.send(JSON.stringify(frame)));
    socket.onmessage = (message) => { resolve("heard"); socket.close(); };
    socket.onerror = () => resolve("refused");
  }));
  const load = (tag, path) => within(new Promise((resolve) => {
    const element = document.createElement(tag);
    element.onload = () => resolve("loaded");
    element.onerror = () => resolve("refused");
    element.src = base + path;
    document.body.append(element);
  }));
  // The page's referrer policy decides what a form says of where it comes from: the origin, or "null".
  const post = (policy) => within(new Promise((resolve) => {
    document.head.append(Object.assign(document.createElement("meta"), { name: "referrer", content: policy }));
    const frame = Object.assign(document.createElement("iframe"), { name: `frame-${policy}` });
    const sender = Object.assign(document.createElement("form"), {
      method: "post", action: `${base}/face-swap`, enctype: "multipart/form-data", target: frame.name,
    });
    for (const [name, data] of [["target_image", target], ["image", face]]) {
      const input = Object.assign(document.createElement("input"), { type: "file", name });
      const files = new DataTransfer();
      files.items.add(new File([bytes(data)], `${name}.jpg`, { type: "image/jpeg" }));
      input.files = files.files;
      sender.append(input);
    }
    sender.append(Object.assign(document.createElement("input"), { name: "return_prompt_id_only", value: "true" }));
    document.body.append(frame, sender);
    frame.onload = () => {
      try {
        const text = frame.contentDocument?.body?.textContent ?? "";
        if (frame.contentWindow.location.href !== "about:blank") resolve(text.includes("prompt_id") ? "answered" : "no answer to read");
      } catch {
        resolve("no answer to read");
      }
    };
    sender.submit();
  }));
  return {
    "start by fetch": await ask("/face-swap", { method: "POST", body: form() }),
    "start by fetch without cors": await ask("/face-swap", { method: "POST", body: form(), mode: "no-cors" }),
    "start by beacon": navigator.sendBeacon(`${base}/face-swap`, form()) ? "sent" : "refused",
    "start by form": await post("origin"),
    "start by form of origin null": await post("no-referrer"),
    "start by plain text": await ask("/face-swap", {
      method: "POST", mode: "no-cors", headers: { "Content-Type": "text/plain" },
      body: JSON.stringify({ target_image_url: "https://evil.test/a.png", image_url: "https://evil.test/b.png" }),
    }),
    "start by socket": await talk([{ target_image_url: "https://x.invalid/a.png", image_url: "https://x.invalid/b.png" }]),
    "read the status": await ask(`/status/${job}`, {}),
    "read the list": await ask("/-/jobs", {}),
    "read the health": await ask("/health", {}),
    "read the status without cors": await ask(`/status/${job}`, { mode: "no-cors" }),
    "read the list as a script": await load("script", "/-/jobs"),
    "read the events": await listen(),
    "read by socket": await talk([{ prompt_id: job }]),
    "read a file by fetch": await ask(download, {}),
    "show a file": await load("img", download),
    "show a file of a guessed name": await load("img", download.replace(/[0-9a-f]{32}/, "0".repeat(32))),
    "cancel by fetch": await ask(`/-/jobs/${job}`, { method: "DELETE" }),
    "cancel by socket": await talk([{ prompt_id: job }, { cancel: true }]),
  };
}

const attacker = createServer((_, answer) => answer.writeHead(200, { "Content-Type": "text/html" }).end("<body>hello"));
await new Promise((resolve) => attacker.listen(0, "127.0.0.1", resolve));
const port = attacker.address().port;
const browser = await chromium.launch({ executablePath: given.chromium, headless: true, args: FLAGS });
try {
  const context = await browser.newContext();
  const visit = async (address, base) => {
    const page = await context.newPage();
    const answer = await page.goto(address, { waitUntil: "domcontentloaded" });
    const outcome = { page: answer.status(), ...(await page.evaluate(attempts, { ...given, base })) };
    await page.close();
    return outcome;
  };
  const outcomes = {};
  for (const name of given.pages) {
    outcomes[name] = await {
      "another site": () => visit(`http://evil.test:${port}/`, given.gateway),
      "another port": () => visit(`http://127.0.0.1:${port}/`, given.gateway),
      // The page's own name is made to lead to the gateway: for the browser both are one origin.
      "a rebound name": () => visit(`http://evil.test:${gatewayPort}/`, `http://evil.test:${gatewayPort}`),
      "the gateway's own": () => visit(`${given.gateway}/`, given.gateway),
    }[name]();
  }
  console.log(JSON.stringify(outcomes));
} finally {
  await browser.close();
  attacker.close();
}
