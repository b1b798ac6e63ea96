/** Code in colours by highlight.js, whose tree of tokens is turned into spans. */

import { button, icon, make } from "./dom.js";
import hljs from "./vendor/highlight/highlight.min.js";

/** A block of code with the name of its language and a button that copies it. */
export function codeBlock(code, language) {
  const written = make("code", {}, tokens(code, language));
  const name = language ? `Code in ${language}` : "Code";
  return make(
    "div",
    { class: "code" },
    make(
      "div",
      { class: "code-head" },
      make("span", {}, language),
      copyButton(() => code),
    ),
    make("pre", { tabindex: 0, role: "region", "aria-label": name }, written),
  );
}

/** A button that copies what `text` gives, and says for a moment that it has. */
export function copyButton(text) {
  const label = make("span", {}, "Copy");
  const copying = button("quiet", act, icon("copy"), label);
  const say = (words, drawing) => {
    label.textContent = words;
    copying.firstChild.replaceWith(icon(drawing));
  };
  let back;

  async function act() {
    if (await copy(text())) say("Copied", "done");
    else say("Not copied", "copy");
    clearTimeout(back);
    back = setTimeout(() => say("Copy", "copy"), 2000);
  }

  return copying;
}

function tokens(code, language) {
  if (!hljs.getLanguage(language)) return code;
  const { _emitter } = hljs.highlight(code, { language, ignoreIllegals: true });
  return spans(_emitter.rootNode);
}

function spans(token) {
  if (typeof token === "string") return token;
  const inner = token.children.map(spans);
  if (!token.scope || token.scope.startsWith("language:")) {
    const fragment = document.createDocumentFragment();
    fragment.append(...inner);
    return fragment;
  }
  const [first, ...finer] = token.scope.split(".");
  const classes = [`hljs-${first}`, ...finer.map((part, n) => part + "_".repeat(n + 1))];
  return make("span", { class: classes.join(" ") }, ...inner);
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text); // a page without TLS has no clipboard
  }
}

function copyBySelection(text) {
  const before = document.activeElement;
  const area = make("textarea", { class: "unseen", readonly: true });
  area.value = text;
  (before?.closest("dialog") ?? document.body).append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  before?.focus();
  return copied;
}
