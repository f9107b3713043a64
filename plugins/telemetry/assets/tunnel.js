// One tunnel: facts, traffic, limits, its generations over time, its last events.

import { get } from "./api.js";
import { h, put, say } from "./dom.js";
import * as events from "./events.js";
import { amount, bytes, causeText, count, duration, modeText, packets, placeText, rate, spi } from "./format.js";
import * as route from "./route.js";
import * as samples from "./samples.js";
import * as spark from "./spark.js";
import { stateBadge } from "./states.js";
import { timeline } from "./timeline.js";
import { keyOf, trouble, when } from "./tunnels.js";

const EVENTS = 15;
/** More are asked for: those of other children are left out. */
const ASKED = 60;

export function open(app, { parts: [connection = "", child = ""], query }) {
  const key = keyOf({ connection, child });
  const state = stateBadge();
  const cause = h("p", { class: "notice", hidden: true });
  const facts = h("dl", { class: "facts-list" });
  const security = h("dl", { class: "facts-list" });
  const traffic = trafficCard();
  const limits = limitsCard();
  const line = timeline({
    connection,
    child,
    range: query.get("range") ?? "1h",
    remember: (range) => route.remember("tunnel", [connection, child], { range }),
  });
  const past = lastEvents(connection, child);
  let fetched = 0;

  const element = h(
    "div",
    {},
    h("p", { class: "crumb" }, h("a", { href: "#/tunnels" }, "All tunnels")),
    h("div", { class: "head" }, h("h1", { tabindex: "-1" }, key), state.element),
    cause,
    h("div", { class: "halves" }, card("Tunnel", facts), card("Security", security)),
    h("div", { class: "halves" }, traffic.element, limits.element),
    line.element,
    past.element,
  );

  return {
    title: key,
    element,
    query: () => ({ connection, child, limit: 1, samples: fetched }),
    status(status) {
      const one = status.tunnels[0];
      fetched = status.time_ms;
      state.element.hidden = !one;
      if (!one) {
        cause.hidden = false;
        put(cause, "No such tunnel is configured now. What the history knows of it is below.");
        return;
      }
      state.update(one.state);
      const words = trouble(one, status.time_ms);
      cause.hidden = words.length === 0;
      put(cause, ...words);
      list(facts, tunnelFacts(one, status.time_ms));
      list(security, securityFacts(one, status.time_ms));
      traffic.update(one, key);
      limits.update(one, key);
      if (line.isBehind(one.unique_id)) line.refresh();
    },
    event(record) {
      if (events.connectionOf(record) !== connection) return;
      past.add(record);
      line.refresh();
    },
    close: () => line.close(),
  };
}

const card = (title, ...content) => h("section", { class: "card" }, h("h2", {}, title), content);

function list(element, pairs) {
  const known = [...element.children];
  // The same facts as before: only texts change, so that what is selected stays so.
  const same = known.length === pairs.length * 2 && pairs.every(([name], at) => known[at * 2].textContent === name);
  if (!same) put(element, ...pairs.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
  else
    pairs.forEach(([, value], at) => {
      const cell = known[at * 2 + 1];
      if (typeof value === "string") say(cell, value);
      else put(cell, value);
    });
}

function tunnelFacts(one, now) {
  const facts = [
    ["Mode in use", [modeText(one.mode), one.mode ? ` · ${placeText(one.mode)}` : ""].join("")],
    ["Local", [one.local_id, one.local].filter(Boolean).join(" · ") || "–"],
    ["Remote", [one.remote_id, one.remote].filter(Boolean).join(" · ") || "–"],
    ["Local subnets", one.local_ts.join(", ") || "–"],
    ["Remote subnets", one.remote_ts.join(", ") || "–"],
  ];
  if (one.installed_ms)
    facts.push(["Generation", [`${count(one.generation)}, installed `, when(one.installed_ms, now)]]);
  if (one.sas > 1) facts.push(["CHILD SAs", `${count(one.sas)}; the newest is shown, figures of traffic are sums`]);
  if (one.failures) facts.push(["Failed attempts", count(one.failures)]);
  if (one.cause)
    facts.push(["Last trouble", [`${causeText(one.cause.kind)}: ${one.cause.text}, `, when(one.cause.time_ms, now)]]);
  return facts;
}

function securityFacts(one, now) {
  const mono = (text) => h("span", { class: "mono" }, text);
  const facts = [
    ["CHILD SA", one.algorithms ? mono(one.algorithms) : "–"],
    ["IKE SA", one.ike_algorithms ? mono(one.ike_algorithms) : "–"],
    ["SPI in", mono(spi(one.spi_in))],
    ["SPI out", mono(spi(one.spi_out))],
    ["ESP", one.esp_mode ? `${one.esp_mode} mode, ${one.encap ? "in UDP" : "native"}` : "–"],
  ];
  if (one.ike_established_ms) facts.push(["IKE SA since", when(one.ike_established_ms, now)]);
  if (one.heard_seconds !== null) facts.push(["Peer last heard", `${duration(one.heard_seconds)} ago`]);
  return facts;
}

function trafficCard() {
  const curve = spark.traffic("Traffic of the last minutes");
  const rates = h("p", { class: "rates" }, h("span", { class: "in number" }), h("span", { class: "out number" }));
  const peak = h("p", { class: "muted small" });
  const body = h("tbody");
  const head = ["Carried", "received", "sent"].map((text) => h("th", { scope: "col" }, text));
  const table = h("table", { class: "carried" }, h("thead", {}, h("tr", {}, head)), body);
  const element = card("Traffic", h("div", { class: "big" }, curve.element), rates, peak, table);
  return {
    element,
    update(one, key) {
      const { in: received = 0, out: sent = 0 } = one.rates ?? {};
      const ring = samples.of(key);
      curve.update(ring, `Traffic of the last minutes; now received ${rate(received)}, sent ${rate(sent)}`);
      say(rates.children[0], `received ${rate(received)}`);
      say(rates.children[1], `sent ${rate(sent)}`);
      say(peak, reach(ring));
      put(body, carried("this generation", one.carried), carried("since established", one.total));
    },
  };
}

/** How high and how far back the curve goes. */
function reach(ring) {
  if (ring.length < 2) return "The curve begins with the second sample.";
  const top = Math.max(...ring.flatMap(([, received, sent]) => [received, sent]));
  return `top of the curve ${rate(top)}, from ${duration((ring.at(-1)[0] - ring[0][0]) / 1000)} ago until now`;
}

function carried(name, pair) {
  const volume = (sum) => [h("div", {}, bytes(sum.bytes)), h("div", { class: "muted small" }, packets(sum.packets))];
  const cells = [pair?.in, pair?.out].map((sum) => h("td", { class: "number" }, sum ? volume(sum) : "–"));
  return h("tr", {}, h("th", { scope: "row" }, name), cells);
}

const UNITS = { seconds: "time", bytes: "octets", packets: "packets" };

function limitsCard() {
  const curve = spark.used("Use of the nearest soft limit");
  const line = h("p", { class: "small muted" });
  const items = h("ul", { class: "limits" });
  const element = card("Limits", h("div", { class: "big" }, curve.element), line, items);
  return {
    element,
    update(one, key) {
      const words = one.nearest ? `${UNITS[one.nearest.unit]} comes first` : "none is in force";
      curve.update(samples.of(key), `Use of the nearest soft limit over the last minutes; ${words}`);
      say(line, `Use of the nearest soft limit; ${words}`);
      put(items, one.limits.map(limit));
    },
  };
}

/** One unit: how much is used, how much is left until the rekey and until the end. */
function limit({ unit, soft_left: softLeft, hard_left: hardLeft, used }) {
  const meter = spark.meter();
  meter.update(used ?? 0);
  const left = (value, end) =>
    value === null ? null : `${value > 0 ? amount(unit, value) : "nothing left"} to the ${end}`;
  const head = h(
    "div",
    { class: "split" },
    h("span", {}, UNITS[unit]),
    h("span", { class: "number" }, used === null ? "" : `${Math.floor(used * 100)} %`),
  );
  const words = [left(softLeft, "rekey"), left(hardLeft, "hard limit")].filter(Boolean).join(", ");
  return h("li", {}, head, h("div", { class: "meter" }, meter.element), h("div", { class: "muted small" }, words));
}

function lastEvents(connection, child) {
  const feed = events.feed(EVENTS);
  const note = h("p", { class: "muted small" });
  const more = h("a", { href: route.href("events", [], { connection, child }) }, "All events of this tunnel");
  const element = h(
    "section",
    { class: "card" },
    h("h2", {}, "Last events"),
    feed.element,
    note,
    h("p", { class: "more" }, more),
  );
  get("/api/events", { connection, limit: ASKED })
    .then((answer) => {
      feed.older(answer.events.filter((record) => [child, null].includes(events.childOf(record))));
      say(note, feed.size() ? "" : "Nothing yet.");
    })
    .catch((error) => say(note, `The history does not answer: ${error.message}`));
  return {
    element,
    add(record) {
      if (![child, null].includes(events.childOf(record))) return;
      feed.newer(record);
      say(note, "");
    },
  };
}
