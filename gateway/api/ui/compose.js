// Choosing the two files, by dropping or browsing, and sending them.

import { announce, byId, element, say, sizeText } from "./dom.js";
import * as gateway from "./gateway.js";
import * as memory from "./memory.js";

const FIELD_SLOTS = {
  video: "target", video_url: "target", target_image: "target", target_image_url: "target",
  image: "face", image_url: "face", output_name: "output_name", consent: "consent",
};
const PLACEHOLDERS = { target: "What to change", face: "Face to put in" };

const chosen = { target: null, face: null };
const addresses = { target: null, face: null };
let uploading = null; // AbortController
let isClosed = true; // no token that the gateway accepts, or no gateway

// ------------------------------------------------------------------------------------------------------ choosing files

// A GIF is sent as a video: it moves, and comes back as a GIF.
const isMoving = (file) => file.type.startsWith("video/") || file.type === "image/gif" || !file.type.startsWith("image/");

function choose(slot, file) {
  if (addresses[slot]) URL.revokeObjectURL(addresses[slot]);
  chosen[slot] = file;
  addresses[slot] = file && URL.createObjectURL(file);
  showError(slot, "");
  showError("form", "");
  byId(`${slot}_clear`).hidden = !file;
  byId(`${slot}_drop`).classList.toggle("filled", Boolean(file));
  say(byId(`${slot}_name`), file ? file.name : PLACEHOLDERS[slot]);
  say(byId(`${slot}_size`), file ? sizeText(file.size) : "");
  // What the browser takes it for is told at once; the gateway judges by the bytes, after the upload.
  if (file?.type && !byId(slot).accept.split(",").includes(file.type)) showError(slot, KIND_SENTENCES[slot]);
  const view = byId(`${slot}_view`);
  view.replaceChildren();
  if (!file) {
    byId(slot).value = "";
    return;
  }
  const preview = file.type.startsWith("image/")
    ? element("img", { src: addresses[slot], alt: "" })
    : element("video", { src: addresses[slot], muted: true, playsInline: true, preload: "auto", tabIndex: -1 });
  preview.addEventListener("error", () => view.replaceChildren(element("span", { className: "hint" }, "No preview")));
  view.append(preview);
}

// One file goes where it was dropped. Of several, the first moving one is what to change, and the first still has the face.
function take(files, slot) {
  const list = [...files];
  if (list.length < 2) {
    if (list[0]) choose(slot, list[0]);
    return;
  }
  const target = list.find(isMoving) ?? list[slot === "target" ? 0 : 1];
  const others = list.filter((file) => file !== target);
  choose("target", target);
  choose("face", others.find((file) => !isMoving(file)) ?? others[0]);
  if (list.length > 2) showError("form", `A swap takes two files: of these ${list.length} the others were left out.`);
}

function prepareSlot(slot) {
  byId(slot).addEventListener("change", (event) => take(event.target.files, slot));
  byId(`${slot}_clear`).addEventListener("click", () => {
    choose(slot, null);
    byId(slot).focus();
  });
}

function prepareDropping() {
  const zoneOf = (event) => event.target.closest?.(".slot");
  const mark = (zone) => document.querySelectorAll(".slot").forEach((each) => each.classList.toggle("over", each === zone));
  // A file dropped beside a zone must not make the browser leave the page.
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    mark(zoneOf(event));
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget ?? mark(null));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    mark(null);
    if (!event.dataTransfer.files.length || uploading) return;
    location.hash = ""; // the form may be hidden behind a job
    const isForTarget = !chosen.target || isMoving(event.dataTransfer.files[0]);
    take(event.dataTransfer.files, zoneOf(event)?.dataset.slot ?? (isForTarget ? "target" : "face"));
  });
}

// -------------------------------------------------------------------------------------------------------------- errors

function showError(slot, text) {
  say(byId(`${slot}_error`), text);
  const field = byId(slot);
  if (!field) return;
  if (text) field.setAttribute("aria-invalid", "true");
  else field.removeAttribute("aria-invalid");
}

// The gateway's sentences name the field of its API, which says nothing to people. Photos of a phone are often HEIC.
const KIND_SENTENCES = {
  target: "This cannot be used: choose an MP4, MOV or WebM video, a GIF, or a JPEG, PNG or WebP picture.",
  face: "This cannot be used: choose a JPEG, PNG or WebP picture.",
};
const EMPTY = "This file is empty.";

function showRefusal(error) {
  const slot = FIELD_SLOTS[error.field] ?? "form";
  const isOfOtherKind = error.code === "unsupported_media_type";
  const isTooLong = error.code === "too_large" && slot === "form";
  const said = isTooLong ? error.message.replace("The body is", "Both files together are") : error.message;
  showError(slot, (isOfOtherKind && KIND_SENTENCES[slot]) || said);
  byId(slot)?.focus();
}

function isComplete() {
  const missing = [
    ["face", "Choose a photo with the face to put in."],
    ["target", "Choose a video, GIF or picture to change."],
  ].filter(([slot]) => !chosen[slot]);
  if (!byId("consent_row").hidden && !byId("consent").checked) {
    missing.unshift(["consent", "Swaps are made here only with the consent of the people in the pictures."]);
  }
  for (const slot of ["face", "target"]) if (chosen[slot]?.size === 0) missing.push([slot, EMPTY]);
  for (const [slot, sentence] of missing) {
    showError(slot, sentence);
    byId(slot).focus();
  }
  return missing.length === 0;
}

// ------------------------------------------------------------------------------------------------------------- sending

function formData() {
  const form = new FormData();
  form.append("return_prompt_id_only", "true");
  form.append("output_name", byId("output_name").value);
  form.append(isMoving(chosen.target) ? "video" : "target_image", chosen.target);
  form.append("image", chosen.face);
  if (byId("consent").checked) form.append("consent", "true");
  return form;
}

async function submit(event, { onStarted, onUnauthorized }) {
  event.preventDefault();
  for (const slot of ["target", "face", "output_name", "consent", "form"]) showError(slot, "");
  if (uploading || !isComplete()) return;
  const file = chosen.target;
  setUploading(new AbortController());
  byId("upload_cancel").focus();
  announce("Uploading");
  try {
    const id = await gateway.submit(formData(), { onProgress: showUpload, signal: uploading.signal });
    await memory.remember(id, file.name, file);
    // The face stays: the next swap is often the same face in another film.
    choose("target", null);
    byId("output_name").value = "";
    byId("consent").checked = false; // of other pictures it is asked anew
    setUploading(null);
    onStarted(id);
  } catch (error) {
    setUploading(null);
    if (error.name === "AbortError") byId("start").focus();
    else showRefusal(error);
    if (error.status === 401) onUnauthorized();
  }
}

function setUploading(controller) {
  uploading = controller;
  byId("upload").hidden = !controller;
  byId("swap").inert = Boolean(controller);
  showStart();
  if (controller) showUpload(0);
}

function showUpload(fraction) {
  byId("upload_bar").value = fraction;
  say(byId("upload_word"), fraction < 1 ? `Uploading, ${Math.floor(fraction * 100)} %` : "Uploaded; the gateway is checking the files");
}

const showStart = () => { byId("start").disabled = isClosed || Boolean(uploading); };

/** Puts the file that a job was to change back into the form, where nothing else was chosen. */
export function offer(file) {
  if (file && !chosen.target && !uploading) choose("target", file);
}

/** Whether it has to be said that the people in the pictures agreed. */
export function setConsentRequired(value) {
  byId("consent_row").hidden = !value;
  if (!value) byId("consent").checked = false;
}

/** Whether a swap could be started at all. */
export function setClosed(value) {
  isClosed = value;
  showStart();
}

/** Wires the form. onStarted(id) is called with each job; onUnauthorized when a token is asked for. */
export function prepare(handlers) {
  prepareSlot("target");
  prepareSlot("face");
  prepareDropping();
  byId("swap").addEventListener("submit", (event) => submit(event, handlers));
  byId("upload_cancel").addEventListener("click", () => uploading?.abort());
  window.addEventListener("beforeunload", (event) => uploading && event.preventDefault());
}
