// The frame: asks for the state, listens for events, and shows one view at a time.

import { announce } from "./announce.js";
import { get } from "./api.js";
import * as deliveries from "./deliveries.js";
import * as devices from "./devices.js";
import { h, put, say } from "./dom.js";
import * as events from "./events.js";
import { clockText, count, duration, plural, time } from "./format.js";
import { listen } from "./live.js";
import * as route from "./route.js";
import * as samples from "./samples.js";
import { STATES, badge } from "./states.js";
import { attach } from "./theme.js";
import * as tunnel from "./tunnel.js";
import * as tunnels from "./tunnels.js";

const VIEWS = { tunnels, tunnel, deliveries, events, devices };
const POLL_MS = 2000;
const RETRY_MS = [1000, 2000, 4000, 8000];
/** After an event the state is asked for at once, but not for each of a storm. */
const SOON_MS = 150;

const main = document.getElementById("main");
const banner = document.getElementById("banner");

/** The view that is shown. */
let shown;
let opened = false;
let timer;
/** The question under way. */
let asking;
/** Something has happened since it was asked. */
let news = false;
/** How often in a row the daemon has not answered. */
let failures = 0;
let lostAt;
let answeredAt = 0;
/** State of tunnels as last seen, to tell what changed. */
let known = new Map();

/** What views may use of the frame. */
const app = {
  /** Asks for the state now: filters have changed, or something was done. */
  refresh: () => plan(0),
  announce,
};

function open() {
  const where = route.current();
  const view = VIEWS[where.view] ?? tunnels;
  shown?.close?.();
  shown = view.open(app, where);
  put(main, shown.element);
  document.title = `${shown.title} · Cygnet`;
  for (const link of document.querySelectorAll(".tabs a")) {
    const isOurs =
      link.hash === `#/${where.view === "tunnel" ? "tunnels" : where.view}` ||
      (view === tunnels && link.hash === "#/tunnels");
    if (isOurs) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  // The first view is where a browser begins anyway.
  if (opened) shown.element.querySelector("h1")?.focus();
  opened = true;
  plan(0);
}

function plan(delay) {
  clearTimeout(timer);
  timer = setTimeout(ask, delay);
}

async function ask() {
  asking?.abort();
  const question = new AbortController();
  asking = question;
  news = false;
  const { signal } = question;
  const view = shown;
  try {
    const status = await get(
      "/api/status",
      view.query?.() ?? { limit: 0 },
      AbortSignal.any([signal, AbortSignal.timeout(10000)]),
    );
    if (signal.aborted || view !== shown) return;
    answered(status);
    view.status?.(status);
    plan(news ? SOON_MS : POLL_MS);
  } catch (error) {
    if (signal.aborted) return;
    lost(error);
    plan(RETRY_MS[Math.min(failures, RETRY_MS.length) - 1]);
  } finally {
    if (asking === question) asking = undefined;
  }
}

function answered(status) {
  if (lostAt) announce("The connection to the daemon is back");
  [failures, lostAt, answeredAt] = [0, undefined, Date.now()];
  banner.hidden = true;
  frame(status);
  for (const one of status.tunnels) if (one.samples) samples.add(tunnels.keyOf(one), one.samples);
  tell(status.tunnels);
}

function lost(error) {
  failures += 1;
  // One answer that is late is no reason to alarm anybody.
  if (failures < 2 && answeredAt) return;
  lostAt ??= Date.now();
  const since = answeredAt ? `What is shown is from ${clockText(answeredAt)}.` : error.message;
  say(banner, `No connection to the daemon; trying again. ${since}`);
  banner.hidden = false;
}

function frame(status) {
  say(document.getElementById("gateway"), status.gateway);
  put(
    document.getElementById("facts"),
    ready(status),
    h("span", {}, `cygnetd ${status.version}`),
    h("span", {}, `${status.backend} backend`),
    h(
      "span",
      { title: `since ${new Date(status.started_ms).toISOString()}` },
      `up ${duration((status.time_ms - status.started_ms) / 1000)}`,
    ),
  );
  const dead = status.webhooks.reduce((sum, hook) => sum + hook.dead, 0);
  const pill = document.getElementById("dead");
  pill.hidden = dead === 0;
  put(pill, count(dead), h("span", { class: "unseen" }, " dead"));
  put(
    document.getElementById("foot"),
    "As of ",
    time(status.time_ms, "clock"),
    status.complete ? "" : ". A part of the daemon did not answer in time: figures may be missing.",
  );
}

function ready({ ready: isReady, conditions }) {
  const reasons = conditions.filter(({ reason }) => reason).map(({ name, reason }) => `${name}: ${reason}`);
  const [tone, name, text] = !isReady
    ? ["bad", "cross", "not ready"]
    : reasons.length
      ? ["warn", "warn", "ready, degraded"]
      : ["good", "tick", "ready"];
  const mark = badge(tone, name, text);
  if (reasons.length) mark.append(h("span", { class: "unseen" }, `: ${reasons.join("; ")}`));
  mark.title = reasons.join("\n");
  return mark;
}

function tell(all) {
  const now = new Map(all.map((one) => [tunnels.keyOf(one), one.state]));
  for (const [key, state] of now) {
    const before = known.get(key);
    if (before && before !== state)
      announce(`${key} is ${STATES[state]?.text ?? state}`, (many) => `${plural(many, "tunnel")} changed`);
  }
  known = now;
}

let soon;
listen({
  event(record) {
    events.remember(record);
    shown?.event?.(record);
    soon ??= setTimeout(() => {
      soon = undefined;
      // An answer that is on its way is waited for, or a storm of events would let none arrive.
      if (asking) news = true;
      else plan(0);
    }, SOON_MS);
  },
  lost: (missed) => shown?.missed?.(missed),
  state(connected) {
    events.connected(connected);
    shown?.live?.(connected);
    // The stream is the first to notice that the daemon is gone, and that it is back.
    if (connected ? failures > 0 : answeredAt > 0) plan(0);
  },
});

document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : plan(0)));
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener("hashchange", open);
attach(document.getElementById("theme"));
open();
