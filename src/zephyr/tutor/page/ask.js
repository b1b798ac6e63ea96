/** Ask: a chat with one model. */

import { Answer, following, questionBubble, toEnd, wrongEquations } from "./answer.js";
import { stream } from "./api.js";
import { chats, deleteChat, keepChat, newChat } from "./chats.js";
import { Composer } from "./composer.js";
import { button, empty, icon, make } from "./dom.js";
import { currentModel, modelChoice } from "./models.js";
import { Past } from "./past.js";
import { thumbs } from "./rating.js";
import { perhaps } from "./session.js";
import { trouble } from "./trouble.js";

/** How another answer is asked for: a model that always takes the likeliest word has only one. */
const OTHERWISE = { temperature: 0.8 };

export class Ask {
  #chat = newChat();
  #running = null;

  constructor(config) {
    this.config = config;
    this.composer = new Composer({
      label: "Your question",
      hint: "Ask about the course…",
      limit: config.limits.message,
      send: (question) => this.#ask(question),
      stop: () => this.stop(),
      foot: [modelChoice(config.models)],
    });
    this.past = new Past({
      begin: () => this.#open(newChat()),
      open: (chat) => this.#open(chat),
      remove: (chat) => this.#remove(chat),
    });
    this.transcript = make("div", { class: "transcript" });
    const column = make("div", { class: "column" }, this.transcript, this.composer.element);
    this.panel = make("section", { class: "ask" }, this.past.element, column);
    this.#show(this.#chat);
  }

  focus() {
    this.composer.focus();
  }

  /** Closes the connection, which frees the server. */
  stop() {
    this.#running?.abort();
  }

  /** Shows what the browser still keeps. */
  refresh() {
    if (chats().some(({ id }) => id === this.#chat.id)) this.past.show(this.#chat.id);
    else this.#open(newChat());
  }

  #open(chat) {
    this.#show(chat);
    this.focus();
  }

  #remove({ id }) {
    deleteChat(id);
    if (id === this.#chat.id) this.#open(newChat());
    else this.past.show(this.#chat.id);
  }

  #show(chat) {
    this.stop();
    this.#chat = chat;
    this.past.unfold(false);
    this.past.show(chat.id);
    this.transcript.replaceChildren();
    chat.turns.forEach((turn, n) => {
      if (turn.role === "user") this.transcript.append(questionBubble(turn.content));
      else this.#showAnswer(turn, n);
    });
    if (!chat.turns.length) {
      const words =
        "Type a question below and press Enter; you can watch the answer being written.";
      this.transcript.append(empty("What would you like to understand?", words));
      return;
    }
    if (chat.turns.at(-1).role === "user") {
      const unanswered = new Error("This question has no answer yet.");
      this.transcript.append(trouble(unanswered, () => this.#reply()));
    }
    toEnd();
  }

  #showAnswer(turn, n) {
    const answer = new Answer(turn.model);
    answer.text = turn.content;
    this.transcript.append(answer.element);
    answer.end(turn.ended);
    answer.mark(turn.marks);
    this.#offer(answer, turn, n);
  }

  #ask(question) {
    this.transcript.querySelectorAll(".trouble, .empty").forEach((one) => one.remove());
    this.#chat.turns.push({ role: "user", content: question });
    keepChat(this.#chat);
    this.past.show(this.#chat.id);
    this.transcript.append(questionBubble(question));
    this.#reply();
  }

  async #reply(sampling = {}) {
    const chat = this.#chat;
    const model = currentModel(this.config.models);
    const answer = new Answer(model);
    const running = (this.#running = new AbortController());
    this.transcript.append(answer.element);
    this.composer.busy = true;
    toEnd();
    let ended = null;
    try {
      const user = (await perhaps()) ?? undefined;
      const body = { model, user, messages: messages(chat.turns), stream: true, ...sampling };
      for await (const chunk of stream("v1/chat/completions", body, running.signal)) {
        const choice = chunk.choices?.[0];
        if (choice?.delta?.content) answer.add(choice.delta.content);
        ended = choice?.finish_reason ?? ended;
      }
    } catch (failure) {
      if (!running.signal.aborted) {
        answer.fail(failure, () => {
          answer.element.remove();
          this.#reply(sampling);
        });
        return;
      }
      ended = "stopped";
    } finally {
      if (this.#running === running) {
        this.#running = null;
        this.composer.busy = false;
      }
    }
    answer.end(ended);
    const turn = { role: "assistant", content: answer.text, model, ended };
    if (answer.text.trim()) {
      chat.turns.push(turn);
      keepChat(chat);
    }
    if (chat === this.#chat) this.#offer(answer, turn, chat.turns.length - 1);
    turn.marks = await wrongEquations(answer.text);
    if (turn.marks.length) {
      answer.mark(turn.marks);
      keepChat(chat);
    }
  }

  /** Buttons below an answer. Only for the last one another can be asked for. */
  #offer(answer, turn, n) {
    const chat = this.#chat;
    this.transcript.querySelectorAll(".again").forEach((one) => one.remove());
    if (turn.content) answer.offerCopy();
    const again = () => {
      if (this.#running) return;
      if (chat.turns.at(-1) === turn) chat.turns.pop();
      answer.element.remove();
      this.#reply(OTHERWISE);
      this.focus();
    };
    following(() => {
      answer.actions.append(button("quiet again", again, icon("again"), "Another answer"));
      if (!turn.content) return;
      const question = chat.turns[n - 1].content;
      const rated = (rating) => {
        turn.rating = rating;
        keepChat(chat);
      };
      const failed = (failure, retry) => answer.notes.append(trouble(failure, retry));
      const said = { ...turn, question, answer: turn.content };
      answer.actions.append(...thumbs(said, { rated, failed }));
    });
  }
}

/** What the model is given: a question that was never answered is left out, but for the last. */
function messages(turns) {
  return turns
    .filter(({ role }, n) => role !== "user" || turns[n + 1]?.role !== "user")
    .map(({ role, content }) => ({ role, content }));
}
