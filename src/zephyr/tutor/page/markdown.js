/** An answer as nodes, drawn again as it grows: only blocks that changed are made anew. */

import { blocksOf } from "./blocks.js";
import { codeBlock } from "./code.js";
import { make } from "./dom.js";
import { formula } from "./formula.js";
import { fill } from "./inline.js";

/** Shows a text in an element, and goes on showing it as it grows. */
export class Markdown {
  #shown = [];

  constructor(element) {
    this.element = element;
  }

  show(text) {
    const blocks = blocksOf(text).map((block) => ({
      block,
      raw: text.slice(block.from, block.to),
    }));
    let same = 0;
    while (same < blocks.length && this.#shown[same]?.raw === blocks[same].raw) same += 1;
    for (const { node } of this.#shown.splice(same)) node.remove();
    for (const { block, raw } of blocks.slice(same)) {
      const node = render(block, []);
      this.element.append(node);
      this.#shown.push({ raw, node });
    }
  }

  /** Shows a text with some of its places marked: {start, end}, in UTF-16 code units. */
  mark(text, places) {
    const pieces = [];
    this.#shown = [];
    this.element.replaceChildren(...blocksOf(text).map((block) => render(block, pieces)));
    const backwards = [...places].sort((a, b) => b.start - a.start); // each cuts off what follows
    for (const piece of pieces.filter(({ node }) => node))
      for (const { start, end } of backwards)
        if (piece.from < end && start < piece.to) underline(piece, start, end);
  }
}

/** A single line of Markdown, such as an option of a question. */
export function inLine(text) {
  const element = make("span", { class: "said" });
  fill(element, [{ text: text.replace(/\s+/g, " "), at: 0 }], []);
  return element;
}

function render(block, pieces) {
  const inside = (blocks) => blocks.map((one) => render(one, pieces));
  const written = (tag, lines, attributes) => {
    const element = make(tag, attributes);
    fill(element, lines, pieces);
    return element;
  };
  switch (block.kind) {
    case "code":
      return codeBlock(block.code, block.language);
    case "formula": {
      const node = make("div", { class: "formula display" }, formula(block.tex, true));
      pieces.push({ node, from: block.from, to: block.to, exact: false });
      return node;
    }
    case "heading":
      return written(`h${Math.min(block.level + 2, 6)}`, block.lines);
    case "rule":
      return make("hr");
    case "quote":
      return make("blockquote", {}, ...inside(block.blocks));
    case "list": {
      const items = block.items.map((item) => make("li", {}, ...inside(item)));
      return block.ordered
        ? make("ol", { start: block.start === 1 ? null : block.start }, ...items)
        : make("ul", {}, ...items);
    }
    case "table":
      return table(block, written);
    default:
      return written("p", block.lines);
  }
}

function table({ head, aligned, rows }, written) {
  const row = (cells, tag) =>
    make("tr", {}, ...cells.map((cell, n) => written(tag, [cell], { class: aligned[n] })));
  return make(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": "Table" },
    make(
      "table",
      {},
      make("thead", {}, row(head, "th")),
      make("tbody", {}, ...rows.map((cells) => row(cells, "td"))),
    ),
  );
}

function underline(piece, start, end) {
  const wrap = make("mark", { class: "wrong", title: "This equation does not hold" });
  let { node } = piece;
  if (!node.parentNode || node.parentNode.closest?.("mark.wrong")) return;
  if (piece.exact) {
    const from = Math.max(start - piece.from, 0);
    const to = Math.min(end, piece.to) - piece.from;
    if (to < node.length) node.splitText(to);
    if (from > 0) node = node.splitText(from);
  }
  if (node.nodeName === "DIV") {
    node.classList.add("wrong");
  } else {
    node.replaceWith(wrap);
    wrap.append(node);
  }
}
