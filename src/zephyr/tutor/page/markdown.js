/**
 * Markdown by markdown-it, whose tokens become nodes. Switched off are HTML, entities, indented
 * code, setext headings and link reference definitions: models seldom mean them, and a text that
 * is still being written would change its shape by them.
 */

import { codeBlock } from "./code.js";
import { make } from "./dom.js";
import { formula } from "./formula.js";
import { mathSyntax } from "./math.js";
import "./vendor/markdown-it/markdown-it.umd.min.js";

/** Noncharacters of Unicode, put around what is to be marked before the text is parsed. */
const [START, END] = ["\ufdd0", "\ufdd1"];
const SENTINELS = /[\ufdd0\ufdd1]/g;
const PUNCTUATION = /^[.,;:!?)\]\ufdd0\ufdd1]{1,4}/;

const parser = globalThis
  .markdownit({ html: false, breaks: true, linkify: true })
  .disable(["code", "entity", "lheading", "reference", "strikethrough"])
  .use(mathSyntax);
const { normalizeLink } = parser;
parser.linkify.set({ fuzzyLink: false, fuzzyEmail: false });
parser.validateLink = (url) => /^https?:\/\//i.test(url);
parser.normalizeLink = (url) => normalizeLink(url.replace(SENTINELS, ""));
parser.normalizeLinkText = (url) => url;
parser.inline.State = class extends parser.inline.State {
  /** A single star between letters or digits is a product, as in 2*3*4, and no emphasis. */
  scanDelims(start, canSplitWord) {
    return super.scanDelims(start, canSplitWord && this.src[start + 1] === this.src[start]);
  }
};

/** Shows a text in an element, and again as it grows: only blocks that changed are made anew. */
export class Markdown {
  #shown = [];

  constructor(element) {
    this.element = element;
  }

  show(text) {
    const blocks = blocksOf(text.replace(SENTINELS, "\ufffd"));
    let same = 0;
    while (same < blocks.length && this.#shown[same]?.source === blocks[same].source) same += 1;
    for (const { node } of this.#shown.splice(same)) node.remove();
    for (const { tokens, source } of blocks.slice(same)) {
      const node = render(tokens).firstChild;
      this.element.append(node);
      this.#shown.push({ source, node });
    }
  }

  /** Shows a text with some of its places marked: {start, end}, in UTF-16 code units. */
  mark(text, places) {
    this.#shown = [];
    const blocks = blocksOf(withSentinels(text.replace(SENTINELS, "\ufffd"), places));
    this.element.replaceChildren(...blocks.map(({ tokens }) => render(tokens)));
  }
}

/** A single line of Markdown, such as an option of a question. */
export function inlineMarkdown(text) {
  const line = text.replace(SENTINELS, "\ufffd").replace(/\s+/g, " ");
  return make("span", { class: "said" }, render(parser.parseInline(line, {})));
}

/** The tokens of each block of a text, with the lines that it was parsed from. */
function blocksOf(text) {
  const lines = text.split(/\r\n?|\n/);
  const blocks = [];
  let tokens = [];
  for (const token of parser.parse(text, {})) {
    tokens.push(token);
    if (token.level > 0 || token.nesting === 1) continue;
    blocks.push({ tokens, source: lines.slice(...tokens[0].map).join("\n") });
    tokens = [];
  }
  return blocks;
}

/** Places that begin or end in the delimiters of a formula begin and end inside it. */
function withSentinels(text, places) {
  const sentinels = places.flatMap(({ start, end }) => {
    for (const { index } of text.matchAll(/\$\$|\\[()]/g)) {
      if (index <= start && start < index + 2) start = index + 2;
      if (index < end && end <= index + 2) end = index;
    }
    return [
      [start, START],
      [end, END],
    ];
  });
  for (const [at, sentinel] of sentinels.sort(([a], [b]) => b - a))
    text = text.slice(0, at) + sentinel + text.slice(at);
  return text;
}

const render = (tokens) => new Renderer().render(tokens);

class Renderer {
  #marks = 0; // how many marked places are open

  render(tokens) {
    const fragment = document.createDocumentFragment();
    const open = [fragment];
    tokens.forEach((token, n) => {
      if (token.nesting < 0) {
        open.pop();
        return;
      }
      const node = this.#node(token, tokens[n + 1]);
      open.at(-1).append(token.type === "table_open" ? scrollable(node) : node);
      if (token.nesting > 0) open.push(node);
    });
    return fragment;
  }

  #node(token, next) {
    const { type, tag, content, children } = token;
    switch (type) {
      case "inline":
        return this.render(children);
      case "text":
        return this.#text(content);
      case "code_inline":
        return make(tag, {}, this.#text(content));
      case "heading_open":
        return make(`h${Math.min(Number(tag[1]) + 2, 6)}`);
      case "ordered_list_open":
        return make(tag, { start: token.attrGet("start") });
      case "th_open":
      case "td_open":
        return make(tag, { class: token.attrGet("style")?.replace("text-align:", "") });
      case "link_open":
        return link(token.attrGet("href"), next.type === "link_close");
      case "image": {
        const node = link(token.attrGet("src"), !content); // what is elsewhere is not fetched
        node.append(this.render(children));
        return node;
      }
      case "fence":
        return fence(token);
      case "math_block":
      case "math_display":
      case "math_inline":
        return this.#formula(token, next);
      default:
        return make(tag);
    }
  }

  #text(content) {
    const fragment = document.createDocumentFragment();
    for (const part of content.split(/([\ufdd0\ufdd1])/)) {
      if (part === START) this.#marks += 1;
      else if (part === END) this.#marks -= 1;
      else if (part) fragment.append(this.#marks > 0 ? mark(part) : part);
    }
    return fragment;
  }

  #formula({ type, tag, content }, next) {
    const inline = type === "math_inline";
    const wrong = this.#marks > 0 || content.includes(START);
    this.#text(content); // counts its sentinels
    const tex = content.replace(SENTINELS, "");
    const kind = inline ? "formula" : "formula display";
    let node = make(tag, { class: kind }, formula(tex, !inline));
    if (wrong && type === "math_block") node.classList.add("wrong");
    else if (wrong) node = mark(node);
    const stop = inline && next?.type === "text" && PUNCTUATION.exec(next.content)?.[0];
    if (!stop) return node;
    next.content = next.content.slice(stop.length); // no line begins with a full stop
    return make("span", { class: "together" }, node, this.#text(stop));
  }
}

function link(href, bare) {
  const attributes = { href, target: "_blank", rel: "noopener noreferrer nofollow" };
  return make("a", attributes, bare && href);
}

function fence({ info, content }) {
  const language = info
    .trim()
    .split(/\s+/)[0]
    .replace(/[^\w+#.-]/g, "")
    .toLowerCase();
  return codeBlock(content.replace(SENTINELS, "").replace(/\n$/, ""), language);
}

function scrollable(table) {
  const attributes = { class: "scroll", tabindex: 0, role: "region", "aria-label": "Table" };
  return make("div", attributes, table);
}

function mark(node) {
  return make("mark", { class: "wrong", title: "This equation does not hold" }, node);
}
