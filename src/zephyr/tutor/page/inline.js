/**
 * What stands within lines: emphasis, code, links and formulas, as nodes. A star or underscore
 * between letters or digits is no emphasis, so that 2*3*4 stays what it is.
 */

import { make } from "./dom.js";
import { formula } from "./formula.js";

const WORD = /[\p{L}\p{N}]/u;
const LABEL = String.raw`\[((?:[^\[\]\\]|\\.|\[[^\[\]]*\])*)\]`;
const TITLE = String.raw`(?:\s+["'][^"']*["'])?`;
const TARGET = String.raw`\(\s*<?([^\s()<>]*(?:\([^\s()]*\)[^\s()<>]*)*)>?${TITLE}\s*\)`;
const LINK = new RegExp(`!?${LABEL}${TARGET}`, "sy");
const ADDRESS = /https?:\/\/[^\s<>"'`)\]]+/y;
const ESCAPED = /\\([!-/:-@[-`{-~])/y;
const DEEPEST = 6;

/**
 * Fills `parent` with what the lines say. `pieces` is told where in the whole text each node comes
 * from: {node, from, to, exact}; an exact one is a text node that equals its place by the letter.
 */
export function fill(parent, lines, pieces) {
  const starts = [];
  let length = 0;
  for (const line of lines) {
    starts.push(length);
    length += line.text.length + 1;
  }
  const text = lines.map((line) => line.text).join("\n");
  const place = (position) => {
    let n = starts.length - 1;
    while (starts[n] > position) n -= 1;
    return lines[n].at + position - starts[n];
  };
  new Writer(text, place, pieces).write(parent, 0, text.length, 0);
}

class Writer {
  constructor(text, place, pieces) {
    Object.assign(this, { text, place, pieces, texts: new Map() });
  }

  /** Writes a part of the text. Emphasis that is open stands on `frames`, the outermost first. */
  write(parent, from, to, depth) {
    const frames = [{ nodes: [] }];
    let plain = from;
    let at = from;
    const flush = () => this.join(frames.at(-1).nodes, this.words(plain, at));
    while (at < to) {
      const special = this.special(at, to, depth);
      if (special) {
        flush();
        frames.at(-1).nodes.push(special.node);
        at = plain = special.end;
      } else if (this.text[at] === "*" || this.text[at] === "_") {
        flush();
        let end = at;
        while (end < to && this.text[end] === this.text[at]) end += 1;
        this.emphasis(frames, at, end, from, to);
        at = plain = end;
      } else {
        at += 1;
      }
    }
    flush();
    while (frames.length > 1) this.unfold(frames);
    parent.append(...frames[0].nodes);
  }

  special(at, to, depth) {
    switch (this.text[at]) {
      case "\\":
        return this.bracketed(at, to) ?? this.escaped(at, to);
      case "`":
        return this.code(at, to);
      case "$":
        return this.dollars(at, to);
      case "!":
      case "[":
        return this.link(at, to, depth);
      case "h":
        return this.address(at, to);
      default:
        return null;
    }
  }

  bracketed(at, to) {
    const closing = { "(": "\\)", "[": "\\]" }[this.text[at + 1]];
    const end = closing ? this.text.indexOf(closing, at + 2) : -1;
    if (end < 0 || end + 2 > to) return null;
    return this.formula(at, at + 2, end, end + 2, this.text[at + 1] === "[");
  }

  dollars(at, to) {
    if (this.text[at + 1] === "$") {
      const end = this.text.indexOf("$$", at + 2);
      return end < 0 || end + 2 > to ? null : this.formula(at, at + 2, end, end + 2, true);
    }
    if (/\s/.test(this.text[at + 1] ?? " ")) return null;
    for (let end = at + 1; end < to; end += 1) {
      if (this.text[end] === "\\") end += 1;
      else if (this.text[end] === "$") {
        const money = /\s/.test(this.text[end - 1]) || /\d/.test(this.text[end + 1] ?? "");
        return money ? null : this.formula(at, at + 1, end, end + 1, false);
      }
    }
    return null;
  }

  formula(from, inner, innerEnd, end, display) {
    const kind = display ? "formula display" : "formula";
    const tex = this.text.slice(inner, innerEnd).trim();
    const node = make("span", { class: kind }, formula(tex, display));
    const found = this.piece(node, from, end, false);
    const stop = /^[.,;:!?)\]]+/.exec(this.text.slice(end, end + 4))?.[0];
    if (display || !stop) return found;
    const words = this.words(end, end + stop.length); // no line begins with a full stop
    return { node: make("span", { class: "together" }, node, ...words), end: end + stop.length };
  }

  code(at, to) {
    let open = at;
    while (this.text[open] === "`") open += 1;
    const fence = this.text.slice(at, open);
    for (let end = open; (end = this.text.indexOf(fence, end)) >= 0 && end + fence.length <= to;) {
      let after = end;
      while (this.text[after] === "`") after += 1;
      if (after - end === fence.length) {
        const node = make("code");
        node.append(...this.words(open, end));
        return { node, end: after };
      }
      end = after;
    }
    return { node: this.piece(document.createTextNode(fence), at, open, true).node, end: open };
  }

  link(at, to, depth) {
    LINK.lastIndex = at;
    const found = depth < DEEPEST ? LINK.exec(this.text) : null;
    if (!found || LINK.lastIndex > to) return null;
    const [whole, label, target] = found;
    const href = webAddress(target);
    if (!href) return null;
    const inner = at + whole.indexOf("[") + 1;
    const node = anchor(href);
    if (label) this.write(node, inner, inner + label.length, depth + 1);
    else node.append(href);
    return { node, end: at + whole.length };
  }

  address(at, to) {
    ADDRESS.lastIndex = at;
    const found = ADDRESS.exec(this.text)?.[0].replace(/[.,;:!?*_]+$/, "");
    const href = found && at + found.length <= to ? webAddress(found) : null;
    if (!href) return null;
    const node = anchor(href);
    node.append(...this.words(at, at + found.length));
    return { node, end: at + found.length };
  }

  escaped(at, to) {
    ESCAPED.lastIndex = at;
    const found = at + 2 <= to ? ESCAPED.exec(this.text) : null;
    return found && this.piece(document.createTextNode(found[1]), at, at + 2, false);
  }

  /** A run of stars or underscores: closes what is open, or opens, or is itself. */
  emphasis(frames, at, end, from, to) {
    const sign = this.text[at];
    const before = at > from ? this.text[at - 1] : " ";
    const after = end < to ? this.text[end] : " ";
    let left = end - at;
    const tight = sign === "_" || left === 1;
    const closes = !/\s/.test(before) && !(tight && WORD.test(after));
    const opens = !/\s/.test(after) && !(tight && WORD.test(before));
    while (closes && left) {
      const open = frames.findLastIndex((one) => one.sign === sign && one.size <= left);
      if (open < 1) break;
      while (frames.length > open + 1) this.unfold(frames);
      const { size, nodes } = frames.pop();
      let node = make(size === 2 ? "strong" : "em", {}, ...nodes);
      if (size === 3) node = make("strong", {}, node);
      frames.at(-1).nodes.push(node);
      left -= size;
    }
    if (opens && left && left <= 3 && frames.length < 20) {
      frames.push({ sign, size: left, at: end - left, nodes: [] });
    } else if (left) {
      this.join(frames.at(-1).nodes, this.words(end - left, end));
    }
  }

  /** Emphasis that was never closed is the signs it was written with. */
  unfold(frames) {
    const { at, size, nodes } = frames.pop();
    this.join(frames.at(-1).nodes, [...this.words(at, at + size), ...nodes]);
  }

  /** Appends nodes to others; texts that meet become one. */
  join(nodes, more) {
    for (const node of more) {
      const [before, after] = [this.texts.get(nodes.at(-1)), this.texts.get(node)];
      if (before && after && before.to === after.from) {
        before.node.data += node.data;
        before.to = after.to;
        after.node = null;
      } else {
        nodes.push(node);
      }
    }
  }

  /** Text as it stands; a line that was ended is ended in the page. */
  words(from, to) {
    const nodes = [];
    for (let at = from; at < to;) {
      if (this.text[at] === "\n") {
        nodes.push(document.createElement("br"));
        at += 1;
        continue;
      }
      const found = this.text.indexOf("\n", at);
      const end = found < 0 || found > to ? to : found;
      const node = document.createTextNode(this.text.slice(at, end));
      nodes.push(this.piece(node, at, end, true).node);
      at = end;
    }
    return nodes;
  }

  piece(node, from, end, exact) {
    const first = this.place(from);
    const piece = { node, from: first, to: this.place(end - 1) + 1, exact };
    if (exact) this.texts.set(node, piece);
    this.pieces.push(piece);
    return { node, end };
  }
}

function webAddress(target) {
  try {
    const { protocol, href } = new URL(target);
    return protocol === "https:" || protocol === "http:" ? href : null;
  } catch {
    return null;
  }
}

function anchor(href) {
  return make("a", { href, target: "_blank", rel: "noopener noreferrer nofollow" });
}
