// The API for people: openapi.json as headings, tables and examples. Whatever it says is shown as text, never as markup.

import { byId, element, say } from "./dom.js";
import { inline, members } from "./docs_shapes.js";

const METHODS = ["get", "post", "put", "patch", "delete", "head"];
const KEYS = { bearer: "a key as Bearer token", apiKey: "a key in X-API-Key", ticket: "a ticket in the query", signature: "a signed link" };
const SHOWN_STATUS_LIMIT = 400;

let told = null;

/** What a reference leads to; anything else is itself. */
function resolved(value) {
  if (!value || !value.$ref) return value;
  return value.$ref.slice(2).split("/").reduce((at, name) => at[name.replaceAll("~1", "/").replaceAll("~0", "~")], told);
}

/** A text with `code` in it, line by line; a line that begins with "* " is an item. */
function prose(text) {
  const made = [];
  for (const block of text.split(/\n{2,}/)) {
    const items = block.split("\n").filter((line) => line.startsWith("* "));
    if (items.length) {
      made.push(element("ul", { className: "told" }, ...items.map((item) => element("li", {}, ...inline(item.slice(2))))));
    } else if (block.trim()) {
      made.push(element("p", {}, ...inline(block)));
    }
  }
  return made;
}

/** Examples by name, each behind its name; one alone is open. */
function examples(found) {
  const named = Object.entries(found ?? {});
  return named.map(([name, example]) => {
    const text = typeof example.value === "string" ? example.value : JSON.stringify(example.value, null, 2);
    return element("details", {}, element("summary", {}, `Example: ${name}`), element("pre", { tabIndex: 0 }, text));
  });
}

function contents(content) {
  return Object.entries(content ?? {}).flatMap(([type, media]) => [
    element("p", {}, element("code", {}, type)),
    members(media.schema, resolved),
    ...Object.entries(media["x-events"] ?? {}).map(([name, schema]) =>
      element("details", {}, element("summary", {}, "Event ", element("code", {}, name)), members(schema, resolved)),
    ),
    ...examples(media.examples),
  ]);
}

function parameters(found) {
  const rows = found.map(resolved).map((parameter) =>
    element(
      "div",
      { className: "member" },
      element("code", {}, parameter.name),
      element("span", { className: "kind" }, ` in ${parameter.in} `),
      parameter.required ? element("span", { className: "must" }, "required ") : null,
      element("span", { className: "says" }, ...inline(parameter.description ?? "")),
      members(parameter.schema, resolved),
    ),
  );
  return rows.length ? [element("h3", {}, "Parameters"), element("div", { className: "members" }, ...rows)] : [];
}

function answer(status, response) {
  const headers = Object.entries(response.headers ?? {}).map(([name, header]) =>
    element("li", {}, element("code", {}, name), ` ${resolved(header).description ?? ""}`),
  );
  const [first] = response.description.split("\n");
  return element(
    "details",
    { className: "answer", open: Number(status) < SHOWN_STATUS_LIMIT },
    element("summary", {}, element("strong", {}, status), ` ${first}`),
    ...prose(response.description.slice(first.length)),
    ...contents(response.content),
    headers.length ? element("details", {}, element("summary", {}, "Headers"), element("ul", { className: "told" }, ...headers)) : null,
  );
}

/** A line for a shell that asks this endpoint, with the first example of what it is sent. */
function curl(method, path, operation) {
  const base = new URL(told.servers[0].url, document.baseURI).href.replace(/\/$/, "");
  const parts = ["curl"];
  if (method !== "get") parts.push("-X", method.toUpperCase());
  if (operation.security.length && !operation.security.some((one) => !Object.keys(one).length)) {
    parts.push("-H", "'Authorization: Bearer KEY'");
  }
  const [type, media] = Object.entries(operation.requestBody?.content ?? {})[0] ?? [];
  const example = Object.values(media?.examples ?? {})[0]?.value;
  if (type === "multipart/form-data" && example) {
    for (const [name, value] of Object.entries(example)) {
      parts.push("-F", name in (media.encoding ?? {}) ? `'${name}=@FILE'` : `'${name}=${value}'`);
    }
  } else if (type && example !== undefined) {
    parts.push("-H", `'Content-Type: ${type}'`, "-d", `'${JSON.stringify(example).replaceAll("'", "'\\''")}'`);
  }
  return [...parts, `'${base}${path}'`].join(" ");
}

function operationOf(path, method, operation) {
  const needs = operation.security.map((one) => Object.keys(one).map((name) => KEYS[name] ?? name).join(" and ") || "nothing");
  const body = operation.requestBody;
  const isSocket = Boolean(operation.responses["101"]);
  return element(
    "details",
    { className: "operation", id: operation.operationId },
    element(
      "summary",
      {},
      element("span", { className: "method", "data-method": method }, isSocket ? "WS" : method.toUpperCase()),
      element(
        "span",
        {},
        element("code", { className: "path" }, path),
        " ",
        element("span", { className: "says" }, operation.summary),
      ),
    ),
    element(
      "div",
      { className: "inside" },
      ...(operation.description === operation.summary ? [] : prose(operation.description)),
      element("p", { className: "hint" }, `Needs ${needs.join(", or ")}.`),
      ...(isSocket ? [] : [element("pre", { tabIndex: 0 }, curl(method, path, operation))]),
      ...parameters(operation.parameters ?? []),
      ...(body ? [element("h3", {}, body.required ? "Body" : "Body, not required"), ...prose(body.description), ...contents(body.content)] : []),
      element("h3", {}, "Answers"),
      ...Object.entries(operation.responses).map(([status, response]) => answer(status, resolved(response))),
    ),
  );
}

function operationsOf(tag) {
  return Object.entries(told.paths).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method]?.tags.includes(tag)).map((method) => operationOf(path, method, item[method])),
  );
}

function show() {
  say(byId("docs_title"), `${told.info.title} ${told.info.version}`);
  byId("docs_lead").replaceChildren(...prose(told.info.description));
  const sections = told.tags.map((tag) => ({ tag, operations: operationsOf(tag.name) })).filter(({ operations }) => operations.length);
  byId("docs_sections").replaceChildren(
    ...sections.map(({ tag, operations }) =>
      element(
        "section",
        { className: "card" },
        element("h2", { id: `tag-${tag.name}` }, tag.name),
        element("div", { className: "says" }, ...prose(tag.description ?? "")),
        ...operations,
      ),
    ),
  );
  byId("docs_index").replaceChildren(
    ...sections.map(({ tag, operations }) =>
      element("li", {}, element("a", { href: `#tag-${tag.name}` }, tag.name), ` (${operations.length})`),
    ),
  );
  find();
  openNamed();
}

/** Shows the endpoints whose line holds every word that was typed. */
function find() {
  const words = byId("docs_search").value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const section of byId("docs_sections").children) {
    let isEmpty = true;
    for (const operation of section.querySelectorAll(".operation")) {
      const line = operation.firstElementChild.textContent.toLowerCase();
      operation.hidden = !words.every((word) => line.includes(word));
      if (operation.hidden) continue;
      isEmpty = false;
      count += 1;
    }
    section.hidden = isEmpty;
  }
  say(byId("docs_count"), `${count} endpoints`);
}

/** Opens what the address names, so that a link can lead to one endpoint. */
function openNamed() {
  const named = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!named) return;
  named.open = true;
  named.scrollIntoView();
}

async function load(key) {
  const problem = byId("docs_problem");
  try {
    const response = await fetch("openapi.json", key ? { headers: { Authorization: `Bearer ${key}` } } : {});
    if (!response.ok) throw new Error(`The description could not be had (${response.status}).`);
    told = await response.json();
    problem.hidden = true;
    show();
  } catch (error) {
    say(problem, error instanceof TypeError ? "The gateway does not answer." : error.message);
    problem.hidden = false;
  }
}

byId("docs_search").addEventListener("input", find);
byId("docs_key_form").addEventListener("submit", (event) => {
  event.preventDefault();
  load(byId("docs_key").value.trim());
});
addEventListener("hashchange", openNamed);
load("");
