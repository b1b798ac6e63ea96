/** The list of past chats, each to be opened again or deleted. */

import { chats, titleOf } from "./chats.js";
import { button, icon, make, set } from "./dom.js";

export class Past {
  /** `begin` opens a new chat; `open` and `remove` are given the one that is meant. */
  constructor({ begin, open, remove }) {
    Object.assign(this, { open, remove });
    this.items = make("ul", { class: "past" });
    this.list = make(
      "div",
      { class: "past-list", id: "past" },
      make("h2", {}, "Past chats"),
      this.items,
    );
    this.toggle = button(
      { class: "plain past-toggle", "aria-controls": "past" },
      () => this.unfold(!this.list.classList.contains("open")),
      icon("chats"),
      "Past chats",
    );
    this.unfold(false);
    const first = button("plain", begin, icon("add"), "New chat");
    this.element = make(
      "aside",
      { "aria-label": "Chats" },
      make("div", { class: "aside-head" }, first, this.toggle),
      this.list,
    );
  }

  /** On a narrow screen the list is there only while it is asked for. */
  unfold(open) {
    this.list.classList.toggle("open", open);
    set(this.toggle, "aria-expanded", String(open));
  }

  /** Lists what the browser keeps; `here` is the id of the chat that is seen. */
  show(here) {
    const all = chats().map((chat) => this.#item(chat, chat.id === here));
    const none = make("li", { class: "none" }, "Your chats will be listed here.");
    this.items.replaceChildren(...(all.length ? all : [none]));
  }

  #item(chat, here) {
    const title = titleOf(chat);
    return make(
      "li",
      { class: here && "here" },
      button(
        { class: "past-open", title, "aria-current": here && "true" },
        () => this.open(chat),
        title,
      ),
      button(
        { class: "past-delete", "aria-label": `Delete the chat ${title}` },
        () => this.remove(chat),
        icon("remove"),
      ),
    );
  }
}
