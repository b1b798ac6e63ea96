/** Formulas by KaTeX, which trusts no command that reaches out of its formula. */

import "./vendor/katex/katex.min.js";

const { katex } = globalThis;
const OPTIONS = {
  trust: false,
  throwOnError: false,
  errorColor: "var(--bad)",
  strict: false,
  maxSize: 10,
  maxExpand: 200,
};

/** A formula as nodes; what KaTeX can't read is shown as it was written. */
export function formula(tex, displayMode) {
  try {
    const tree = katex.__renderToDomTree(tex, { ...OPTIONS, displayMode });
    renameAttribute(tree, "style", "data-style");
    const node = tree.toNode();
    for (const one of [node, ...node.querySelectorAll("[data-style]")]) {
      if (one.dataset.style) one.style.cssText = one.dataset.style;
      delete one.dataset.style;
    }
    return node;
  } catch {
    return document.createTextNode(tex);
  }
}

/** The page's policy refuses attributes of style, of which KaTeX sets a few, not properties. */
function renameAttribute(tree, from, to) {
  if (tree.attributes?.[from]) {
    tree.attributes[to] = tree.attributes[from];
    delete tree.attributes[from];
  }
  for (const child of tree.children ?? []) renameAttribute(child, from, to);
}
