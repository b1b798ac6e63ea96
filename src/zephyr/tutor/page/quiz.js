/** Quiz: a question with options, answered by the student and by a model. */

import { Answer } from "./answer.js";
import { call, stream } from "./api.js";
import { announce, button, empty, icon, make, newId } from "./dom.js";
import { inLine, Markdown } from "./markdown.js";
import { currentModel, modelChoice } from "./models.js";
import { withSession } from "./session.js";
import { trouble } from "./trouble.js";

export class Quiz {
  #running = null;
  #begun = false;

  constructor(config) {
    this.config = config;
    this.body = make("div", { class: "quiz-body" });
    this.panel = make(
      "section",
      { class: "quiz" },
      make("div", { class: "bar" }, modelChoice(config.models, "Answers with you")),
      this.body,
    );
  }

  /** Fetches the first question as soon as the quiz is seen. */
  show() {
    if (!this.#begun) this.#next();
    this.#begun = true;
  }

  stop() {
    this.#running?.abort();
  }

  async #next() {
    this.stop();
    this.body.replaceChildren(
      make("p", { class: "waiting", role: "status" }, "Fetching a question…"),
    );
    let quiz;
    try {
      quiz = await withSession((session) => call(`tutor/quiz?session=${session}`));
    } catch (failure) {
      const words = "You have answered everything there is; ask the tutor about what was hard.";
      this.body.replaceChildren(
        failure.code === "no_more_quizzes"
          ? empty("That was the last question.", words)
          : trouble(failure, () => this.#next()),
      );
      return;
    }
    this.#show(quiz);
  }

  #show(quiz) {
    const id = newId("quiz");
    const question = make("div", { class: "said quiz-question", id, tabindex: -1 });
    new Markdown(question).show(quiz.question);
    const options = quiz.options.map((option, n) =>
      make(
        "label",
        { class: "option" },
        make("input", { type: "radio", name: id, value: n }),
        make("span", { class: "letter", "aria-hidden": "true" }, String.fromCharCode(65 + n)),
        make("span", { class: "option-said" }, inLine(option)),
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
        const said = await withSession((session) =>
          call("tutor/quiz", {
            method: "POST",
            body: { session, quiz: quiz.quiz, chosen, model },
          }),
        );
        choices.disabled = true;
        send.remove();
        this.#judge(quiz, said, chosen, options, after);
      } catch (failure) {
        send.disabled = false;
        const done = failure.code === "already_answered"; // perhaps in another tab
        const again = () => (done ? this.#next() : form.requestSubmit());
        after.replaceChildren(trouble(failure, again));
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

  #judge(quiz, said, chosen, options, after) {
    const { model } = said;
    options.forEach((option, n) => {
      const right = n === said.answer;
      option.classList.toggle("right", right);
      option.classList.toggle("mistaken", n === chosen && !right);
      const tags = [
        right && "right answer",
        n === chosen && "your choice",
        n === model.chosen && `${model.id}’s choice`,
      ].filter(Boolean);
      const share = model.probabilities?.[n];
      const known = Number.isFinite(share);
      const bar = make("span", { class: "share", "aria-hidden": "true" });
      bar.style.setProperty("--share", known ? share : 0);
      option.append(
        make("span", { class: "tags" }, ...tags.map((tag) => make("span", { class: "tag" }, tag))),
      );
      if (known)
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
    const letter = String.fromCharCode(65 + said.answer);
    const verdict = said.right ? "Right." : `Not quite: ${letter} is right.`;
    const theirs =
      model.chosen === said.answer
        ? `was right${said.right ? ", too" : ""}`
        : `chose ${String.fromCharCode(65 + model.chosen)}, which is wrong`;
    after.append(
      make(
        "p",
        { class: said.right ? "judged right" : "judged mistaken" },
        icon(said.right ? "done" : "remove"),
        make(
          "span",
          {},
          make("strong", {}, verdict),
          ` ${model.id} ${theirs}. `,
          make("span", { class: "soft" }, "The bars show how likely it found each option."),
        ),
      ),
    );
    const place = make("div");
    const further = async () => {
      await this.#next();
      this.body.querySelector(".quiz-question")?.focus();
    };
    const next = button("main", further, "Next question");
    after.append(place, next);
    announce(verdict);
    next.focus({ preventScroll: true });
    this.#explain(quiz, model.id, place);
  }

  async #explain(quiz, model, place) {
    const answer = new Answer(`${model} explains`);
    const running = (this.#running = new AbortController());
    place.replaceChildren(answer.element);
    let ended = null;
    let marks = [];
    try {
      await withSession(async (session) => {
        const body = { session, quiz: quiz.quiz, model };
        for await (const event of stream("tutor/explain", body, running.signal)) {
          if (event.text) answer.add(event.text);
          ended = event.ended ?? ended;
          marks = event.marks ?? marks;
        }
      });
    } catch (failure) {
      if (running.signal.aborted) answer.end("stopped");
      else answer.fail(failure, () => this.#explain(quiz, model, place));
      return;
    }
    answer.end(ended);
    answer.mark(marks);
  }
}

const percent = (share) => `${Math.round(share * 100)} %`;
