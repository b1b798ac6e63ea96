/** Compare: one question, two answers without names, and a vote. */

import { Answer, questionBubble } from "./answer.js";
import { call, stream } from "./api.js";
import { Composer } from "./composer.js";
import { announce, button, empty, make, newId } from "./dom.js";
import { withSession } from "./session.js";
import { trouble } from "./trouble.js";

const CRITERIA = {
  correctness: "Correctness",
  relevance: "Relevance",
  clarity: "Clarity",
  completeness: "Completeness",
};
const OVERALL = { A: "A is better", AB: "They are equal", B: "B is better" };
const SHORT = { A: "A", AB: "Equal", B: "B" };

export class Compare {
  #running = null;

  constructor(config) {
    this.composer = new Composer({
      label: "A question for both",
      hint: "Ask both…",
      limit: config.limits.message,
      send: (question) => this.#ask(question),
      stop: () => this.stop(),
    });
    this.body = make("div", { class: "comparison" });
    this.panel = make("section", { class: "compare" }, this.body, this.composer.element);
    this.#clear();
  }

  focus() {
    this.composer.focus();
  }

  stop() {
    this.#running?.abort();
  }

  #clear() {
    this.composer.element.hidden = false;
    const words =
      "Ask a question, read both answers, and say which one helps you more; " +
      "only then do you see who wrote them.";
    this.body.replaceChildren(empty("Which answer is better?", words));
  }

  async #ask(question) {
    const answers = { A: new Answer("A"), B: new Answer("B") };
    const foot = make("div", { class: "verdict" });
    const running = (this.#running = new AbortController());
    this.body.replaceChildren(
      questionBubble(question),
      make("div", { class: "sides" }, answers.A.element, answers.B.element),
      foot,
    );
    this.composer.busy = true;
    let comparison = null;
    const ended = {};
    try {
      await withSession(async (session) => {
        const body = { session, messages: [{ role: "user", content: question }] };
        for await (const event of stream("tutor/compare", body, running.signal)) {
          if (event.text) answers[event.side].add(event.text);
          if (event.ended) answers[event.side].end((ended[event.side] = event.ended));
          comparison = event.comparison ?? comparison;
        }
      });
    } catch (failure) {
      for (const [side, answer] of Object.entries(answers))
        if (!ended[side]) answer.end(running.signal.aborted ? "stopped" : "broken");
      const what = running.signal.aborted
        ? new Error("You stopped before both answers were complete.")
        : failure;
      foot.append(trouble(what, () => this.#ask(question)));
      return;
    } finally {
      if (this.#running === running) this.#running = null;
      this.composer.busy = false;
    }
    announce("Both answers are complete. You can vote now.");
    for (const answer of Object.values(answers)) answer.offerCopy();
    foot.append(this.#ballot(comparison, answers, foot));
    this.composer.element.hidden = true;
  }

  #another(kind, words) {
    const clear = () => {
      this.#clear();
      this.focus();
    };
    return button(kind, clear, words);
  }

  #ballot(comparison, answers, foot) {
    const other = make("input", {
      type: "text",
      id: newId("other"),
      maxlength: 500,
      autocomplete: "off",
    });
    const send = make("button", { type: "submit", class: "main", disabled: true }, "Send the vote");
    const form = make(
      "form",
      { class: "ballot" },
      radios("overall", "Which answer helps you more?", OVERALL, "overall"),
      make(
        "details",
        {},
        make("summary", {}, "Say more, if you like"),
        make(
          "div",
          { class: "criteria" },
          ...Object.entries(CRITERIA).map(([key, words]) => radios(key, words, SHORT, "criterion")),
        ),
        make("label", { for: other.id }, "Anything else"),
        other,
      ),
      make("div", { class: "buttons" }, this.#another("plain", "Skip this one"), send),
    );
    form.addEventListener("change", () => (send.disabled = !new FormData(form).get("overall")));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const said = Object.fromEntries(new FormData(form));
      const { overall, ...criteria } = said;
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
        this.#reveal(models, overall, answers, foot);
      } catch (failure) {
        send.disabled = false;
        form.append(trouble(failure, () => form.requestSubmit()));
      }
    });
    return form;
  }

  #reveal(models, overall, answers, foot) {
    for (const [side, answer] of Object.entries(answers)) {
      answer.label.append(make("span", { class: "revealed" }, models[side]));
      if (overall === side) answer.element.classList.add("preferred");
    }
    const words = overall === "AB" ? "You found them equal." : `You preferred ${models[overall]}.`;
    const next = this.#another("main", "Ask another question");
    foot.replaceChildren(
      make(
        "div",
        { class: "thanks" },
        make(
          "p",
          {},
          `Thank you, your vote is stored. ${words}`,
          make("span", { class: "who" }, `A was ${models.A}, B was ${models.B}.`),
        ),
        next,
      ),
    );
    announce(`Your vote is stored. A was ${models.A}, B was ${models.B}.`);
    next.focus();
  }
}

function radios(name, words, choices, kind) {
  return make(
    "fieldset",
    { class: kind },
    make("legend", {}, words),
    make(
      "div",
      { class: "segments" },
      ...Object.entries(choices).map(([value, said]) =>
        make("label", {}, make("input", { type: "radio", name, value }), make("span", {}, said)),
      ),
    ),
  );
}
