/** A share with its interval, drawn on an axis from 0 to 100 %. */

import { make } from "./dom.js";

const SPACE = "http://www.w3.org/2000/svg";

/** A drawing; the number itself stands beside it in words. */
export function interval({ value, low, high }) {
  const svg = draw("svg", { class: "interval", "aria-hidden": "true" });
  const line = (name, from, to, y1 = 10, y2 = 10) =>
    svg.append(draw("line", { class: name, x1: part(from), x2: part(to), y1, y2 }));
  line("axis", 0, 1);
  line("middle", 0.5, 0.5, 2, 18);
  if (known(value)) {
    line("range", low, high);
    svg.append(draw("circle", { class: "value", cx: part(value), cy: 10, r: 4.5 }));
  }
  return svg;
}

/** Parts of a whole, side by side. */
export function split(parts) {
  const svg = draw("svg", { class: "split", "aria-hidden": "true" });
  const all = parts.reduce((sum, one) => sum + one, 0);
  let before = 0;
  parts.forEach((one, n) => {
    const [x, width] = all ? [part(before / all), part(one / all)] : [0, 0];
    svg.append(draw("rect", { class: `part-${n}`, x, width, y: 4, height: 12 }));
    before += one;
  });
  return svg;
}

/** A share with its interval in words. */
export function intervalWords({ value, low, high }) {
  if (!known(value)) return "no votes yet";
  const words = make("span", {}, make("strong", {}, percent(value)));
  if (known(low)) words.append(` (${percent(low)} to ${percent(high)})`);
  return words;
}

const known = (value) => Number.isFinite(value);
const part = (share) => `${100 * share}%`;
const percent = (share) => `${(100 * share).toFixed(1)} %`;

function draw(tag, attributes) {
  const element = document.createElementNS(SPACE, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}
