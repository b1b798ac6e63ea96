/** An answer on its way: it grows, ends, fails, and has its arithmetic marked. */

import { call } from "./api.js";
import { copyButton } from "./code.js";
import { announce, make, set } from "./dom.js";
import { Markdown } from "./markdown.js";
import { trouble } from "./trouble.js";

const ENDS = {
  length: "The answer reached its longest length and was cut.",
  stopped: "You stopped this answer.",
};

export class Answer {
  text = "";
  #frame = 0;

  /** `name` is what stands above the answer: that of a model, of a step, or A and B. */
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
    set(this.element, "aria-busy", busy ? "true" : null);
  }

  add(text) {
    this.text += text;
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#draw();
    });
  }

  /** `ended` is "stop", "length", "stopped" by the reader, or "broken" by a failure. */
  end(ended) {
    this.#rest();
    following(() => {
      if (ENDS[ended]) this.note(ENDS[ended]);
      else if (ended !== "broken" && !this.text.trim())
        this.note("The model ended without a word.");
    });
    announce(`${this.name}: ${this.body.textContent || "no answer"}`);
  }

  fail(failure, again) {
    this.#rest();
    following(() => this.notes.append(trouble(failure, again)));
  }

  note(words) {
    this.notes.append(make("p", { class: "note" }, words));
  }

  offerCopy() {
    this.actions.append(copyButton(() => this.text));
  }

  /** Marks the equations that don't hold, and names them below the answer. */
  mark(marks) {
    if (!marks?.length) return;
    const wrong = marks.map(({ text }) => make("li", {}, make("code", {}, text)));
    following(() => {
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
          make("ul", {}, ...wrong),
        ),
      );
    });
  }

  #rest() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    this.#draw();
    this.busy = false;
  }

  #draw() {
    following(() => this.markdown.show(this.text));
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

/** Changes the page; a reader who was at its end stays there, and sees what comes. */
export function following(change) {
  const page = document.documentElement;
  const atEnd = page.scrollHeight - page.clientHeight - window.scrollY < 80;
  change();
  if (atEnd) toEnd();
}

/** What a student wrote, as it was written. */
export function questionBubble(text, before = "You asked: ") {
  return make("div", { class: "question" }, make("span", { class: "unseen" }, before), text);
}

export function toEnd() {
  window.scrollTo({ top: document.documentElement.scrollHeight, behavior: "instant" });
}
