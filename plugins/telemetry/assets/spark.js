// Small curves without axes; the numbers stand beside them.

import { s } from "./dom.js";

const [WIDTH, HEIGHT] = [200, 30];

/** Throughput: received as a line with an area, sent as a dashed line. */
export function traffic(label) {
  const area = s("path", { class: "area" });
  const inbound = s("path", { class: "in" });
  const outbound = s("path", { class: "out" });
  const element = frame(label, area, inbound, outbound);
  return {
    element,
    update(samples, description) {
      const top = Math.max(1, ...samples.flatMap(([, received, sent]) => [received, sent]));
      const points = (index) => place(samples, (sample) => sample[index] / top);
      const received = points(1);
      draw(inbound, received);
      draw(outbound, points(2));
      area.setAttribute("d", received.length > 1 ? `${path(received)}V${HEIGHT}H${received[0][0]}Z` : "");
      element.setAttribute("aria-label", description);
    },
  };
}

/** How much of the nearest soft limit was used, 0 to 1: a saw whose teeth are rekeys. */
export function used(label) {
  const line = s("path", { class: "used" });
  const element = frame(label, line);
  return {
    element,
    update(samples, description) {
      draw(
        line,
        place(
          samples.filter(([, , , part]) => part !== null),
          (sample) => Math.min(1, sample[3]),
        ),
      );
      element.setAttribute("aria-label", description);
    },
  };
}

/** A bar filled to a part of 1. */
export function meter() {
  const full = s("rect", { class: "full", x: 0, y: 0, height: 6, width: 0 });
  const svg = s("svg", { viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" }, full);
  return {
    element: svg,
    update(part) {
      full.setAttribute("width", Math.round(Math.min(1, Math.max(0, part)) * 1000) / 10);
      svg.classList.toggle("near", part >= 0.9);
    },
  };
}

function frame(label, ...lines) {
  const box = {
    class: "spark",
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    preserveAspectRatio: "none",
    role: "img",
    "aria-label": label,
  };
  return s("svg", box, s("path", { class: "base", d: `M0 ${HEIGHT}H${WIDTH}` }), ...lines);
}

function place(samples, height) {
  if (samples.length < 2) return [];
  const [first, last] = [samples[0][0], samples.at(-1)[0]];
  const x = (at) => Math.round(((at - first) / (last - first)) * WIDTH * 10) / 10;
  return samples.map((sample) => [x(sample[0]), Math.round((1 - height(sample)) * (HEIGHT - 2) * 10) / 10 + 1]);
}

const path = (points) => points.map(([x, y], index) => `${index ? "L" : "M"}${x} ${y}`).join("");

const draw = (line, points) => line.setAttribute("d", path(points));
