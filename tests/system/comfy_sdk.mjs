// What test_comfy_sdks.py has the official client for Node do; input on stdin, findings on stdout, both JSON.

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const given = JSON.parse(readFileSync(0, "utf8"));
const entry = pathToFileURL(`${given.tools}/node_modules/@comfyorg/sdk/dist/index.js`);
const { Comfy } = await import(entry.href);
const client = new Comfy();
const told = {};

// Upload, run, stream, download.
const workflow = client.workflows.fromJson(structuredClone(given.invert));
workflow.setInput("1", "image", client.assets.fromFile(given.image));
const job = await client.submit(workflow);
told.statuses = [];
told.told = [];
for await (const event of job.events()) {
  if (event.kind === "statusChange") told.statuses.push(event.status);
  if (event.kind === "outputReady") told.told.push([event.output.nodeId, event.output.type, event.output.contentType]);
}
await job.result();
told.status = job.status;
told.outputs = job.outputs.map((output) => [output.nodeId, output.type, output.contentType]);
await job.outputs[0].toFile(given.out);
told.part = [...(await job.outputs[0].toBytes({ range: [0, 7] }))];
told.format = (await (await client.jobs.get(job.id)).getWorkflow()).format;

// Refusals, by the classes that the client makes of them.
const refusal = async (graph, options) => {
  try {
    await client.submit(client.workflows.fromJson(graph), options);
    return "none";
  } catch (error) {
    return error.constructor.name;
  }
};
const broken = structuredClone(given.invert);
broken["9"] = { class_type: "NoSuchNode", inputs: {} };
const missing = structuredClone(given.invert);
missing["1"].inputs.image = "nobody-sent-this.png";
const key = crypto.randomUUID();
await (await client.submit(workflow, { idempotencyKey: key })).result();
told.refused = [await refusal(broken), await refusal(missing)];
told.refused.push(await client.submit(workflow, { idempotencyKey: key }).then(() => "none", (error) => error.constructor.name));

// Cancel what runs.
const long = client.workflows.fromJson(given.swap);
const nodeOf = (kind) => Object.keys(given.swap).find((id) => given.swap[id].class_type === kind);
long.setInput(nodeOf("VHS_LoadVideo"), "video", client.assets.fromFile(given.video));
long.setInput(nodeOf("LoadImage"), "image", client.assets.fromFile(given.face));
const running = await client.submit(long);
let last = "";
for await (const event of running.events()) {
  if (event.kind !== "statusChange") continue;
  last = event.status;
  if (last === "running") await running.cancel();
}
await running.cancel();
told.canceled = [last, running.status];

console.log(JSON.stringify(told));
