// The overview: every configured tunnel, a page of them at a time, the daemon doing search and order.

import { h, keyed, put, say } from "./dom.js";
import { ago, amount, causeText, count, modeText, placeText, plural, rate, time } from "./format.js";
import * as route from "./route.js";
import * as samples from "./samples.js";
import * as spark from "./spark.js";
import { STATES, shape, stateBadge } from "./states.js";

const PAGE = 50;
const TYPING_MS = 200;

/** One name for connection and child. */
export const keyOf = ({ connection, child }) => `${connection}/${child}`;

export function open(app, { query }) {
  const filter = {
    search: query.get("search") ?? "",
    state: query.get("state") ?? "",
    sort: query.get("sort") ?? "",
    offset: Number(query.get("offset")) || 0,
  };
  let fetched = 0;
  const changed = (change) => {
    Object.assign(filter, { offset: 0 }, change);
    fetched = 0;
    route.remember("tunnels", [], filter);
    app.refresh();
  };

  const counts = countStrip((state) => changed({ state: filter.state === state ? "" : state }));
  const found = h("p", { class: "muted small spread", "aria-live": "polite" });
  const body = h("tbody", { role: "rowgroup" });
  const empty = h("p", { class: "empty", hidden: true });
  const pager = pages((offset) => changed({ offset }));
  const rows = new Map();

  const element = h(
    "div",
    {},
    h("div", { class: "head" }, h("h1", { tabindex: "-1" }, "Tunnels"), found),
    counts.element,
    tools(filter, changed),
    h("div", { class: "table tunnels" }, table(body), empty),
    pager.element,
  );

  return {
    title: "Tunnels",
    element,
    query: () => ({ ...filter, limit: PAGE, samples: fetched }),
    status(status) {
      fetched = status.time_ms;
      counts.update(status.counts, filter.state);
      const traffic = `↓ ${rate(status.rates.in)}, ↑ ${rate(status.rates.out)}`;
      say(
        found,
        status.matching === status.counts.total
          ? `All together ${traffic}`
          : `${plural(status.matching, "tunnel")} of ${count(status.counts.total)}`,
      );
      keyed(body, rows, status.tunnels, keyOf, () => row());
      samples.retain(new Set(rows.keys()));
      for (const one of status.tunnels) rows.get(keyOf(one)).draw(one, status.time_ms);
      empty.hidden = status.tunnels.length > 0;
      say(
        empty,
        status.counts.total === 0
          ? "No tunnel is configured. `swanctl --load-all` loads swanctl.conf."
          : "No tunnel fits.",
      );
      pager.update(status.matching, filter.offset);
    },
  };
}

function tools(filter, changed) {
  let typing;
  const search = h("input", {
    type: "search",
    value: filter.search,
    placeholder: "name, identity, address or subnet",
    oninput: ({ target }) => {
      clearTimeout(typing);
      typing = setTimeout(() => changed({ search: target.value.trim() }), TYPING_MS);
    },
  });
  const order = h(
    "select",
    { onchange: ({ target }) => changed({ sort: target.value }) },
    ["name", "trouble", "traffic"].map((sort) =>
      h(
        "option",
        { value: sort, selected: sort === filter.sort },
        { name: "name", trouble: "trouble first", traffic: "traffic" }[sort],
      ),
    ),
  );
  return h(
    "div",
    { class: "tools", role: "search" },
    h("label", { class: "grow" }, "Search", search),
    h("label", {}, "Order", order),
  );
}

function countStrip(choose) {
  const values = new Map();
  const buttons = ["", ...Object.keys(STATES)].map((state) => {
    const known = STATES[state];
    const value = h("span", { class: "value" }, "–");
    const name = h(
      "span",
      { class: `name ${known?.tone ?? ""}` },
      known ? shape(known.shape) : null,
      h("span", {}, known?.text ?? "configured"),
    );
    const button = h(
      "button",
      { type: "button", "aria-pressed": "false", "data-state": state, onclick: () => choose(state) },
      value,
      name,
    );
    values.set(state, { button, value });
    return button;
  });
  return {
    element: h("div", { class: "counts", role: "group", "aria-label": "Tunnels by state" }, buttons),
    update(counts, chosen) {
      for (const [state, { button, value }] of values) {
        const many = state ? counts[state] : counts.total;
        say(value, count(many));
        button.setAttribute("aria-pressed", String(state === chosen));
        button.hidden = many === 0 && state !== chosen && !["", "up", "down"].includes(state);
      }
    },
  };
}

function table(body) {
  const column = (name, text) => h("th", { class: name, scope: "col", role: "columnheader" }, text);
  const names = [
    column("c-name", "Tunnel"),
    column("c-state", "State"),
    column("c-mode", "Mode in use"),
    column("c-traffic", "Traffic"),
    column("c-rekey", "To rekey"),
  ];
  return h(
    "table",
    { class: "cards", role: "table", "aria-label": "Tunnels" },
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, names)),
    body,
  );
}

function row() {
  const name = h("a", { class: "name" });
  const peer = h("div", { class: "muted small" });
  const state = stateBadge();
  const cause = h("p", { class: "cause" });
  const mode = h("div");
  const place = h("div", { class: "muted small" });
  const curve = spark.traffic("Traffic");
  const received = h("span", { class: "in number" });
  const sent = h("span", { class: "out number" });
  const rates = h(
    "p",
    { class: "rates" },
    h("span", { class: "unseen" }, "received "),
    received,
    h("span", { class: "unseen" }, " sent "),
    sent,
  );
  const meter = spark.meter();
  const bar = h("div", { class: "meter" }, meter.element);
  const left = h("div", { class: "number" });
  const generation = h("div", { class: "muted small" });
  const cell = (label, ...content) => h("td", { role: "cell", "data-label": label }, h("div", {}, content));
  const lead = h("td", { role: "cell", class: "lead" }, name, peer);
  const element = h(
    "tr",
    { role: "row" },
    lead,
    cell("State", state.element, cause),
    cell("Mode", mode, place),
    cell("Traffic", curve.element, rates),
    cell("To rekey", bar, left, generation),
  );
  return {
    element,
    update(one) {
      const key = keyOf(one);
      say(name, key);
      name.href = route.href("tunnel", [one.connection, one.child]);
      say(peer, one.remote ? `${one.remote_id} · ${one.remote}` : subnets(one));
      state.update(one.state);
      say(mode, modeText(one.mode));
      say(place, placeText(one.mode));
    },
    draw(one, now) {
      const key = keyOf(one);
      put(cause, ...trouble(one, now));
      const up = one.rates !== null;
      const words = up ? `received ${rate(one.rates.in)}, sent ${rate(one.rates.out)}` : "no traffic";
      curve.element.toggleAttribute("hidden", !up);
      rates.hidden = !up;
      if (up) {
        curve.update(samples.of(key), `Traffic of the last minutes; now ${words}`);
        say(received, rate(one.rates.in));
        say(sent, rate(one.rates.out));
      }
      const nearest = one.nearest;
      bar.hidden = nearest === null;
      if (nearest) meter.update(nearest.used);
      say(left, nearest ? remaining(nearest) : up ? "no limit" : "");
      say(generation, one.generation === null ? "" : which(one));
    },
  };
}

/** `41 min left`, `overdue`. */
export function remaining({ unit, left, used }) {
  return left > 0 ? `${amount(unit, left)} left` : used >= 1 ? "overdue" : `${amount(unit, 0)} left`;
}

/** Of several peers of one connection, each has a CHILD SA; what is shown is of the newest. */
const which = ({ generation, sas }) =>
  `generation ${count(generation)}${sas > 1 ? ` · newest of ${plural(sas, "CHILD SA")}` : ""}`;

const subnets = (one) => (one.remote_ts.length ? `${one.local_ts.join(" ")} ⇄ ${one.remote_ts.join(" ")}` : "");

/** Why it is not up: when the next attempt comes, and what went wrong last. */
export function trouble(one, now) {
  if (one.state === "refused") return [one.reason];
  if (one.state === "up" || one.state === "shunt") return [];
  const next = one.retry_at_ms
    ? [`next attempt ${one.retry_at_ms > now ? `in ${amount("seconds", (one.retry_at_ms - now) / 1000)}` : "now"}`]
    : [];
  if (!one.cause) return next;
  const last = [
    causeText(one.cause.kind),
    " ",
    h("span", { class: "small" }, `(${ago(one.cause.time_ms, now)})`),
    ": ",
    one.cause.text,
  ];
  return next.length ? [...next, h("br"), ...last] : last;
}

function pages(go) {
  let at = 0;
  const step = (by, text) =>
    h("button", { type: "button", class: "slim", onclick: () => go(Math.max(0, at + by * PAGE)) }, text);
  const [back, on] = [step(-1, "Previous"), step(1, "Next")];
  const text = h("span", { class: "number" });
  const element = h("nav", { class: "pager", "aria-label": "Pages", hidden: true }, back, text, on);
  return {
    element,
    update(matching, offset) {
      at = offset;
      element.hidden = matching <= PAGE && offset === 0;
      back.disabled = offset === 0;
      on.disabled = offset + PAGE >= matching;
      say(
        text,
        `${count(Math.min(offset + 1, matching))} to ${count(Math.min(offset + PAGE, matching))} of ${count(matching)}`,
      );
    },
  };
}

/** When something was, in a list of facts. */
export const when = (ms, now) => [time(ms), ` (${ago(ms, now)})`];
