// Before and after: two players that run together, a slider over two stills, two GIFs side by side.

import { clockText, element } from "./dom.js";

//: Two players closer than this look simultaneous; seeking more eagerly would make them stutter.
const DRIFT_SECONDS = 0.08;
const GONE = "The result is no longer kept on the gateway.";

/**
 * The comparison as an element. before: a File or null; after: {url, type, isKept} or null, isKept telling whether the
 * result is still there; isOver: whether there is nothing more to wait for. Returns {element, close}; close gives the
 * memory back.
 */
export function comparison(before, after, isOver) {
  const address = before && URL.createObjectURL(before);
  const beforeType = before?.type || "";
  const close = () => {
    made.querySelectorAll("video").forEach((video) => { video.pause(); video.removeAttribute("src"); video.load(); });
    if (address) URL.revokeObjectURL(address);
  };
  const made = element("div", { className: "compare" });
  if (after && address && isStill(after.type) && isStill(beforeType)) {
    made.append(slider(address, after));
  } else {
    const left = address ? media(address, beforeType, "Before") : null;
    const right = after ? media(after.url, after.type, "After") : null;
    if (left || right) made.append(pair(left, right, { after, isOver }));
    if (left?.tagName === "IMG" && right?.tagName === "IMG") startTogether(left, right);
    const films = [left, right].filter((each) => each instanceof HTMLVideoElement);
    if (films.length > 0 && after) made.append(controls(films));
  }
  return { element: made, close };
}

const isStill = (type) => type.startsWith("image/") && type !== "image/gif";

function media(address, type, label) {
  if (type.startsWith("image/")) return element("img", { src: address, alt: label });
  return element("video", {
    src: address, muted: true, playsInline: true, preload: "auto", loop: false, "aria-label": label, tabIndex: -1,
  });
}

function pair(left, right, { after, isOver }) {
  const sayWhy = async () => (await after.isKept() ? "This browser cannot show this format. Download the file to see it." : GONE);
  return element(
    "div", { className: "pair" },
    figure(left, "Before", "The original is not kept in this browser.", async () => "This browser cannot show this format."),
    figure(right, "After", isOver ? "There is no result." : "The result appears here.", sayWhy),
  );
}

const hint = (text) => element("p", { className: "hint" }, text);

function figure(content, label, missing, sayWhy) {
  const frame = element("div", { className: "frame" }, content ?? hint(missing));
  content?.addEventListener("error", async () => frame.replaceChildren(hint(await sayWhy())), { once: true });
  return element("figure", {}, frame, element("figcaption", {}, label));
}

// A GIF runs from when it is first drawn: both are shown once both are there.
async function startTogether(left, right) {
  const pictures = [left, right];
  pictures.forEach((picture) => { picture.hidden = true; });
  await Promise.allSettled(pictures.map((picture) => picture.decode()));
  pictures.forEach((picture) => { picture.hidden = false; });
}

// -------------------------------------------------------------------------------------------------------------- stills

function slider(before, { url, isKept }) {
  const range = element("input", {
    type: "range", min: 0, max: 100, value: 50, step: 1, "aria-label": "How much of the picture shows the original",
  });
  const result = element("img", { src: url, alt: "After" });
  const box = element(
    "div", { className: "slider" },
    result,
    element("img", { src: before, alt: "Before", className: "over" }),
    element("span", { className: "handle", "aria-hidden": "true" }),
    element("span", { className: "tag left", "aria-hidden": "true" }, "Before"),
    element("span", { className: "tag right", "aria-hidden": "true" }, "After"),
    range,
  );
  const place = () => {
    box.style.setProperty("--split", `${range.value}%`);
    range.setAttribute("aria-valuetext", `${range.value} % before, ${100 - range.value} % after`);
  };
  result.addEventListener("error", async () => {
    box.replaceWith(hint(await isKept() ? "This browser cannot show this format. Download the file to see it." : GONE));
  }, { once: true });
  range.addEventListener("input", place);
  place();
  return box;
}

// --------------------------------------------------------------------------------------------------------------- films

// The last film leads, the others follow it: the result is what has the sound.
function controls(films) {
  const leader = films.at(-1);
  const followers = films.slice(0, -1);
  const play = element("button", { type: "button", className: "button round", "aria-label": "Play" }, glyph());
  const mute = element("button", { type: "button", className: "quiet" }, "Unmute");
  const seek = element("input", { type: "range", min: 0, max: 0, step: 0.01, value: 0, "aria-label": "Position" });
  const place = element("span", { className: "hint clock" }, "0:00 / 0:00");

  const show = () => {
    const length = Number.isFinite(leader.duration) ? leader.duration : 0;
    seek.max = length;
    seek.value = leader.currentTime;
    const text = `${clockText(leader.currentTime)} / ${clockText(length)}`;
    if (place.textContent !== text) place.textContent = text;
    seek.setAttribute("aria-valuetext", text);
  };
  const align = (tolerance) => {
    for (const film of followers) {
      const there = Math.min(leader.currentTime, film.duration || 0);
      if (Math.abs(film.currentTime - there) > tolerance) film.currentTime = there;
    }
  };
  const tick = () => {
    align(DRIFT_SECONDS);
    show();
    if (!leader.paused) requestAnimationFrame(tick);
  };
  const start = async () => {
    if (leader.ended) leader.currentTime = 0;
    align(0);
    await Promise.allSettled(films.map((film) => film.play()));
  };
  play.addEventListener("click", () => (leader.paused ? start() : leader.pause()));
  leader.addEventListener("play", () => {
    play.setAttribute("aria-label", "Pause");
    play.classList.add("playing");
    requestAnimationFrame(tick);
  });
  leader.addEventListener("pause", () => {
    play.setAttribute("aria-label", "Play");
    play.classList.remove("playing");
    followers.forEach((film) => film.pause());
    align(0);
    show();
  });
  // While the result waits for bytes, the original must not run ahead.
  leader.addEventListener("waiting", () => followers.forEach((film) => film.pause()));
  leader.addEventListener("playing", () => followers.forEach((film) => film.play().catch(() => {})));
  leader.addEventListener("loadedmetadata", show);
  leader.addEventListener("seeked", show);
  seek.addEventListener("input", () => {
    leader.currentTime = Number(seek.value);
    align(0);
  });
  mute.addEventListener("click", () => {
    leader.muted = !leader.muted;
    mute.textContent = leader.muted ? "Unmute" : "Mute";
  });
  films.forEach((film) => film.addEventListener("click", () => play.click()));
  return element("div", { className: "controls", role: "group", "aria-label": "Player of both videos" }, play, seek, place, mute);
}

// The triangle and the two bars are drawn by the style sheet.
const glyph = () => element("span", { className: "glyph", "aria-hidden": "true" });
