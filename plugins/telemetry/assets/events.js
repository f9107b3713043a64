// Events: live as they come, and those of the past below them.

import { get } from "./api.js";
import { h, put, say } from "./dom.js";
import { causeText, plural, time } from "./format.js";
import * as route from "./route.js";

/** Rows that are kept on the page. */
const ROWS = 500;
const PAGE = 100;
/** Events remembered while other views are shown. */
const REMEMBERED = 200;

const recent = [];
let isConnected = false;

/** Keeps an event for whoever opens the view later. */
export function remember(record) {
  recent.push(record);
  if (recent.length > REMEMBERED) recent.shift();
}

/** The stream is open, or it is not. */
export const connected = (state) => {
  isConnected = state;
};

const ike = (record) => record.ike ?? record.new ?? record.old;

/** The connection an event speaks of. */
export const connectionOf = (record) => record.connection ?? ike(record)?.connection ?? null;

/** The child an event speaks of, where it is one. */
export function childOf(record) {
  if (typeof record.child === "string") return record.child;
  return record.child?.name ?? (record.type.startsWith("child-sa.") ? record.new?.name : undefined) ?? null;
}

/** What is good news, bad news, or neither. */
function toneOf({ type }) {
  if (/failed|unreachable|lost|down|rejected|hard-expired|gap$/.test(type)) return "bad";
  if (/degraded/.test(type)) return "warn";
  return /established|installed|reachable|up$|repaired/.test(type) ? "good" : "";
}

/** One line for people. */
function sentence(record) {
  const about = [connectionOf(record), childOf(record)].filter(Boolean).join("/");
  const spis = record.new?.spi_in
    ? `SPIs ${hex(record.new.spi_in)} in, ${hex(record.new.spi_out)} out`
    : record.type === "child-sa.installed"
      ? `SPIs ${hex(record.child?.spi_in)} in, ${hex(record.child?.spi_out)} out`
      : "";
  const cause = record.cause ? `${causeText(record.cause.kind)}: ${record.cause.text}` : "";
  const peer = record.ike?.remote ? `with ${record.ike.remote}` : "";
  const device = record.name ?? "";
  return [about, cause || spis || device || peer].filter(Boolean).join(" · ");
}

const hex = (spi) => (typeof spi === "number" ? spi.toString(16).padStart(8, "0") : (spi ?? "–"));

/** A list of events, the newest first, that never grows beyond `most`. */
export function feed(most) {
  const element = h("ul", { class: "events" });
  const seen = new Set();
  const fresh = (record) => !seen.has(record.ulid) && seen.add(record.ulid);
  const trim = () => {
    while (element.childElementCount > most) {
      seen.delete(element.lastElementChild.dataset.ulid);
      element.lastElementChild.remove();
    }
  };
  return {
    element,
    size: () => element.childElementCount,
    newer(record) {
      if (fresh(record)) element.prepend(row(record));
      trim();
    },
    older(records) {
      element.append(...records.filter(fresh).map(row));
      trim();
    },
    clear() {
      seen.clear();
      put(element);
    },
  };
}

/** One line; opened, it shows the whole record. */
function row(record) {
  const whole = h("pre", { tabindex: 0 });
  const line = h(
    "summary",
    {},
    time(Date.parse(record.time)),
    h("span", { class: `type ${toneOf(record)}` }, record.type),
    h("span", { class: "text" }, sentence(record)),
  );
  const details = h("details", {}, line, whole);
  // Hundreds of records in full would be slow: only those that are looked at.
  details.addEventListener("toggle", () => say(whole, JSON.stringify(record, null, 2)), { once: true });
  return h("li", { "data-ulid": record.ulid }, details);
}

export function open(app, { query }) {
  const filter = {
    type: query.get("type") ?? "",
    connection: query.get("connection") ?? "",
    child: query.get("child") ?? "",
  };
  const list = feed(ROWS);
  const held = [];
  let paused = false;
  let next;
  /** How often the past was asked for: only the last answer counts. */
  let asked = 0;
  const live = h("span", { class: "live", role: "status" });
  const note = h("p", { class: "empty", hidden: true });
  const pause = h("button", { type: "button", "aria-pressed": "false" }, "Pause");
  const more = h("button", { type: "button", class: "slim" }, "Older events");

  const fits = (record) => {
    const named = filter.type.endsWith("*")
      ? record.type.startsWith(filter.type.slice(0, -1))
      : record.type.includes(filter.type);
    return (
      named &&
      (!filter.connection || connectionOf(record) === filter.connection) &&
      (!filter.child || childOf(record) === filter.child)
    );
  };
  const tell = () => {
    const waiting = paused && held.length ? `; ${plural(held.length, "new event")} held` : "";
    say(live, `${isConnected ? (paused ? "paused" : "live") : "not connected"}${waiting}`);
  };
  const take = (record) => {
    if (!fits(record)) return;
    note.hidden = true;
    list.newer(record);
  };

  async function older() {
    const number = (asked += 1);
    more.disabled = true;
    try {
      const { connection, child } = filter;
      // Whole names and their beginnings; parts of names are looked for here.
      const event = /^[a-z-]+\.([a-z-]+|[a-z-]*\*)$/.test(filter.type) ? filter.type : undefined;
      const answer = await get("/api/events", { connection, child, event, before: next, limit: PAGE });
      if (number !== asked) return;
      next = answer.next;
      list.older(answer.events.filter(fits));
      more.hidden = !next || list.size() >= ROWS;
      say(note, "No event fits.");
      note.hidden = list.size() > 0;
    } catch (error) {
      if (number !== asked) return;
      say(note, `The past cannot be shown: ${error.message}`);
      note.hidden = false;
      more.hidden = true;
    }
    more.disabled = false;
  }

  function begin() {
    route.remember("events", [], filter);
    list.clear();
    next = undefined;
    recent.forEach(take);
    older();
  }

  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    if (!paused) held.splice(0).forEach(take);
    tell();
  });
  more.addEventListener("click", older);
  const field = (name, label, hint) =>
    h(
      "label",
      {},
      label,
      h("input", {
        type: "search",
        name,
        value: filter[name],
        placeholder: hint,
        onchange: ({ target }) => {
          filter[name] = target.value.trim();
          begin();
        },
      }),
    );
  const element = h(
    "div",
    {},
    h("div", { class: "head" }, h("h1", { tabindex: "-1" }, "Events"), h("span", { class: "spread" }, live)),
    h(
      "div",
      { class: "tools", role: "search" },
      field("type", "Type", "child-sa.*"),
      field("connection", "Connection", "any"),
      field("child", "Child", "any"),
      h("span", { class: "spread" }, pause),
    ),
    h("div", { class: "table" }, list.element, note),
    h("p", { class: "pager" }, more),
  );
  begin();
  tell();
  return {
    title: "Events",
    element,
    event(record) {
      if (!paused) take(record);
      else if (fits(record) && held.push(record) > ROWS) held.shift();
      tell();
    },
    missed(many) {
      // How many is not known where a browser comes back after long.
      const which = many === null ? "Some events" : plural(many, "event");
      say(note, `${which} came faster than the page could follow; the history has what is not shown.`);
      note.hidden = false;
    },
    live: tell,
  };
}
