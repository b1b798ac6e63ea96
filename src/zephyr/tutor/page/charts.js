/** Charts as SVG: an interval on an axis from 0 to 100 %, and a stacked bar. */

import { make } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";

/** A share with its interval; the numbers stand beside it as text. */
export function intervalChart({ value, low, high }) {
  const svg = svgElement("svg", { class: "interval", "aria-hidden": "true" });
  const line = (name, from, to, y1 = 10, y2 = 10) =>
    svg.append(svgElement("line", { class: name, x1: position(from), x2: position(to), y1, y2 }));
  line("axis", 0, 1);
  line("middle", 0.5, 0.5, 2, 18);
  if (isKnown(value)) {
    line("range", low, high);
    svg.append(svgElement("circle", { class: "value", cx: position(value), cy: 10, r: 4.5 }));
  }
  return svg;
}

/** The parts of a whole, side by side. */
export function stackedBar(parts) {
  const svg = svgElement("svg", { class: "split", "aria-hidden": "true" });
  const total = parts.reduce((sum, part) => sum + part, 0);
  let before = 0;
  parts.forEach((part, n) => {
    const [x, width] = total ? [position(before / total), position(part / total)] : [0, 0];
    svg.append(svgElement("rect", { class: `part-${n}`, x, width, y: 4, height: 12 }));
    before += part;
  });
  return svg;
}

/** A share with its interval as text. */
export function intervalText({ value, low, high }) {
  if (!isKnown(value)) return "no votes yet";
  const text = make("span", {}, make("strong", {}, percent(value)));
  if (isKnown(low)) text.append(` (${percent(low)} to ${percent(high)})`);
  return text;
}

const isKnown = (value) => Number.isFinite(value);
const position = (share) => `${100 * share}%`;
const percent = (share) => `${(100 * share).toFixed(1)} %`;

function svgElement(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}
