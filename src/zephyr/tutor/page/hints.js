/** The Hints tab: a question answered in steps, each of which gives more away. */

import { Answer, questionBubble, stickToBottom } from "./answer.js";
import { stream } from "./api.js";
import { Composer } from "./composer.js";
import { announce, button, emptyState, icon, make } from "./dom.js";
import { currentModel, modelSelect } from "./models.js";
import { errorNotice } from "./notice.js";
import { withSession } from "./session.js";

export class Hints {
  #request = null;

  constructor(config) {
    this.config = config;
    this.composer = new Composer({
      label: "The problem you are working on",
      placeholder: "Paste a problem…",
      limit: config.limits.message,
      send: (question) => this.#start(question),
      stop: () => this.stop(),
      footer: [modelSelect(config.models)],
    });
    this.body = make("div", { class: "ladder" });
    this.panel = make("section", { class: "hints" }, this.body, this.composer.element);
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
    const words = "Paste a problem below; you get a first hint, and more only when you ask for it.";
    const names = this.config.hints.map((name) => make("li", {}, name));
    const steps = make("ol", { class: "steps-ahead" }, ...names);
    this.body.replaceChildren(emptyState("Stuck? Take one step at a time.", words, steps));
  }

  #start(question) {
    this.stop();
    const model = currentModel(this.config.models);
    const steps = make("div", { class: "steps" });
    const footer = make("div", { class: "ladder-foot" });
    this.body.replaceChildren(questionBubble(question, "Your problem: "), steps, footer);
    this.composer.element.hidden = true;
    this.#requestStep({ question, model, steps, footer, ladder: null, shown: [] });
  }

  /** Requests the next step; the server decides which one that is. */
  async #requestStep(state) {
    const { footer } = state;
    const request = (this.#request = new AbortController());
    footer.replaceChildren(button("plain", () => request.abort(), icon("stop"), "Stop"));
    let answer = null;
    let step = null;
    let ended = null;
    let marks = [];
    try {
      await withSession(async (session) => {
        const { ladder, model, question } = state;
        const path = ladder ? `tutor/ladder/${ladder}` : "tutor/ladder";
        const body = ladder ? { session } : { session, model, question };
        for await (const event of stream(path, body, request.signal)) {
          if (event.step !== undefined) {
            step = event;
            state.ladder = event.ladder ?? state.ladder;
            answer = this.#addStep(state, event);
          }
          if (event.text) answer.add(event.text);
          ended = event.ended ?? ended;
          marks = event.marks ?? marks;
        }
      });
    } catch (error) {
      if (error.code === "no_such_ladder") state.ladder = null; // the server has restarted
      if (error.code === "ladder_done") {
        this.#finish(footer);
      } else if (request.signal.aborted) {
        answer?.end("stopped");
        footer.replaceChildren(this.#stepButton(state, "Write it again"), this.#restartButton());
      } else {
        answer?.end("broken");
        footer.replaceChildren(
          errorNotice(error, () => this.#requestStep(state)),
          this.#restartButton(),
        );
      }
      return;
    } finally {
      if (this.#request === request) this.#request = null;
    }
    answer.end(ended);
    answer.mark(marks);
    this.#offerNextStep(state, step);
  }

  /** Adds the answer of a step, or replaces that of one which broke off. */
  #addStep({ steps, shown }, { step, steps: of, name }) {
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

  #offerNextStep(state, { step, steps }) {
    if (step + 1 >= steps) {
      this.#finish(state.footer);
      return;
    }
    const next = this.#stepButton(state, `Next: ${this.config.hints[step + 1]}`);
    stickToBottom(() =>
      state.footer.replaceChildren(
        make("p", { class: "note" }, "Try it with this first. If you are still stuck:"),
        next,
        this.#restartButton(),
      ),
    );
    next.focus({ preventScroll: true });
  }

  #stepButton(state, label) {
    return button("main", () => this.#requestStep(state), label);
  }

  #finish(footer) {
    footer.replaceChildren(
      make("p", { class: "note" }, "That was the last step."),
      this.#restartButton(),
    );
    announce("That was the last step.");
  }

  #restartButton() {
    const restart = () => {
      this.stop();
      this.#reset();
      this.focus();
    };
    return button("plain", restart, icon("add"), "Another problem");
  }
}
