// What the devices of the backend can carry, rung by rung, and what is doubtful about the gateway.

import { get } from "./api.js";
import { h, put, say } from "./dom.js";
import { count } from "./format.js";
import { badge } from "./states.js";

const STATES = { up: ["good", "disc", "up"], down: ["warn", "ring", "down"], gone: ["bad", "cross", "gone"] };
const MODES = { packet: "packet offload", crypto: "crypto offload", software: "software" };

export function open() {
  const note = h("p", { class: "empty" }, "…");
  const cards = h("div");
  const element = h("div", {}, h("div", { class: "head" }, h("h1", { tabindex: "-1" }, "Devices")), cards, note);
  const load = async () => {
    try {
      const { devices } = await get("/api/devices");
      note.hidden = devices.length > 0;
      say(note, "The backend has no device.");
      put(cards, devices.map(card));
    } catch (error) {
      note.hidden = false;
      say(note, error.message);
    }
  };
  load();
  return {
    title: "Devices",
    element,
    event: ({ type }) => type.startsWith("offload.") && load(),
  };
}

function card({ name, state, rungs }) {
  const rows = [
    ["Modes", (rung) => list([rung.tunnel && "tunnel", rung.transport && "transport"])],
    ["Algorithms", (rung) => h("div", { class: "ciphers" }, rung.algorithms.join(", "))],
    ["Extended sequence numbers", (rung) => yes(rung.esn)],
    ["Replay windows", (rung) => rung.replay_windows.join(", ")],
    ["ESP in UDP", (rung) => yes(rung.udp_encapsulation)],
    [
      "Selectors",
      (rung) =>
        list([
          "prefixes",
          rung.ranges && "ranges",
          rung.ports && "ports",
          rung.all_protocols ? "all protocols" : `protocols ${rung.protocols.join(", ")}`,
        ]),
    ],
    ["Limits it watches itself", (rung) => list(rung.limits)],
    ["SAs it holds", (rung) => size(rung.sa_table)],
    ["Policies it holds", (rung) => size(rung.policy_table)],
    ["Address changes in place", (rung) => yes(rung.in_place_move)],
    ["Marks, interface ids", (rung) => `${yes(rung.marks)}, ${yes(rung.interface_ids)}`],
  ];
  const head = rungs.map((rung) =>
    h("th", { scope: "col" }, `${MODES[rung.mode] ?? rung.mode}${rung.simulated ? " (simulated)" : ""}`),
  );
  const line = ([label, value]) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, label),
      rungs.map((rung) => h("td", {}, value(rung))),
    );
  return h(
    "section",
    { class: "card" },
    h("div", { class: "head" }, h("h2", {}, name), badge(...(STATES[state] ?? ["idle", "ring", state]))),
    h(
      "div",
      { class: "wide", tabindex: 0, role: "region", "aria-label": `Capabilities of ${name}` },
      h("table", { class: "devices" }, h("thead", {}, h("tr", {}, h("td"), head)), h("tbody", {}, rows.map(line))),
    ),
  );
}

const list = (words) => words.filter(Boolean).join(", ") || "none";
const yes = (value) => (value ? "yes" : "no");
const size = (value) => (value === null ? "bounded by memory" : count(value));
