/** The Compare tab: two anonymous answers to one question, and a vote. */

import { Answer, questionBubble } from "./answer.js";
import { call, stream } from "./api.js";
import { Composer } from "./composer.js";
import { announce, button, emptyState, make, uniqueId } from "./dom.js";
import { errorNotice } from "./notice.js";
import { withSession } from "./session.js";

const CRITERIA = {
  correctness: "Correctness",
  relevance: "Relevance",
  clarity: "Clarity",
  completeness: "Completeness",
};
const OVERALL = { A: "A is better", AB: "They are equal", B: "B is better" };
const SIDES = { A: "A", AB: "Equal", B: "B" };

export class Compare {
  #request = null;

  constructor(config) {
    this.composer = new Composer({
      label: "A question for both",
      placeholder: "Ask both…",
      limit: config.limits.message,
      send: (question) => this.#ask(question),
      stop: () => this.stop(),
    });
    this.body = make("div", { class: "comparison" });
    this.panel = make("section", { class: "compare" }, this.body, this.composer.element);
    this.#reset();
  }

  focus() {
    this.composer.focus();
  }

  stop() {
    this.#request?.abort();
  }

  #reset() {
    this.composer.element.hidden = false;
    const words =
      "Ask a question, read both answers, and say which one helps you more; " +
      "only then do you see who wrote them.";
    this.body.replaceChildren(emptyState("Which answer is better?", words));
  }

  async #ask(question) {
    const answers = { A: new Answer("A"), B: new Answer("B") };
    const footer = make("div", { class: "verdict" });
    const request = (this.#request = new AbortController());
    this.body.replaceChildren(
      questionBubble(question),
      make("div", { class: "sides" }, answers.A.element, answers.B.element),
      footer,
    );
    this.composer.busy = true;
    let comparison = null;
    let identical = null;
    const ended = {};
    try {
      await withSession(async (session) => {
        const body = { session, messages: [{ role: "user", content: question }] };
        for await (const event of stream("tutor/compare", body, request.signal)) {
          if (event.text) answers[event.side].add(event.text);
          if (event.ended) answers[event.side].end((ended[event.side] = event.ended));
          comparison = event.comparison ?? comparison;
          if (event.identical) identical = event.models;
        }
      });
    } catch (error) {
      for (const [side, answer] of Object.entries(answers))
        if (!ended[side]) answer.end(request.signal.aborted ? "stopped" : "broken");
      const reason = request.signal.aborted
        ? new Error("You stopped before both answers were complete.")
        : error;
      footer.append(errorNotice(reason, () => this.#ask(question)));
      return;
    } finally {
      if (this.#request === request) this.#request = null;
      this.composer.busy = false;
    }
    for (const answer of Object.values(answers)) answer.addCopyButton();
    if (identical) {
      this.#reveal(identical, "AB", answers, footer, "Both answers are the same: no vote is needed.");
      return;
    }
    announce("Both answers are complete. You can vote now.");
    footer.append(this.#ballot(comparison, answers, footer));
    this.composer.element.hidden = true;
  }

  #restartButton(kind, label) {
    const restart = () => {
      this.#reset();
      this.focus();
    };
    return button(kind, restart, label);
  }

  #ballot(comparison, answers, footer) {
    const other = make("input", {
      type: "text",
      id: uniqueId("other"),
      maxlength: 500,
      autocomplete: "off",
    });
    const send = make("button", { type: "submit", class: "main", disabled: true }, "Send the vote");
    const form = make(
      "form",
      { class: "ballot" },
      radioGroup("overall", "Which answer helps you more?", OVERALL, "overall"),
      make(
        "details",
        {},
        make("summary", {}, "Say more, if you like"),
        make(
          "div",
          { class: "criteria" },
          ...Object.entries(CRITERIA).map(([key, words]) =>
            radioGroup(key, words, SIDES, "criterion"),
          ),
        ),
        make("label", { for: other.id }, "Anything else"),
        other,
      ),
      make("div", { class: "buttons" }, this.#restartButton("plain", "Skip this one"), send),
    );
    form.addEventListener("change", () => (send.disabled = !new FormData(form).get("overall")));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const values = Object.fromEntries(new FormData(form));
      const { overall, ...criteria } = values;
      if (other.value.trim()) criteria.other = other.value.trim();
      form.querySelector(".trouble")?.remove();
      send.disabled = true;
      try {
        const { models } = await withSession((session) =>
          call("tutor/vote", {
            method: "POST",
            body: { session, comparison, overall, criteria },
          }),
        );
        const preferred = overall === "AB" ? "You found them equal." : `You preferred ${models[overall]}.`;
        const words = `Thank you, your vote is stored. ${preferred}`;
        this.#reveal(models, overall, answers, footer, words);
      } catch (error) {
        send.disabled = false;
        form.append(errorNotice(error, () => form.requestSubmit()));
      }
    });
    return form;
  }

  #reveal(models, overall, answers, footer, words) {
    for (const [side, answer] of Object.entries(answers)) {
      answer.label.append(make("span", { class: "revealed" }, models[side]));
      if (overall === side) answer.element.classList.add("preferred");
    }
    const next = this.#restartButton("main", "Ask another question");
    footer.replaceChildren(
      make(
        "div",
        { class: "thanks" },
        make(
          "p",
          {},
          words,
          make("span", { class: "who" }, `A was ${models.A}, B was ${models.B}.`),
        ),
        next,
      ),
    );
    announce(`${words} A was ${models.A}, B was ${models.B}.`);
    next.focus();
  }
}

function radioGroup(name, legend, choices, kind) {
  return make(
    "fieldset",
    { class: kind },
    make("legend", {}, legend),
    make(
      "div",
      { class: "segments" },
      ...Object.entries(choices).map(([value, label]) =>
        make("label", {}, make("input", { type: "radio", name, value }), make("span", {}, label)),
      ),
    ),
  );
}
