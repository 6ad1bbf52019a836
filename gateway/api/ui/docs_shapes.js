// A JSON Schema as a list of members: names, kinds, limits, and what each says.

import { element } from "./dom.js";

const LIMITS = {
  minimum: "at least", maximum: "at most", minLength: "characters, at least", maxLength: "characters, at most",
  minItems: "items, at least", maxItems: "items, at most", multipleOf: "a multiple of", default: "by default",
};
const DEEPEST = 6;

/** A text with `code` in it, as what an element takes. */
export function inline(text) {
  return text.split(/`([^`]+)`/).map((part, place) => (place % 2 ? element("code", {}, part) : part));
}

/** What kind of value a schema wants, in a few words. */
export function kindOf(schema, resolved) {
  if (schema.$ref) return kindOf(resolved(schema), resolved);
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(", ");
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices && !schema.type) return [...new Set(choices.map((choice) => kindOf(choice, resolved)))].join(" or ");
  if (schema.type === "array") return `list of ${kindOf(schema.items ?? {}, resolved)}`;
  const kinds = [schema.type ?? (schema.properties || schema.allOf ? "object" : "anything")].flat();
  return kinds.map((kind) => (kind === "string" && schema.format === "binary" ? "file" : kind)).join(" or ")
    + (schema.format && schema.format !== "binary" ? ` (${schema.format})` : "");
}

function limits(schema) {
  return Object.entries(LIMITS).filter(([name]) => name in schema).map(([name, words]) => `${words} ${JSON.stringify(schema[name])}`);
}

/** All parts that together or by choice make up a schema: its own, those of allOf, and those of anyOf and oneOf. */
function partsOf(schema, resolved) {
  const own = resolved(schema);
  return [own, ...(own.allOf ?? []).flatMap((part) => partsOf(part, resolved))];
}

function member(name, schema, isRequired, resolved, depth) {
  const own = resolved(schema);
  return element(
    "div",
    { className: "member" },
    element("code", {}, name),
    element("span", { className: "kind" }, ` ${[kindOf(schema, resolved), ...limits(own)].join(", ")} `),
    isRequired ? element("span", { className: "must" }, "required ") : null,
    element("span", { className: "says" }, ...inline(schema.description ?? own.description ?? "")),
    members(own.type === "array" ? own.items ?? {} : own, resolved, depth + 1),
  );
}

/** The members of an object, those of each choice below a line of its own; null where there are none to tell. */
export function members(schema, resolved, depth = 0) {
  if (!schema || depth > DEEPEST) return null;
  const parts = partsOf(schema, resolved);
  const required = new Set(parts.flatMap((part) => part.required ?? []));
  const rows = new Map();
  for (const part of parts) {
    for (const [name, inner] of Object.entries(part.properties ?? {})) {
      rows.set(name, member(name, inner, required.has(name), resolved, depth));
    }
  }
  const lists = parts.flatMap((part) => part.anyOf ?? part.oneOf ?? []).map((choice) => members(choice, resolved, depth + 1));
  const choices = lists.filter((list) => list !== null);
  if (!rows.size && !choices.length) return null;
  const told = choices.flatMap((list, place) => (choices.length > 1 ? [element("p", { className: "kind" }, place ? "or" : "either"), list] : [list]));
  return element("div", { className: "members" }, ...rows.values(), ...told);
}
