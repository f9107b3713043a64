// The generations of a child as bars over time: each can be pointed at, reached with the arrow keys, and read in a table.

import { get } from "./api.js";
import { h, put, s, say } from "./dom.js";
import {
  bytes,
  causeText,
  clockText,
  count,
  dayText,
  duration,
  modeText,
  packets,
  plural,
  spi,
  time,
  timeText,
} from "./format.js";

const RANGES = {
  "5m": [300, "5 min"],
  "1h": [3600, "1 h"],
  "6h": [21600, "6 h"],
  "1d": [86400, "1 day"],
  "7d": [604800, "7 days"],
  "90d": [7776000, "90 days"],
};
const LIMIT = 1000;
const SOON_MS = 300;
/** Clocks that differ by less are taken for one. */
const SKEW_MS = 10_000;
const [WIDTH, TOP, HEIGHT] = [1000, 8, 52];
/** A bar is never too thin to be pointed at. */
const LEAST = 2.5;

/** What a bar looks like. */
const KINDS = { up: "up now", rekeyed: "replaced by a rekey", ended: "ended on purpose", failed: "ended in trouble" };
const ON_PURPOSE = ["operator", "reload", "shutdown", "inactive", "replaced", "collision-lost", "peer-deleted"];

/** The timeline of one child. */
export function timeline({ connection, child, range, remember }) {
  let chosen = RANGES[range] ? range : "1h";
  let timer;
  /** How often the history was asked: only the last answer counts. */
  let asked = 0;
  /** How far the gateway's clock is ahead of this one: the past is dated by that. */
  let ahead = 0;
  let chosenBar = 0;
  /** Numbers of the CHILD SAs that are shown to be up; nothing while the history does not answer. */
  let standing;
  const summary = h("p", { class: "muted small" });
  const strip = s("svg", {
    class: "strip",
    viewBox: `0 0 ${WIDTH} 74`,
    preserveAspectRatio: "none",
    role: "group",
    "aria-label": `Generations of ${connection}/${child}; arrow keys go from one to the next`,
  });
  const ticks = h("div", { class: "ticks", "aria-hidden": "true" });
  const tip = h("div", { class: "tip", role: "status" }, "Point at a bar, or go through them with the arrow keys.");
  const body = h("tbody", { role: "rowgroup" });
  const buttons = h("div", { class: "ranges spread", role: "group", "aria-label": "Range" });
  const element = h(
    "section",
    { class: "card" },
    h("div", { class: "head" }, h("h2", {}, "Rekey timeline"), summary, buttons),
    h("div", { class: "timeline" }, strip, ticks),
    tip,
    legend(),
    h("details", {}, h("summary", {}, "The same as a table"), h("div", { class: "wide" }, table(body))),
  );

  const choose = (name) => {
    chosen = name;
    remember(name);
    for (const button of buttons.children) button.setAttribute("aria-pressed", String(button.dataset.range === name));
    load();
  };
  const offer = ([name, [, text]]) =>
    h(
      "button",
      {
        type: "button",
        class: "slim",
        "data-range": name,
        "aria-pressed": String(name === chosen),
        onclick: () => choose(name),
      },
      text,
    );
  put(buttons, Object.entries(RANGES).map(offer));
  strip.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    const bars = [...strip.querySelectorAll(".bar")];
    if (!step || bars.length === 0) return;
    event.preventDefault();
    chosenBar = Math.min(bars.length - 1, Math.max(0, chosenBar + step));
    bars.forEach((bar, at) => bar.setAttribute("tabindex", at === chosenBar ? 0 : -1));
    bars[chosenBar].focus();
  });

  async function load() {
    const number = (asked += 1);
    const until = Date.now() + ahead;
    const since = until - RANGES[chosen][0] * 1000;
    try {
      const answer = await get("/api/timeline", { connection, child, since, limit: LIMIT, totals: false });
      // Another range has been chosen meanwhile.
      if (number !== asked) return;
      const now = answer.time_ms - Date.now();
      if (Math.abs(now - ahead) > SKEW_MS) {
        ahead = now;
        await load();
        return;
      }
      show([...answer.generations].reverse(), since, Math.max(until, answer.time_ms), answer.more);
    } catch (error) {
      if (number !== asked) return;
      put(strip);
      standing = undefined;
      say(summary, `The history does not answer: ${error.message}`);
    }
  }

  function show(generations, since, until, more) {
    // While one goes through the bars with the keyboard, the same generation stays chosen.
    const held = strip.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
    const x = (ms) => ((Math.min(until, Math.max(since, ms)) - since) / (until - since)) * WIDTH;
    standing = new Set(generations.filter((one) => !one.removed_ms).map((one) => one.unique_id));
    const bars = generations.map((one) => bar(one, x, until, tip));
    chosenBar = Math.max(0, bars.length - 1);
    bars.at(-1)?.setAttribute("tabindex", 0);
    put(strip, s("rect", { class: "lane", x: 0, y: TOP, width: WIDTH, height: HEIGHT }), bars);
    const again = bars.findIndex((one) => held && one.dataset.key === held);
    if (again >= 0) {
      chosenBar = again;
      bars[again].focus();
    }
    const text = RANGES[chosen][0] > 86400 ? dayText : RANGES[chosen][0] > 3600 ? dayText : clockText;
    put(
      ticks,
      [0, 1, 2, 3, 4].map((part) => place(h("span", {}, text(since + ((until - since) * part) / 4)), part / 4)),
    );
    say(
      summary,
      generations.length === 0
        ? "no generation in this time"
        : `${plural(generations.length, "generation")}${more ? ", the newest; there are more" : ""}`,
    );
    put(
      body,
      [...generations].reverse().map((one) => row(one, until)),
    );
  }

  load();
  return {
    element,
    /** The history has not caught up with what is up now. */
    isBehind: (uniqueId) => standing && (uniqueId === null ? standing.size > 0 : !standing.has(uniqueId)),
    refresh() {
      timer ??= setTimeout(() => {
        timer = undefined;
        load();
      }, SOON_MS);
    },
    close: () => clearTimeout(timer),
  };
}

const place = (element, part) => {
  element.style.insetInlineStart = `${part * 100}%`;
  return element;
};

/** By the cause of its end. */
export function kindOf({ removed_ms: removed, cause }) {
  if (!removed) return "up";
  if (cause === "rekeyed") return "rekeyed";
  return ON_PURPOSE.includes(cause) ? "ended" : "failed";
}

function bar(one, x, until, tip) {
  const kind = kindOf(one);
  const [from, to] = [x(one.installed_ms), x(one.removed_ms ?? until)];
  const width = Math.max(LEAST, to - from);
  const rect = s("rect", { x: Math.min(from, WIDTH - width), y: TOP, width, height: HEIGHT });
  const element = s(
    "g",
    {
      class: `bar ${kind}`,
      tabindex: -1,
      role: "img",
      "aria-label": sentence(one, until),
      "data-key": `${one.boot_id}/${one.unique_id}`,
    },
    rect,
  );
  // Trouble has a shape of its own: a stroke across the bar.
  if (kind === "failed")
    element.append(
      s("path", {
        class: "hatch",
        d: `M${Math.min(from, WIDTH - width)} ${TOP + HEIGHT}l${width} ${-HEIGHT}`,
        "vector-effect": "non-scaling-stroke",
      }),
    );
  const explain = () => put(tip, details(one, until));
  element.addEventListener("pointerenter", explain);
  element.addEventListener("focus", explain);
  return element;
}

const ending = ({ removed_ms: removed, cause, cause_text: text }) =>
  removed ? [causeText(cause) || "ended", text].filter(Boolean).join(": ") : "up now";

const lasted = ({ installed_ms: from, removed_ms: to }, until) => duration(((to ?? until) - from) / 1000);

const sentence = (one, until) =>
  `Generation ${one.generation}, from ${timeText(one.installed_ms)}, ${lasted(one, until)}; ${ending(one)}`;

function details(one, until) {
  const end = one.removed_ms ? [" to ", time(one.removed_ms)] : [", up now"];
  return [
    h(
      "div",
      {},
      h("b", {}, `Generation ${count(one.generation)}`),
      " · ",
      time(one.installed_ms),
      end,
      ` · ${lasted(one, until)}`,
    ),
    h("div", {}, one.removed_ms ? `End: ${ending(one)}` : `In use: ${modeText(one)}`),
    h(
      "div",
      { class: "muted small" },
      h("span", { class: "mono" }, `SPIs ${spi(one.spi_in)} in, ${spi(one.spi_out)} out`),
      ` · received ${volume(one.carried_in)}, sent ${volume(one.carried_out)}`,
    ),
  ];
}

const volume = (carried) => `${bytes(carried.bytes)} in ${packets(carried.packets)}`;

function table(body) {
  const names = ["Generation", "Installed", "Lasted", "End", "Mode in use", "SPI in", "SPI out", "Received", "Sent"];
  const head = names.map((name) => h("th", { scope: "col", role: "columnheader" }, name));
  return h(
    "table",
    { class: "cards", role: "table", "aria-label": "Generations" },
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, head)),
    body,
  );
}

function row(one, until) {
  const cell = (label, ...content) => h("td", { role: "cell", "data-label": label }, h("div", {}, content));
  const mono = (text) => h("span", { class: "mono" }, text);
  return h(
    "tr",
    { role: "row" },
    cell("Generation", count(one.generation)),
    cell("Installed", time(one.installed_ms)),
    cell("Lasted", lasted(one, until)),
    cell("End", ending(one)),
    cell("Mode in use", modeText(one)),
    cell("SPI in", mono(spi(one.spi_in))),
    cell("SPI out", mono(spi(one.spi_out))),
    cell("Received", volume(one.carried_in)),
    cell("Sent", volume(one.carried_out)),
  );
}

function legend() {
  const key = ([kind, text]) => {
    const picture = s(
      "svg",
      { viewBox: "0 0 12 12", class: kind, "aria-hidden": "true" },
      s("rect", { width: 12, height: 12, rx: 2 }),
    );
    if (kind === "failed") picture.append(s("path", { class: "stroke", d: "M0 12L12 0" }));
    return h("span", {}, picture, text);
  };
  return h("p", { class: "legend" }, Object.entries(KINDS).map(key));
}
