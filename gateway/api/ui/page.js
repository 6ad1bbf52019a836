// The page: sends the form, shows the stream. What the server says is only ever shown as text.
// Every job's stream is read with fetch, because EventSource cannot send a token.

const byId = (id) => document.getElementById(id);
const RETRY_MILLISECONDS = 3000;

function authorization() {
  const token = byId("token").value.trim();
  return token ? { Authorization: `Bearer ${token}` } : {};
}

function say(message, isFailure = false) {
  byId("job").hidden = false;
  byId("message").textContent = message;
  byId("message").classList.toggle("failed", isFailure);
}

function show(event, data) {
  switch (event) {
    case "queued":
      say(data.message);
      break;
    case "executing":
      byId("note").textContent = data.message ?? "";
      break;
    case "progress":
      byId("bar").value = data.percentage;
      say(data.message);
      break;
    case "completed":
      say(data.message);
      byId("note").textContent = data.engine === "preview"
        ? "Made by the built-in CPU preview, not by a GPU model." : "";
      byId("download").href = data.download_url;
      byId("result").hidden = false;
      break;
    case "error":
      say(data.detail, true);
      break;
  }
}

// Reads Server-Sent Events from a response; resolves to true when the job has ended.
async function read(response, cursor) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return false;
    buffer += value;
    let end;
    while ((end = buffer.indexOf("\n\n")) >= 0) {
      const block = buffer.slice(0, end);
      buffer = buffer.slice(end + 2);
      const fields = {};
      for (const line of block.split("\n")) {
        const colon = line.indexOf(":");
        if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 1).replace(/^ /, "");
      }
      if (fields.id) cursor.id = fields.id;
      if (!fields.event) continue;
      show(fields.event, JSON.parse(fields.data));
      if (fields.event === "completed" || fields.event === "error") return true;
    }
  }
}

async function refusal(response) {
  if (response.status === 401) byId("key").hidden = false;
  const body = await response.json().catch(() => ({}));
  return body.detail ?? `The gateway answered ${response.status}.`;
}

async function watch(id) {
  const cursor = { id: "" };
  byId("cancel").hidden = false;
  byId("cancel").onclick = () => cancel(id);
  for (;;) {
    try {
      const headers = cursor.id ? { "Last-Event-ID": cursor.id, ...authorization() } : authorization();
      const response = await fetch(`/events/${id}`, { headers, cache: "no-store" });
      if (response.status === 204) break;
      if (response.status >= 400 && response.status < 500) {
        say(await refusal(response), true);
        break;
      }
      if (response.ok && await read(response, cursor)) break;
    } catch {
      byId("note").textContent = "The connection was lost; trying again.";
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_MILLISECONDS));
  }
  byId("cancel").hidden = true;
  byId("start").disabled = false;
}

async function cancel(id) {
  byId("cancel").hidden = true;
  const response = await fetch(`/-/jobs/${id}`, { method: "DELETE", headers: authorization() });
  if (!response.ok && response.status !== 409) say(await refusal(response), true);
}

async function submit(event) {
  event.preventDefault();
  const target = byId("target").files[0];
  const form = new FormData();
  const isStill = target.type.startsWith("image/") && target.type !== "image/gif";
  form.append(isStill ? "target_image" : "video", target);
  form.append("image", byId("face").files[0]);
  form.append("output_name", byId("output_name").value);
  form.append("return_prompt_id_only", "true");
  byId("start").disabled = true;
  byId("result").hidden = true;
  byId("bar").value = 0;
  byId("note").textContent = "";
  say("Uploading…");
  try {
    const response = await fetch("/face-swap", { method: "POST", body: form, headers: authorization() });
    if (!response.ok) throw new Error(await refusal(response));
    const { prompt_id: id } = await response.json();
    location.hash = id; // so that a reload finds the job again
    await watch(id);
  } catch (error) {
    say(error.message, true);
    byId("start").disabled = false;
  }
}

byId("swap").addEventListener("submit", submit);
if (/^#[0-9a-f-]{36}$/.test(location.hash)) watch(location.hash.slice(1));
