/** The syntax of mathematics as rules of markdown-it: `$…$`, `$$…$$`, `\(…\)` and `\[…\]`. */

const CLOSING = { $$: "$$", "\\[": "\\]" };
const MAX_LINES = 100; // of one formula
const DISPLAY = String.raw`\$\$([^]+?)\$\$|\\\[([^]+?)\\\]`;
/** Sums of money are no formulas: no space inside the dollars, no digit after them. */
const INLINE = String.raw`\\\(([^]+?)\\\)|\$(?!\s)((?:\\[^]|[^\\$])+)(?<!\s)\$(?!\d)`;
const FORMULA = new RegExp(`${DISPLAY}|${INLINE}`, "y");

/** Has markdown-it find formulas: tokens `math_block`, `math_display` and `math_inline`. */
export function mathSyntax(markdown) {
  const alt = ["paragraph", "reference", "blockquote", "list"];
  markdown.block.ruler.before("fence", "math_block", mathBlock, { alt });
  markdown.inline.ruler.before("escape", "math_inline", mathInline);
}

/** A formula that has lines to itself, but for a sign of punctuation, which is set with it. */
function mathBlock(state, startLine, endLine, silent) {
  const start = state.bMarks[startLine] + state.tShift[startLine];
  const close = CLOSING[state.src.slice(start, start + 2)];
  if (!close) return false;
  const lines = [];
  for (let line = startLine; line < Math.min(endLine, startLine + MAX_LINES); line += 1) {
    const first = line === startLine;
    if (!first && !state.isEmpty(line) && state.sCount[line] < state.blkIndent) return false;
    const from = first ? start + 2 : state.bMarks[line] + state.tShift[line];
    const text = state.src.slice(from, state.eMarks[line]);
    const end = text.indexOf(close);
    if (end < 0) {
      lines.push(text);
      continue;
    }
    const stop = text.slice(end + 2).trim();
    if (!/^[.,;:]?$/.test(stop)) return false;
    if (!silent) {
      const token = state.push("math_block", "div", 0);
      token.content = [...lines, text.slice(0, end)].join("\n").trim() + stop;
      token.map = [startLine, line + 1];
    }
    state.line = line + 1;
    return true;
  }
  return false;
}

function mathInline(state, silent) {
  FORMULA.lastIndex = state.pos;
  const found = FORMULA.exec(state.src);
  if (!found || FORMULA.lastIndex > state.posMax) return false;
  const [whole, dollars, brackets, parentheses, dollar] = found;
  const display = dollars ?? brackets;
  if (!silent) {
    const token = state.push(display ? "math_display" : "math_inline", "span", 0);
    token.content = (display ?? parentheses ?? dollar).trim();
  }
  state.pos += whole.length;
  return true;
}
