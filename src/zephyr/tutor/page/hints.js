/** Hints: a question answered step by step, each a little more than the last. */

import { Answer, following, questionBubble } from "./answer.js";
import { stream } from "./api.js";
import { Composer } from "./composer.js";
import { announce, button, empty, icon, make } from "./dom.js";
import { currentModel, modelChoice } from "./models.js";
import { withSession } from "./session.js";
import { trouble } from "./trouble.js";

export class Hints {
  #running = null;

  constructor(config) {
    this.config = config;
    this.composer = new Composer({
      label: "The problem you are working on",
      hint: "Paste a problem…",
      limit: config.limits.message,
      send: (question) => this.#begin(question),
      stop: () => this.stop(),
      foot: [modelChoice(config.models)],
    });
    this.body = make("div", { class: "ladder" });
    this.panel = make("section", { class: "hints" }, this.body, this.composer.element);
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
    const words = "Paste a problem below; you get a first hint, and more only when you ask for it.";
    const ahead = this.config.hints.map((name) => make("li", {}, name));
    const steps = make("ol", { class: "steps-ahead" }, ...ahead);
    this.body.replaceChildren(empty("Stuck? Take one step at a time.", words, steps));
  }

  #begin(question) {
    this.stop();
    const model = currentModel(this.config.models);
    const steps = make("div", { class: "steps" });
    const foot = make("div", { class: "ladder-foot" });
    this.body.replaceChildren(questionBubble(question, "Your problem: "), steps, foot);
    this.composer.element.hidden = true;
    this.#climb({ question, model, steps, foot, ladder: null, shown: [] });
  }

  /** Asks for the next step. Which one that is, only the server decides. */
  async #climb(state) {
    const { steps, foot } = state;
    const running = (this.#running = new AbortController());
    foot.replaceChildren(button("plain", () => running.abort(), icon("stop"), "Stop"));
    let answer = null;
    let at = null;
    let ended = null;
    let marks = [];
    try {
      await withSession(async (session) => {
        const { ladder, model, question } = state;
        const path = ladder ? `tutor/ladder/${ladder}` : "tutor/ladder";
        const body = ladder ? { session } : { session, model, question };
        for await (const event of stream(path, body, running.signal)) {
          if (event.step !== undefined) {
            at = event;
            state.ladder = event.ladder ?? state.ladder;
            answer = this.#step(state, event);
          }
          if (event.text) answer.add(event.text);
          ended = event.ended ?? ended;
          marks = event.marks ?? marks;
        }
      });
    } catch (failure) {
      if (failure.code === "no_such_ladder") state.ladder = null; // the server has begun anew
      if (failure.code === "ladder_done") {
        this.#finish(foot);
      } else if (running.signal.aborted) {
        answer?.end("stopped");
        foot.replaceChildren(this.#button(state, "Write it again"), this.#another());
      } else {
        answer?.end("broken");
        foot.replaceChildren(
          trouble(failure, () => this.#climb(state)),
          this.#another(),
        );
      }
      return;
    } finally {
      if (this.#running === running) this.#running = null;
    }
    answer.end(ended);
    answer.mark(marks);
    this.#offer(state, at);
  }

  /** The place of a step; the server may give one again that broke off. */
  #step({ steps, shown }, { step, steps: of, name }) {
    const answer = new Answer(name);
    const ticks = Array.from({ length: of }, (_, n) =>
      make("span", { class: n <= step ? "tick on" : "tick" }),
    );
    answer.label.prepend(
      make(
        "span",
        { class: "kicker" },
        `Step ${step + 1} of ${of}`,
        make("span", { class: "ticks", "aria-hidden": "true" }, ...ticks),
      ),
    );
    if (shown[step]) shown[step].replaceWith(answer.element);
    else steps.append(answer.element);
    shown[step] = answer.element;
    return answer;
  }

  #offer(state, { step, steps }) {
    if (step + 1 >= steps) {
      this.#finish(state.foot);
      return;
    }
    const next = this.#button(state, `Next: ${this.config.hints[step + 1]}`);
    following(() =>
      state.foot.replaceChildren(
        make("p", { class: "note" }, "Try it with this first. If you are still stuck:"),
        next,
        this.#another(),
      ),
    );
    next.focus({ preventScroll: true });
  }

  #button(state, words) {
    return button("main", () => this.#climb(state), words);
  }

  #finish(foot) {
    foot.replaceChildren(make("p", { class: "note" }, "That was the last step."), this.#another());
    announce("That was the last step.");
  }

  #another() {
    const clear = () => {
      this.stop();
      this.#clear();
      this.focus();
    };
    return button("plain", clear, icon("add"), "Another problem");
  }
}
