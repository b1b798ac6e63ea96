/** The view of one answer: its streamed text, end, errors, copy button and marked equations. */

import { call } from "./api.js";
import { copyButton } from "./code.js";
import { announce, make, setAttribute } from "./dom.js";
import { Markdown } from "./markdown.js";
import { errorNotice } from "./notice.js";

const END_NOTES = {
  length: "The answer reached its longest length and was cut.",
  stopped: "You stopped this answer.",
};

export class Answer {
  text = "";
  #frame = 0;

  /** `name` is the heading: a model, a step of the hints, or A and B. */
  constructor(name) {
    this.name = name;
    this.label = make("h3", { class: "answer-name" }, name);
    this.body = make("div", { class: "said" });
    this.notes = make("div", { class: "notes" });
    this.actions = make("div", { class: "actions" });
    this.element = make(
      "article",
      { class: "answer", "aria-label": name },
      this.label,
      this.body,
      this.notes,
      this.actions,
    );
    this.markdown = new Markdown(this.body);
    this.busy = true;
  }

  set busy(busy) {
    this.element.classList.toggle("busy", busy);
    setAttribute(this.element, "aria-busy", busy ? "true" : null);
  }

  add(text) {
    this.text += text;
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#render();
    });
  }

  /** `ended` is "stop", "length", "stopped" by the reader, or "broken" by a failure. */
  end(ended) {
    this.#finish();
    stickToBottom(() => {
      if (END_NOTES[ended]) this.note(END_NOTES[ended]);
      else if (ended !== "broken" && !this.text.trim())
        this.note("The model ended without a word.");
    });
    announce(`${this.name}: ${this.body.textContent || "no answer"}`);
  }

  fail(error, retry) {
    this.#finish();
    stickToBottom(() => this.notes.append(errorNotice(error, retry)));
  }

  note(text) {
    this.notes.append(make("p", { class: "note" }, text));
  }

  addCopyButton() {
    this.actions.append(copyButton(() => this.text));
  }

  /** Marks the equations that don't hold, and names them below the answer. */
  mark(marks) {
    if (!marks?.length) return;
    const equations = marks.map(({ text }) => make("li", {}, make("code", {}, text)));
    stickToBottom(() => {
      this.markdown.mark(this.text, marks);
      this.notes.append(
        make(
          "div",
          { class: "note marks" },
          make(
            "p",
            {},
            marks.length === 1
              ? "This equation does not hold. Work it out yourself:"
              : "These equations do not hold. Work them out yourself:",
          ),
          make("ul", {}, ...equations),
        ),
      );
    });
  }

  #finish() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    this.#render();
    this.busy = false;
  }

  #render() {
    stickToBottom(() => this.markdown.show(this.text));
  }
}

/** The equations of a text that don't hold; none where the server can't say. */
export async function wrongEquations(text) {
  if (!text.includes("=") && !text.includes("≈")) return [];
  try {
    return (await call("tutor/marks", { method: "POST", body: { text } })).marks;
  } catch {
    return [];
  }
}

/** Changes the page, and keeps a reader who was at its bottom there. */
export function stickToBottom(change) {
  const page = document.documentElement;
  const atBottom = page.scrollHeight - page.clientHeight - window.scrollY < 80;
  change();
  if (atBottom) scrollToBottom();
}

/** A student's question as plain text; `label` is read to screen readers. */
export function questionBubble(text, label = "You asked: ") {
  return make("div", { class: "question" }, make("span", { class: "unseen" }, label), text);
}

export function scrollToBottom() {
  window.scrollTo({ top: document.documentElement.scrollHeight, behavior: "instant" });
}
