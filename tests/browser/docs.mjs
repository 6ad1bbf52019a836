// Opens the page of the API in headless Chromium and looks at what is on it.
//
// usage: node docs.mjs < JSON, with {tools, chromium, url, key}: the folder that holds node_modules/playwright-core, the
// browser, the address of the page, a key. Prints one JSON object: what was seen, in words and numbers.

import { join } from "node:path";
import { text } from "node:stream/consumers";
import { pathToFileURL } from "node:url";

const given = JSON.parse(await text(process.stdin));
const { chromium } = await import(pathToFileURL(join(given.tools, "node_modules/playwright-core/index.mjs")));
const browser = await chromium.launch({
  executablePath: given.chromium,
  args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
const asked = [];
const complaints = [];
page.on("request", (request) => asked.push(request.url()));
page.on("console", (message) => { if (["error", "warning"].includes(message.type())) complaints.push(message.text()); });
page.on("pageerror", (error) => complaints.push(String(error)));

const count = () => page.locator(".operation:not([hidden])").count();
const parameter = () => page.locator("#backserv_submit code", { hasText: /^scale_factor$/ }).count();
await page.goto(given.url);
await page.locator(".operation").first().waitFor();
const seen = {
  operations: await count(),
  headings: await page.locator("#docs_sections h2").allTextContents(),
  stranger: await parameter(),
};

await page.getByLabel("Find an endpoint").fill("/face-swap post");
seen.found = await page.locator(".operation:not([hidden]) .path").allTextContents();
await page.locator("#faceswap_submit > summary").click();
seen.line = await page.locator("#faceswap_submit pre").first().textContent();
seen.members = await page.locator("#faceswap_submit .member > code").allTextContents();
seen.statuses = await page.locator("#faceswap_submit .answer > summary strong").allTextContents();
await page.getByLabel("Find an endpoint").fill("");

await page.getByLabel("Key").fill(given.key);
await page.getByRole("button", { name: "Use key" }).click();
await page.locator("#backserv_submit code", { hasText: /^scale_factor$/ }).first().waitFor({ state: "attached" });
seen.known = await parameter();

await page.goto(`${given.url}#v1_create_swap`);
await page.reload();
await page.locator("#v1_create_swap[open]").waitFor();
await page.setViewportSize({ width: 390, height: 800 });
seen.overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
await browser.close();
process.stdout.write(JSON.stringify({ ...seen, asked, complaints }));
