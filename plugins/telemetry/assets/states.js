// What a configured child can be doing: a word, a colour and a shape each, so that nothing is told by colour alone.

import { h, s, say } from "./dom.js";

/** In the order of the overview. */
export const STATES = {
  up: { text: "up", tone: "good", shape: "disc" },
  connecting: { text: "connecting", tone: "warn", shape: "half" },
  retry: { text: "retrying", tone: "warn", shape: "again" },
  trapped: { text: "waits for traffic", tone: "info", shape: "diamond" },
  shunt: { text: "shunt", tone: "idle", shape: "bar" },
  down: { text: "down", tone: "idle", shape: "ring" },
  refused: { text: "refused", tone: "bad", shape: "cross" },
};

const SHAPES = {
  disc: () => s("circle", { cx: 6, cy: 6, r: 5, fill: "currentColor" }),
  ring: () => s("circle", { cx: 6, cy: 6, r: 4, fill: "none", stroke: "currentColor", "stroke-width": 2 }),
  half: () => [
    s("circle", { cx: 6, cy: 6, r: 4, fill: "none", stroke: "currentColor", "stroke-width": 2 }),
    s("path", { d: "M6 2a4 4 0 0 1 0 8z", fill: "currentColor" }),
  ],
  again: () =>
    s("path", {
      d: "M9.8 6a3.8 3.8 0 1 1-1.2-2.8L10 4.6M10 1v3.6H6.4",
      fill: "none",
      stroke: "currentColor",
      "stroke-width": 1.8,
    }),
  diamond: () => s("path", { d: "M6 .8 11.2 6 6 11.2.8 6z", fill: "currentColor" }),
  bar: () => s("rect", { x: 1, y: 4, width: 10, height: 4, fill: "currentColor" }),
  cross: () => s("path", { d: "M2 2l8 8M10 2l-8 8", stroke: "currentColor", "stroke-width": 2.4, fill: "none" }),
  tick: () => s("path", { d: "M1.5 6.5l3 3 6-7", stroke: "currentColor", "stroke-width": 2.2, fill: "none" }),
  wait: () =>
    s("path", {
      d: "M6 1.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9zM6 3.5V6l2 1.5",
      stroke: "currentColor",
      "stroke-width": 1.5,
      fill: "none",
    }),
  warn: () =>
    s("path", { d: "M6 1l5.2 9.5H.8zM6 4.5v3M6 8.6v1", stroke: "currentColor", "stroke-width": 1.4, fill: "none" }),
};

/** A small picture; what it means stands beside it. */
export const shape = (name) => s("svg", { viewBox: "0 0 12 12", "aria-hidden": "true" }, SHAPES[name]());

/** A word with its colour and shape. */
export function badge(tone, name, text) {
  return h("span", { class: `badge ${tone}` }, shape(name), h("span", {}, text));
}

/** The badge of a state that changes. */
export function stateBadge() {
  const element = h("span", { class: "badge" });
  let shown;
  return {
    element,
    update(state) {
      if (state === shown) return;
      shown = state;
      const { tone, shape: name, text } = STATES[state] ?? { tone: "idle", shape: "ring", text: state };
      element.className = `badge ${tone}`;
      element.replaceChildren(shape(name), say(h("span"), text));
    },
  };
}
