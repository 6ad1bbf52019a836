// Elements and words. Whatever a client or server says reaches the page through textContent only.

export const byId = (id) => document.getElementById(id);

/** An element with properties and children; texts become text nodes, never markup. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Sets a text only when it changes, so that screen readers are not told the same twice. */
export function say(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/** Tells a screen reader, once and politely; nothing of it is seen. */
export const announce = (text) => say(byId("announcement"), text);

/** Bytes for people. */
export function sizeText(bytes) {
  const units = ["B", "kB", "MB", "GB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value.toLocaleString(undefined, { maximumFractionDigits: value < 10 && unit > 0 ? 1 : 0 })} ${units[unit]}`;
}

/** Seconds for people: "8 s", "2 min 05 s", "1 h 20 min". */
export function durationText(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 1) return "less than 1 s";
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min ${String(whole % 60).padStart(2, "0")} s`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

/** A place in a film: "0:07". */
export function clockText(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

/** A moment in the reader's own time zone and words; the date only when it is not today. */
export function timeText(moment) {
  const date = new Date(moment);
  const isToday = date.toDateString() === new Date().toDateString();
  const time = { hour: "numeric", minute: "2-digit" };
  return date.toLocaleString(undefined, isToday ? time : { ...time, day: "numeric", month: "short" });
}
