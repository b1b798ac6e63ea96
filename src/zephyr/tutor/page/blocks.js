/**
 * A Markdown text cut into blocks. Each line knows where it stands in the text, also within lists
 * and quotations, so that what is said of a place in the text is found again in the page.
 */

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:\s+(.*?))?(?:\s+#+)?\s*$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+•]|\d{1,9}[.)])( +(?=\S)|\s*$)/;
const COLUMNS = /^\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$/;
const OPENINGS = [
  ["$$", "$$"],
  ["\\[", "\\]"],
];
const DEEPEST = 8;
const LONGEST = 100; // lines of a formula

/** The blocks of a text, each with `from` and `to`, its place in it. */
export function blocksOf(text) {
  let at = 0;
  const lines = text.split("\n").map((line) => {
    const here = { text: line.replace(/\r$/, ""), at };
    at += line.length + 1;
    return here;
  });
  return cut(lines, 0);
}

function cut(lines, depth) {
  const blocks = [];
  let n = 0;
  while (n < lines.length) {
    if (blank(lines[n])) {
      n += 1;
      continue;
    }
    const begin = n;
    const block = takeBlock(lines, n, depth) ?? takeParagraph(lines, n);
    n = block.next;
    const last = lines[n - 1];
    blocks.push({ ...block, from: lines[begin].at, to: last.at + last.text.length });
  }
  return blocks;
}

function takeBlock(lines, n, depth) {
  const { text } = lines[n];
  return (
    takeFence(lines, n) ??
    takeFormula(lines, n) ??
    takeHeading(lines[n], n) ??
    (RULE.test(text) ? { kind: "rule", next: n + 1 } : null) ??
    (depth < DEEPEST ? (takeQuote(lines, n, depth) ?? takeList(lines, n, depth)) : null) ??
    takeTable(lines, n)
  );
}

function takeFence(lines, n) {
  const open = FENCE.exec(lines[n].text);
  if (!open) return null;
  const [, fence, info] = open;
  const indent = lines[n].text.indexOf(fence);
  const closes = new RegExp(`^ {0,3}\\${fence[0]}{${fence.length},}\\s*$`);
  let end = n + 1;
  while (end < lines.length && !closes.test(lines[end].text)) end += 1;
  const code = lines.slice(n + 1, end).map((line) => strip(line, indent).text);
  const language = info
    .trim()
    .split(/\s+/)[0]
    .replace(/[^\w+#.-]/g, "")
    .toLowerCase();
  return { kind: "code", code: code.join("\n"), language, next: Math.min(end + 1, lines.length) };
}

/** A formula that has lines to itself; one within a line is a matter of that line. */
function takeFormula(lines, n) {
  const first = lines[n].text.trimStart();
  const opening = OPENINGS.find(([open]) => first.startsWith(open));
  if (!opening) return null;
  const [open, close] = opening;
  const tex = [];
  for (let end = n; end < Math.min(lines.length, n + LONGEST); end += 1) {
    const text = end === n ? first.slice(open.length) : lines[end].text;
    const found = text.indexOf(close);
    if (found < 0) {
      tex.push(text);
      continue;
    }
    const after = text.slice(found + close.length).trim();
    if (!/^[.,;:]?$/.test(after)) return null;
    tex.push(text.slice(0, found));
    return { kind: "formula", tex: tex.join("\n").trim() + after, next: end + 1 };
  }
  return null;
}

function takeHeading(line, n) {
  const found = HEADING.exec(line.text);
  if (!found) return null;
  const [, marks, words = ""] = found;
  const from = line.text.indexOf(words, line.text.indexOf(marks) + marks.length);
  const inside = { text: words, at: line.at + Math.max(from, 0) };
  return { kind: "heading", level: marks.length, lines: [inside], next: n + 1 };
}

function takeQuote(lines, n, depth) {
  if (!QUOTE.test(lines[n].text)) return null;
  const inside = [];
  let next = n;
  while (next < lines.length && !blank(lines[next])) {
    const mark = QUOTE.exec(lines[next].text);
    if (!mark && interrupts(lines, next)) break;
    inside.push(without(lines[next], mark ? mark[0].length : 0));
    next += 1;
  }
  return { kind: "quote", blocks: cut(inside, depth + 1), next };
}

function takeList(lines, n, depth) {
  const first = ITEM.exec(lines[n].text);
  if (!first) return null;
  const ordered = /\d/.test(first[2]);
  const items = [];
  let next = n;
  for (;;) {
    const mark = next < lines.length ? ITEM.exec(lines[next].text) : null;
    if (!mark || /\d/.test(mark[2]) !== ordered || RULE.test(lines[next].text)) break;
    const width = mark[0].length;
    const inside = [without(lines[next], width)];
    next += 1;
    while (next < lines.length) {
      const line = lines[next];
      const deep = /^ */.exec(line.text)[0].length;
      if (blank(line)) {
        const after = lines.slice(next).find((one) => !blank(one));
        if (!after || /^ */.exec(after.text)[0].length < 2) break;
      } else if (deep < 2) {
        const begins = blank(lines[next - 1]) || ITEM.test(line.text) || interrupts(lines, next);
        if (begins) break;
      }
      inside.push(strip(line, width));
      next += 1;
    }
    items.push(cut(inside, depth + 1));
    let after = next;
    while (after < lines.length && blank(lines[after])) after += 1;
    if (after < lines.length && ITEM.test(lines[after].text)) next = after;
  }
  return { kind: "list", ordered, start: ordered ? parseInt(first[2], 10) : 1, items, next };
}

function takeTable(lines, n) {
  if (!lines[n].text.includes("|") || n + 1 >= lines.length) return null;
  const rule = lines[n + 1].text;
  if (!rule.includes("-") || !COLUMNS.test(rule)) return null;
  const aligned = cells(lines[n + 1]).map(({ text }) => {
    const left = text.startsWith(":");
    return text.endsWith(":") ? (left ? "center" : "right") : "left";
  });
  const head = cells(lines[n]);
  if (head.length !== aligned.length) return null;
  const rows = [];
  let next = n + 2;
  while (next < lines.length && !blank(lines[next]) && lines[next].text.includes("|")) {
    rows.push(cells(lines[next]).slice(0, head.length));
    next += 1;
  }
  return { kind: "table", head, aligned, rows, next };
}

/** The cells of a row; a bar after a backslash, in code or in a formula parts nothing. */
function cells(line) {
  const found = [];
  const parts = /\\.|`[^`]*`|\$[^$|]*\$|\|/g;
  let from = 0;
  for (const { 0: part, index } of line.text.matchAll(parts)) {
    if (part !== "|") continue;
    found.push(trimmed(line, from, index));
    from = index + 1;
  }
  found.push(trimmed(line, from, line.text.length));
  if (found.length > 1 && !found[0].text) found.shift();
  if (found.length > 1 && !found.at(-1).text) found.pop();
  return found;
}

function trimmed(line, from, to) {
  const part = line.text.slice(from, to);
  return { text: part.trim(), at: line.at + from + (part.length - part.trimStart().length) };
}

function takeParagraph(lines, n) {
  const inside = [];
  let next = n;
  while (next < lines.length && !blank(lines[next])) {
    if (next > n && interrupts(lines, next)) break;
    inside.push(trimmed(lines[next], 0, lines[next].text.length));
    next += 1;
  }
  return { kind: "paragraph", lines: inside, next };
}

/** Whether a line begins a block of its own though no blank line stands before it. */
function interrupts(lines, n) {
  const { text } = lines[n];
  const item = ITEM.exec(text);
  return Boolean(
    FENCE.test(text) ||
    HEADING.test(text) ||
    RULE.test(text) ||
    QUOTE.test(text) ||
    (item && text.length > item[0].length && /^(?:\D|1\D)/.test(item[2])) ||
    takeFormula(lines, n) ||
    takeTable(lines, n),
  );
}

const blank = (line) => !line.text.trim();
const without = (line, width) => ({ text: line.text.slice(width), at: line.at + width });

function strip(line, most) {
  const deep = /^ */.exec(line.text)[0].length;
  return without(line, Math.min(deep, most));
}
