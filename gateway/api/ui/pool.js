// The pool: how the gateway is, what each upstream does, what is wrong with templates.

import { byId, element, say } from "./dom.js";
import { nameOf } from "./jobs.js";

const WORDS = { healthy: "Ready", degraded: "Partly available", unavailable: "No worker available" };

/** Shows what GET /health said. */
export function show(health) {
  showPill(health.status, WORDS[health.status] ?? health.status);
  byId("preview_banner").hidden = health.engine !== "preview";
  showUpstreams(health);
  // The gateway's sentence may begin with the name that the note has as its title.
  const faults = (health.templates ?? []).map(({ name, problem }) => [`Template ${name}`, problem.replace(`template '${name}', `, "")]);
  showNotes([...faults, ...(health.warnings ?? []).map((warning) => [null, warning])]);
}

/** Shows that nobody answers. What was known is left standing, but not as if it were so now. */
export function showAway() {
  showPill("unavailable", "Not reachable");
}

export function showPill(state, word) {
  byId("pool_pill").dataset.state = state;
  say(byId("pool_word"), word);
}

function showUpstreams({ upstreams, jobs }) {
  const empty = byId("pool_empty");
  empty.hidden = Boolean(upstreams?.length);
  say(empty, upstreams ? "There are no workers." : "Shown with a key.");
  redraw(byId("pool"), upstreams ?? [], upstreamRow);
  const waiting = jobs?.queued ?? 0;
  say(byId("pool_load"), upstreams ? `${waiting || "No"} ${waiting === 1 ? "job" : "jobs"} waiting` : "");
}

const showNotes = (notes) => redraw(byId("pool_notes"), notes, ([title, text]) => (
  element("li", {}, title && element("strong", {}, title), title && element("br"), text)));

// Draws a list anew only when what it shows has changed: a screen reader may stand in it.
function redraw(list, values, rowOf) {
  const drawn = values.map(rowOf);
  const isSame = drawn.length === list.children.length && drawn.every((row, index) => row.isEqualNode(list.children[index]));
  if (!isSame) list.replaceChildren(...drawn);
}

function upstreamRow(upstream) {
  const [state, doing] = doingOf(upstream);
  const engine = [upstream.engine === "preview" ? "CPU preview" : "ComfyUI", upstream.version].filter(Boolean).join(" ");
  return element(
    "li", { className: "upstream" },
    element("span", { className: "dot", "aria-hidden": "true", "data-state": state }),
    element("div", {},
      element("strong", {}, upstream.name),
      element("p", {}, doing[0].toUpperCase() + doing.slice(1)),
      element("p", { className: "hint" }, engine)),
  );
}

function doingOf({ reachable, available, draining, job_id: id, foreign_prompts: foreign, stale_prompts: stale, reason }) {
  if (!reachable) return ["unavailable", reason || "Not reachable"];
  if (id) {
    const name = nameOf(id);
    return ["busy", name ? `Working on ${name}` : "Working on another job"];
  }
  if (draining) return ["degraded", "Draining: takes nothing new"];
  if (stale > 0 && reason) return ["degraded", reason]; // what nobody waits for is being removed: the gateway says so
  if (foreign > 0) return ["busy", `Busy with ${foreign} ${foreign === 1 ? "prompt" : "prompts"} of others`];
  if (!available) return ["degraded", reason || "Not available"];
  return reason ? ["degraded", reason] : ["healthy", "Idle"];
}
