/** The Quiz tab: a multiple-choice question, answered by the student and by a model. */

import { Answer } from "./answer.js";
import { call, stream } from "./api.js";
import { announce, button, emptyState, icon, make, uniqueId } from "./dom.js";
import { inlineMarkdown, Markdown } from "./markdown.js";
import { currentModel, modelSelect } from "./models.js";
import { errorNotice } from "./notice.js";
import { withSession } from "./session.js";

export class Quiz {
  #request = null;
  #loaded = false;

  constructor(config) {
    this.config = config;
    this.body = make("div", { class: "quiz-body" });
    this.panel = make(
      "section",
      { class: "quiz" },
      make("div", { class: "bar" }, modelSelect(config.models, "Answers with you")),
      this.body,
    );
  }

  /** Fetches the first question when the tab is first shown. */
  show() {
    if (!this.#loaded) this.#next();
    this.#loaded = true;
  }

  stop() {
    this.#request?.abort();
  }

  async #next() {
    this.stop();
    this.body.replaceChildren(
      make("p", { class: "waiting", role: "status" }, "Fetching a question…"),
    );
    let quiz;
    try {
      quiz = await withSession((session) => call(`tutor/quiz?session=${session}`));
    } catch (error) {
      const words = "You have answered everything there is; ask the tutor about what was hard.";
      this.body.replaceChildren(
        error.code === "no_more_quizzes"
          ? emptyState("That was the last question.", words)
          : errorNotice(error, () => this.#next()),
      );
      return;
    }
    this.#show(quiz);
  }

  #show(quiz) {
    const id = uniqueId("quiz");
    const question = make("div", { class: "said quiz-question", id, tabindex: -1 });
    new Markdown(question).show(quiz.question);
    const options = quiz.options.map((option, n) =>
      make(
        "label",
        { class: "option" },
        make("input", { type: "radio", name: id, value: n }),
        make("span", { class: "letter", "aria-hidden": "true" }, String.fromCharCode(65 + n)),
        make("span", { class: "option-said" }, inlineMarkdown(option)),
      ),
    );
    const send = make("button", { type: "submit", class: "main", disabled: true }, "Answer");
    const choices = make("fieldset", { "aria-labelledby": id }, ...options);
    const form = make("form", {}, choices, send);
    const after = make("div", { class: "after" });
    form.addEventListener("change", () => (send.disabled = false));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const chosen = Number(new FormData(form).get(id));
      const model = currentModel(this.config.models);
      after.replaceChildren();
      send.disabled = true;
      try {
        const result = await withSession((session) =>
          call("tutor/quiz", {
            method: "POST",
            body: { session, quiz: quiz.quiz, chosen, model },
          }),
        );
        choices.disabled = true;
        send.remove();
        this.#showResult(quiz, result, chosen, options, after);
      } catch (error) {
        send.disabled = false;
        const done = error.code === "already_answered"; // perhaps in another tab
        const retry = () => (done ? this.#next() : form.requestSubmit());
        after.replaceChildren(errorNotice(error, retry));
      }
    });
    const place = quiz.number && quiz.of ? `Question ${quiz.number} of ${quiz.of}` : "Question";
    this.body.replaceChildren(
      make("p", { class: "kicker" }, [quiz.subject, place].filter(Boolean).join(" · ")),
      question,
      form,
      after,
    );
  }

  #showResult(quiz, result, chosen, options, after) {
    const { model } = result;
    options.forEach((option, n) => {
      const right = n === result.answer;
      option.classList.toggle("right", right);
      option.classList.toggle("mistaken", n === chosen && !right);
      const tags = [
        right && "right answer",
        n === chosen && "your choice",
        n === model.chosen && `${model.id}’s choice`,
      ].filter(Boolean);
      const share = model.probabilities?.[n];
      const isKnown = Number.isFinite(share);
      const bar = make("span", { class: "share", "aria-hidden": "true" });
      bar.style.setProperty("--share", isKnown ? share : 0);
      option.append(
        make("span", { class: "tags" }, ...tags.map((tag) => make("span", { class: "tag" }, tag))),
      );
      if (isKnown)
        option.append(
          make(
            "span",
            { class: "shares" },
            bar,
            make(
              "span",
              { class: "percent" },
              make("span", { class: "unseen" }, `${model.id} gives it `),
              percent(share),
            ),
          ),
        );
    });
    const letter = String.fromCharCode(65 + result.answer);
    const verdict = result.right ? "Right." : `Not quite: ${letter} is right.`;
    const modelVerdict =
      model.chosen === result.answer
        ? `was right${result.right ? ", too" : ""}`
        : `chose ${String.fromCharCode(65 + model.chosen)}, which is wrong`;
    after.append(
      make(
        "p",
        { class: result.right ? "judged right" : "judged mistaken" },
        icon(result.right ? "done" : "remove"),
        make(
          "span",
          {},
          make("strong", {}, verdict),
          ` ${model.id} ${modelVerdict}. `,
          make("span", { class: "soft" }, "The bars show how likely it found each option."),
        ),
      ),
    );
    const place = make("div");
    const onNext = async () => {
      await this.#next();
      this.body.querySelector(".quiz-question")?.focus();
    };
    const next = button("main", onNext, "Next question");
    after.append(place, next);
    announce(verdict);
    next.focus({ preventScroll: true });
    this.#explain(quiz, model.id, place);
  }

  async #explain(quiz, model, place) {
    const answer = new Answer(`${model} explains`);
    const request = (this.#request = new AbortController());
    place.replaceChildren(answer.element);
    let ended = null;
    let marks = [];
    try {
      await withSession(async (session) => {
        const body = { session, quiz: quiz.quiz, model };
        for await (const event of stream("tutor/explain", body, request.signal)) {
          if (event.text) answer.add(event.text);
          ended = event.ended ?? ended;
          marks = event.marks ?? marks;
        }
      });
    } catch (error) {
      if (request.signal.aborted) answer.end("stopped");
      else answer.fail(error, () => this.#explain(quiz, model, place));
      return;
    }
    answer.end(ended);
    answer.mark(marks);
  }
}

const percent = (share) => `${Math.round(share * 100)} %`;
