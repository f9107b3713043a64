// Numbers with units, times in the local zone with UTC on hover, names of states and causes.

import { h } from "./dom.js";

const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium", hourCycle: "h23" });
const day = new Intl.DateTimeFormat(undefined, {
  month: "short",
  day: "numeric",
  hour: "2-digit",
  minute: "2-digit",
  hourCycle: "h23",
});

/** `1,234`. */
export const count = (value) => whole.format(value);

/** `1 tunnel`, `2 tunnels`. */
export const plural = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;

/** `1.23 GB`: powers of 1000. */
export const bytes = (value) => scaled(value, ["B", "kB", "MB", "GB", "TB", "PB"]);

/** `1.23 Mbit/s`. */
export const rate = (value) => scaled(value, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"]);

/** `1.23 M packets`. */
export const packets = (value) => (value === 1 ? "1 packet" : `${scaled(value, ["", "k", "M", "G", "T"])} packets`);

/** `2 d 3 h`: the two largest units. */
export function duration(seconds) {
  let rest = Math.max(0, Math.round(seconds));
  const parts = [];
  for (const [unit, size] of [
    ["d", 86400],
    ["h", 3600],
    ["min", 60],
    ["s", 1],
  ]) {
    const many = Math.floor(rest / size);
    rest -= many * size;
    if (many > 0) parts.push(`${many} ${unit}`);
    else if (parts.length > 0) break;
    if (parts.length === 2) break;
  }
  return parts.join(" ") || "0 s";
}

/** `ESP` limits come in three units. */
export const amount = (unit, value) => ({ seconds: duration, bytes, packets })[unit](value);

/** A moment in the local zone; UTC where the pointer rests on it. */
export function time(ms, form = "moment") {
  const date = new Date(ms);
  const text = { moment, clock, day }[form].format(date);
  const utc = date.toISOString();
  return h("time", { datetime: utc, title: `${utc.replace("T", " ").replace(/\.\d+Z$/, "")} UTC` }, text);
}

/** `moment` as text alone. */
export const timeText = (ms) => moment.format(new Date(ms));

/** `day` as text alone. */
export const dayText = (ms) => day.format(new Date(ms));

/** `clock` as text alone. */
export const clockText = (ms) => clock.format(new Date(ms));

/** `3 min ago`. */
export const ago = (ms, now) => (now - ms < 1500 ? "just now" : `${duration((now - ms) / 1000)} ago`);

/** The mode really in use, in words. */
export function modeText(mode) {
  if (!mode) return "not installed";
  const kind = { packet: "packet offload", crypto: "crypto offload", no: "software" }[mode.offload] ?? mode.offload;
  return `${kind}${mode.simulated ? " (simulated)" : ""}`;
}

/** Where that mode is. */
export const placeText = (mode) => (mode ? [mode.device, mode.backend].filter(Boolean).join(" · ") : "");

/** `peer-deleted` → `peer deleted`. */
export const causeText = (kind) => (kind ?? "").replaceAll("-", " ");

/** Hexadecimal SPIs as they come, or a dash. */
export const spi = (text) => text ?? "–";

function scaled(value, units) {
  let [size, unit] = [Math.abs(value), 0];
  while (size >= 999.5 && unit < units.length - 1) {
    size /= 1000;
    unit += 1;
  }
  const sign = value < 0 ? "-" : "";
  return `${sign}${unit === 0 ? whole.format(Math.round(size)) : short.format(size)} ${units[unit]}`.trim();
}
