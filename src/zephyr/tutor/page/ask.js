/** The Ask tab: a chat with one model. */

import { Answer, questionBubble, scrollToBottom, stickToBottom, wrongEquations } from "./answer.js";
import { stream } from "./api.js";
import { deleteChat, loadChats, newChat, saveChat } from "./chats.js";
import { Composer } from "./composer.js";
import { button, emptyState, icon, make } from "./dom.js";
import { ChatHistory } from "./history.js";
import { currentModel, modelSelect } from "./models.js";
import { errorNotice } from "./notice.js";
import { ratingButtons } from "./rating.js";
import { sessionOrNull } from "./session.js";

/** Sampling for another answer: greedy decoding would give the same one again. */
const RESAMPLING = { temperature: 0.8 };

export class Ask {
  #chat = newChat();
  #request = null;

  constructor(config) {
    this.config = config;
    this.composer = new Composer({
      label: "Your question",
      placeholder: "Ask about the course…",
      limit: config.limits.message,
      send: (question) => this.#ask(question),
      stop: () => this.stop(),
      footer: [modelSelect(config.models)],
    });
    this.history = new ChatHistory({
      create: () => this.#open(newChat()),
      open: (chat) => this.#open(chat),
      remove: (chat) => this.#remove(chat),
    });
    this.transcript = make("div", { class: "transcript" });
    const column = make("div", { class: "column" }, this.transcript, this.composer.element);
    this.panel = make("section", { class: "ask" }, this.history.element, column);
    this.#show(this.#chat);
  }

  focus() {
    this.composer.focus();
  }

  /** Closes the connection, which frees the server. */
  stop() {
    this.#request?.abort();
  }

  /** Shows the chats that are left in the browser. */
  refresh() {
    if (loadChats().some(({ id }) => id === this.#chat.id)) this.history.show(this.#chat.id);
    else this.#open(newChat());
  }

  #open(chat) {
    this.#show(chat);
    this.focus();
  }

  #remove({ id }) {
    deleteChat(id);
    if (id === this.#chat.id) this.#open(newChat());
    else this.history.show(this.#chat.id);
  }

  #show(chat) {
    this.stop();
    this.#chat = chat;
    this.history.toggle(false);
    this.history.show(chat.id);
    this.transcript.replaceChildren();
    chat.turns.forEach((turn, n) => {
      if (turn.role === "user") this.transcript.append(questionBubble(turn.content));
      else this.#showAnswer(turn, n);
    });
    if (!chat.turns.length) {
      const words =
        "Type a question below and press Enter; you can watch the answer being written.";
      this.transcript.append(emptyState("What would you like to understand?", words));
      return;
    }
    if (chat.turns.at(-1).role === "user") {
      const unanswered = new Error("This question has no answer yet.");
      this.transcript.append(errorNotice(unanswered, () => this.#reply()));
    }
    scrollToBottom();
  }

  #showAnswer(turn, n) {
    const answer = new Answer(turn.model);
    answer.text = turn.content;
    this.transcript.append(answer.element);
    answer.end(turn.ended);
    answer.mark(turn.marks);
    this.#addActions(answer, turn, n);
  }

  #ask(question) {
    this.transcript.querySelectorAll(".trouble, .empty").forEach((one) => one.remove());
    this.#chat.turns.push({ role: "user", content: question });
    saveChat(this.#chat);
    this.history.show(this.#chat.id);
    this.transcript.append(questionBubble(question));
    this.#reply();
  }

  async #reply(sampling = {}) {
    const chat = this.#chat;
    const model = currentModel(this.config.models);
    const answer = new Answer(model);
    const request = (this.#request = new AbortController());
    this.transcript.append(answer.element);
    this.composer.busy = true;
    scrollToBottom();
    let ended = null;
    try {
      const user = (await sessionOrNull()) ?? undefined;
      const body = {
        model,
        user,
        messages: requestMessages(chat.turns),
        stream: true,
        ...sampling,
      };
      for await (const chunk of stream("v1/chat/completions", body, request.signal)) {
        const choice = chunk.choices?.[0];
        if (choice?.delta?.content) answer.add(choice.delta.content);
        ended = choice?.finish_reason ?? ended;
      }
    } catch (error) {
      if (!request.signal.aborted) {
        answer.fail(error, () => {
          answer.element.remove();
          this.#reply(sampling);
        });
        return;
      }
      ended = "stopped";
    } finally {
      if (this.#request === request) {
        this.#request = null;
        this.composer.busy = false;
      }
    }
    answer.end(ended);
    const turn = { role: "assistant", content: answer.text, model, ended };
    if (answer.text.trim()) {
      chat.turns.push(turn);
      saveChat(chat);
    }
    if (chat === this.#chat) this.#addActions(answer, turn, chat.turns.length - 1);
    turn.marks = await wrongEquations(answer.text);
    if (turn.marks.length) {
      answer.mark(turn.marks);
      saveChat(chat);
    }
  }

  /** The buttons below an answer; only the last answer can be asked for again. */
  #addActions(answer, turn, n) {
    const chat = this.#chat;
    this.transcript.querySelectorAll(".again").forEach((one) => one.remove());
    if (turn.content) answer.addCopyButton();
    const regenerate = () => {
      if (this.#request) return;
      if (chat.turns.at(-1) === turn) chat.turns.pop();
      answer.element.remove();
      this.#reply(RESAMPLING);
      this.focus();
    };
    stickToBottom(() => {
      answer.actions.append(button("quiet again", regenerate, icon("again"), "Another answer"));
      if (!turn.content) return;
      const question = chat.turns[n - 1].content;
      const onRated = (rating) => {
        turn.rating = rating;
        saveChat(chat);
      };
      const onError = (error, retry) => answer.notes.append(errorNotice(error, retry));
      const rated = { ...turn, question, answer: turn.content };
      answer.actions.append(...ratingButtons(rated, { onRated, onError }));
    });
  }
}

/** The messages of a request: unanswered questions are left out, but for the last. */
function requestMessages(turns) {
  return turns
    .filter(({ role }, n) => role !== "user" || turns[n + 1]?.role !== "user")
    .map(({ role, content }) => ({ role, content }));
}
