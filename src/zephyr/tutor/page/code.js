/** Code blocks with syntax highlighting by highlight.js, whose token tree becomes spans. */

import { button, icon, make } from "./dom.js";
import hljs from "./vendor/highlight/highlight.min.js";

/** A block of code with the name of its language and a button that copies it. */
export function codeBlock(code, language) {
  const body = make("code", {}, highlight(code, language));
  const label = language ? `Code in ${language}` : "Code";
  return make(
    "div",
    { class: "code" },
    make(
      "div",
      { class: "code-head" },
      make("span", {}, language),
      copyButton(() => code),
    ),
    make("pre", { tabindex: 0, role: "region", "aria-label": label }, body),
  );
}

/** A button that copies the text that `getText` returns, and confirms it for two seconds. */
export function copyButton(getText) {
  const label = make("span", {}, "Copy");
  const element = button("quiet", onClick, icon("copy"), label);
  const show = (text, iconName) => {
    label.textContent = text;
    element.firstChild.replaceWith(icon(iconName));
  };
  let timeout;

  async function onClick() {
    if (await copyText(getText())) show("Copied", "done");
    else show("Not copied", "copy");
    clearTimeout(timeout);
    timeout = setTimeout(() => show("Copy", "copy"), 2000);
  }

  return element;
}

function highlight(code, language) {
  if (!hljs.getLanguage(language)) return code;
  const { _emitter } = hljs.highlight(code, { language, ignoreIllegals: true });
  return spans(_emitter.rootNode);
}

function spans(token) {
  if (typeof token === "string") return token;
  const children = token.children.map(spans);
  if (!token.scope || token.scope.startsWith("language:")) {
    const fragment = document.createDocumentFragment();
    fragment.append(...children);
    return fragment;
  }
  const [first, ...rest] = token.scope.split(".");
  const classes = [`hljs-${first}`, ...rest.map((part, n) => part + "_".repeat(n + 1))];
  return make("span", { class: classes.join(" ") }, ...children);
}

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text); // a page without TLS has no clipboard
  }
}

function copyBySelection(text) {
  const focused = document.activeElement;
  const area = make("textarea", { class: "unseen", readonly: true });
  area.value = text;
  (focused?.closest("dialog") ?? document.body).append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  focused?.focus();
  return copied;
}
