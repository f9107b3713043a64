// Webhooks and what became of their deliveries; dead ones can be sent again.

import { get } from "./api.js";
import { h, keyed, put, say } from "./dom.js";
import { ago, amount, count, plural, time } from "./format.js";
import * as route from "./route.js";
import { badge } from "./states.js";
import { change } from "./token.js";

const PAGE = 50;
const POLL_MS = 3000;
const SOON_MS = 400;
const STATES = {
  waiting: ["info", "wait", "waiting"],
  delivered: ["good", "tick", "delivered"],
  dead: ["bad", "cross", "dead"],
};

export function open(app, { query }) {
  const filter = {
    endpoint: query.get("endpoint") ?? "",
    state: query.get("state") ?? "",
    connection: query.get("connection") ?? "",
  };
  /** Where pages begin: the cursor of each page that was left. */
  const cursors = [];
  let next;
  let timer;
  let soon;
  /** How often was asked: only the last answer counts, and only it is followed by the next question. */
  let asked = 0;
  let closed = false;
  let actions = { allowed: true };

  const said = h("p", { class: "notice", role: "status", hidden: true });
  const readOnly = h("p", { class: "notice", hidden: true });
  const hooks = h("div", { class: "hooks" });
  const none = h(
    "p",
    { class: "notice", hidden: true },
    "No webhook is configured: [[webhook]] in cygnetd.toml adds one.",
  );
  const known = new Map();
  const rows = new Map();
  const body = h("tbody", { role: "rowgroup" });
  const empty = h("p", { class: "empty", hidden: true });
  const back = h("button", { type: "button", class: "slim", onclick: () => turn(() => cursors.pop()) }, "Newer");
  const on = h("button", { type: "button", class: "slim", onclick: () => turn(() => cursors.push(next)) }, "Older");
  const pager = h("nav", { class: "pager", "aria-label": "Pages" }, back, on);

  const element = h(
    "div",
    {},
    h("div", { class: "head" }, h("h1", { tabindex: "-1" }, "Webhook deliveries")),
    readOnly,
    said,
    none,
    hooks,
    tools(filter, () => {
      cursors.length = 0;
      route.remember("deliveries", [], filter);
      load();
    }),
    h("div", { class: "table" }, table(body), empty),
    pager,
  );

  function turn(step) {
    step();
    load();
  }

  async function act(path, request, words) {
    try {
      const answer = await change(path, request);
      if (answer) tell(words(answer), "good");
    } catch (error) {
      tell(error.message, "bad");
    }
    load();
    app.refresh();
  }

  function tell(text, tone) {
    said.className = `notice ${tone}`;
    said.hidden = false;
    say(said, text);
  }

  const redeliver = (request) =>
    act(
      "/api/deliveries/redeliver",
      request,
      ({ redelivered }) => `${plural(redelivered, "delivery", "deliveries")} will be sent again`,
    );
  const enable = (name) =>
    act(`/api/webhooks/${encodeURIComponent(name)}/enable`, {}, () => `${name} is enabled again`);

  async function load() {
    clearTimeout(timer);
    const number = (asked += 1);
    try {
      const answer = await get("/api/deliveries", { ...filter, before: cursors.at(-1), limit: PAGE });
      if (closed || number !== asked) return;
      next = answer.next;
      keyed(
        body,
        rows,
        answer.deliveries,
        (one) => `${one.ulid}/${one.endpoint}`,
        () => row(redeliver),
      );
      for (const one of answer.deliveries) rows.get(`${one.ulid}/${one.endpoint}`).draw(one, answer.time_ms, actions);
      empty.hidden = answer.deliveries.length > 0;
      say(empty, "No delivery fits.");
      back.disabled = cursors.length === 0;
      on.disabled = !next;
      pager.hidden = cursors.length === 0 && !next;
    } catch (error) {
      if (closed || number !== asked) return;
      rows.clear();
      put(body);
      empty.hidden = false;
      pager.hidden = true;
      say(empty, error.message);
    }
    timer = setTimeout(load, POLL_MS);
  }

  load();
  return {
    title: "Webhook deliveries",
    element,
    status(status) {
      actions = status.actions;
      none.hidden = status.webhooks.length > 0;
      readOnly.hidden = actions.allowed;
      say(readOnly, actions.allowed ? "" : `Read only: ${actions.reason}`);
      keyed(
        hooks,
        known,
        status.webhooks,
        ({ name }) => name,
        () => hook(redeliver, enable),
      );
      for (const one of status.webhooks) known.get(one.name).draw(one, status.time_ms, actions);
    },
    event: () => {
      // The delivery of what has just happened; in a storm of events, of the first of them.
      soon ??= setTimeout(() => {
        soon = undefined;
        load();
      }, SOON_MS);
    },
    close() {
      closed = true;
      clearTimeout(timer);
      clearTimeout(soon);
    },
  };
}

function tools(filter, changed) {
  const set =
    (name) =>
    ({ target }) => {
      filter[name] = target.value.trim();
      changed();
    };
  const states = ["", ...Object.keys(STATES)].map((state) =>
    h("option", { value: state, selected: state === filter.state }, state || "any"),
  );
  return h(
    "div",
    { class: "tools", role: "search" },
    h("label", {}, "State", h("select", { name: "state", onchange: set("state") }, states)),
    h(
      "label",
      {},
      "Webhook",
      h("input", {
        type: "search",
        name: "endpoint",
        value: filter.endpoint,
        placeholder: "any",
        onchange: set("endpoint"),
      }),
    ),
    h(
      "label",
      {},
      "Connection",
      h("input", {
        type: "search",
        name: "connection",
        value: filter.connection,
        placeholder: "any",
        onchange: set("connection"),
      }),
    ),
  );
}

const HEALTH = {
  up: ["good", "tick", "takes messages"],
  down: ["warn", "warn", "does not answer"],
  disabled: ["bad", "cross", "disabled"],
  untried: ["idle", "ring", "not tried yet"],
  "": ["idle", "ring", "configured no more"],
};

/** A number, or a dash while the database does not say. */
const figure = (value) => (value === null ? "–" : count(value));

/** One webhook with its backlog. */
function hook(redeliver, enable) {
  let shown;
  const name = h("h2");
  const waiting = h("b");
  const dead = h("b");
  const health = h("span");
  const stopped = h("p", { class: "small" });
  const again = h(
    "button",
    { type: "button", class: "slim", onclick: () => redeliver({ endpoint: shown.name }) },
    "Send dead ones again",
  );
  const on = h("button", { type: "button", class: "slim", onclick: () => enable(shown.name) }, "Enable");
  const element = h(
    "section",
    { class: "card" },
    h("div", { class: "head" }, name, health),
    h(
      "div",
      { class: "figures" },
      h("div", {}, waiting, h("span", { class: "muted small" }, "waiting")),
      h("div", {}, dead, h("span", { class: "muted small" }, "dead")),
    ),
    stopped,
    h("div", { class: "actions" }, again, on),
  );
  return {
    element,
    update(one) {
      shown = one;
      say(name, one.name);
      say(waiting, figure(one.waiting));
      say(dead, figure(one.dead));
      again.setAttribute("aria-label", `Send dead deliveries to ${one.name} again`);
      on.setAttribute("aria-label", `Enable ${one.name}`);
    },
    draw(one, now, actions) {
      put(health, badge(...(HEALTH[one.state] ?? ["idle", "ring", one.state])));
      stopped.hidden = !one.disabled;
      say(stopped, one.disabled ? `${ago(one.disabled.since_ms, now)}: ${one.disabled.reason}` : "");
      again.hidden = !one.dead;
      on.hidden = !one.disabled;
      again.disabled = on.disabled = !actions.allowed;
    },
  };
}

function table(body) {
  const head = ["Event", "Webhook", "State", "Attempts", "Last answer", ""].map((name) =>
    h("th", { scope: "col", role: "columnheader" }, name || h("span", { class: "unseen" }, "Action")),
  );
  return h(
    "table",
    { class: "cards", role: "table", "aria-label": "Deliveries" },
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, head)),
    body,
  );
}

function row(redeliver) {
  let shown;
  const cell = (label, content, name = "") => h("td", { role: "cell", class: name, "data-label": label }, content);
  const [event, about, endpoint, state, attempts, answer] = ["span", "div", "div", "div", "div", "div"].map((tag) =>
    h(tag),
  );
  event.className = "mono";
  about.className = "muted small";
  attempts.className = "number";
  const again = h(
    "button",
    { type: "button", class: "slim", onclick: () => redeliver({ ulid: shown.ulid, endpoint: shown.endpoint }) },
    "Send again",
  );
  const element = h(
    "tr",
    { role: "row" },
    cell("Event", h("div", {}, event, about), "lead"),
    cell("Webhook", endpoint),
    cell("State", state),
    cell("Attempts", attempts),
    cell("Last answer", answer),
    cell("", again, "end"),
  );
  let drawn;
  return {
    element,
    update(one) {
      shown = one;
    },
    draw(one, now, actions) {
      again.hidden = one.state !== "dead";
      again.disabled = !actions.allowed;
      again.setAttribute("aria-label", `Send ${one.event} to ${one.endpoint} again`);
      say(event, one.event);
      say(endpoint, one.endpoint);
      say(attempts, count(one.attempts));
      say(
        answer,
        one.last_error ?? (one.last_status ? `HTTP ${one.last_status}` : one.state === "delivered" ? "accepted" : "–"),
      );
      const due =
        one.state === "waiting" && one.due_ms
          ? ` next ${one.due_ms > now ? `in ${amount("seconds", (one.due_ms - now) / 1000)}` : "now"}`
          : "";
      const seen = `${one.state}${due}`;
      if (seen === drawn) return;
      drawn = seen;
      put(about, [one.connection, one.connection ? " · " : "", time(one.time_ms)]);
      put(
        state,
        badge(...(STATES[one.state] ?? ["idle", "ring", one.state])),
        due ? h("span", { class: "small muted" }, due) : null,
      );
    },
  };
}
