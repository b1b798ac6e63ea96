/** Ask: a chat with one model. */

import { Answer, following, toEnd, wrongEquations } from "./answer.js";
import { call, stream } from "./api.js";
import { chats, deleteChat, keepChat, newChat, titleOf } from "./chats.js";
import { Composer } from "./composer.js";
import { icon, make, set } from "./dom.js";
import { currentModel, modelChoice } from "./models.js";
import { withSession } from "./session.js";
import { trouble } from "./trouble.js";

/** How another answer is asked for: a model that always takes the likeliest word has only one. */
const OTHERWISE = { temperature: 0.8 };

export class Ask {
  #chat = newChat();
  #running = null;

  constructor(config) {
    this.config = config;
    this.composer = new Composer({
      label: "Your question", hint: "Ask about the course…", limit: config.limits.message,
      send: (question) => this.#ask(question), stop: () => this.stop(),
      foot: [modelChoice(config.models)],
    });
    this.transcript = make("div", { class: "transcript" });
    this.past = make("ul", { class: "past" });
    this.panel = make("section", { class: "ask" }, this.#aside(),
      make("div", { class: "column" }, this.transcript, this.composer.element));
    this.#open(newChat());
  }

  focus() {
    this.composer.focus();
  }

  /** Closes the connection, which frees the server. */
  stop() {
    this.#running?.abort();
  }

  /** Shows the chats that the browser still keeps. */
  refresh() {
    if (!chats().some(({ id }) => id === this.#chat.id) && !this.#running) this.#open(newChat());
    this.#list();
  }

  #aside() {
    const list = make("div", { class: "past-list", id: "past" },
      make("h2", {}, "Past chats"), this.past);
    const toggle = make("button", {
      type: "button", class: "plain past-toggle", "aria-expanded": "false",
      "aria-controls": "past", on: { click: () => {
        const open = list.classList.toggle("open");
        set(toggle, "aria-expanded", String(open));
      } },
    }, icon("chats"), make("span", {}, "Past chats"));
    this.closePast = () => {
      list.classList.remove("open");
      set(toggle, "aria-expanded", "false");
    };
    return make("aside", { "aria-label": "Chats" },
      make("div", { class: "aside-head" },
        make("button", { type: "button", class: "plain", on: { click: () => {
          this.#open(newChat());
          this.focus();
        } } }, icon("add"), make("span", {}, "New chat")), toggle), list);
  }

  #list() {
    const all = chats();
    this.past.replaceChildren(...all.map((chat) => make("li", {
      class: chat.id === this.#chat.id ? "here" : null,
    },
      make("button", {
        type: "button", class: "past-open", title: titleOf(chat),
        "aria-current": chat.id === this.#chat.id ? "true" : null,
        on: { click: () => {
          this.#open(chat);
          this.focus();
        } },
      }, titleOf(chat)),
      make("button", {
        type: "button", class: "past-delete", "aria-label": `Delete the chat ${titleOf(chat)}`,
        on: { click: () => this.#delete(chat) },
      }, icon("remove")))));
    if (!all.length) this.past.append(make("li", { class: "none" }, "Your chats will be listed here."));
  }

  #delete({ id }) {
    if (id === this.#chat.id) {
      this.stop();
      this.#open(newChat());
    }
    deleteChat(id);
    this.#list();
    this.focus();
  }

  #open(chat) {
    this.stop();
    this.#chat = chat;
    this.closePast();
    this.transcript.replaceChildren();
    chat.turns.forEach((turn, n) => {
      if (turn.role === "user") this.#showQuestion(turn.content);
      else this.#showAnswer(turn, n);
    });
    if (chat.turns.at(-1)?.role === "user")
      this.transcript.append(trouble(new Error("This question has no answer yet."),
        () => this.#reply()));
    if (!chat.turns.length) this.transcript.append(make("div", { class: "empty" },
      make("h2", {}, "What would you like to understand?"),
      make("p", {}, "Type a question below and press Enter; you can watch the answer being written.")));
    this.#list();
    if (chat.turns.length) toEnd();
  }

  #showQuestion(content) {
    this.transcript.querySelector(".empty")?.remove();
    this.transcript.append(make("div", { class: "question" },
      make("span", { class: "unseen" }, "You asked: "), content));
  }

  #showAnswer(turn, n) {
    const answer = new Answer(turn.model);
    answer.text = turn.content;
    this.transcript.append(answer.element);
    answer.end(turn.ended);
    answer.mark(turn.marks);
    this.#offer(answer, this.#chat, turn, n);
  }

  #ask(question) {
    this.transcript.querySelectorAll(".trouble").forEach((one) => one.remove());
    this.#chat.turns.push({ role: "user", content: question });
    keepChat(this.#chat);
    this.#showQuestion(question);
    this.#list();
    toEnd();
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
      const body = { model, messages: messages(chat.turns), stream: true, ...sampling };
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
    if (chat === this.#chat) this.#offer(answer, chat, turn, chat.turns.length - 1);
    turn.marks = await wrongEquations(answer.text);
    if (turn.marks.length) {
      answer.mark(turn.marks);
      keepChat(chat);
    }
    this.#list();
  }

  /** Buttons below an answer. Only the last one can be asked for again. */
  #offer(answer, chat, turn, n) {
    for (const old of this.transcript.querySelectorAll(".again")) old.remove();
    if (turn.content) answer.offerCopy();
    const again = make("button", {
      type: "button", class: "quiet again", on: { click: () => {
        if (this.#running) return;
        if (chat.turns.at(-1) === turn) chat.turns.pop();
        answer.element.remove();
        this.#reply(OTHERWISE);
        this.focus();
      } },
    }, icon("again"), make("span", {}, "Another answer"));
    following(() => answer.actions.append(again));
    if (!turn.content) return;
    const question = chat.turns[n - 1].content;
    const thumbs = ["up", "down"].map((rating) => make("button", {
      type: "button", class: "quiet thumb", "aria-pressed": String(turn.rating === rating),
      "aria-label": rating === "up" ? "A good answer" : "A bad answer",
      title: rating === "up" ? "A good answer" : "A bad answer",
      on: { click: () => rate(rating) },
    }, icon(rating)));
    answer.actions.append(...thumbs);

    const rate = async (rating) => {
      try {
        await withSession((session) => call("tutor/rating", { method: "POST", body: {
          session, model: turn.model, question, answer: turn.content, rating,
        } }));
      } catch (failure) {
        answer.notes.append(trouble(failure, () => rate(rating)));
        return;
      }
      turn.rating = rating;
      thumbs.forEach((thumb, one) => set(thumb, "aria-pressed", String(one === (rating === "down" ? 1 : 0))));
      keepChat(chat);
    };
  }
}

/** What the model is given: a question that was never answered is left out, but for the last. */
function messages(turns) {
  return turns
    .filter(({ role }, n) => role !== "user" || turns[n + 1]?.role !== "user")
    .map(({ role, content }) => ({ role, content }));
}
