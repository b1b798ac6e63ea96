/** The list of past chats, each of which can be opened or deleted. */

import { loadChats, titleOf } from "./chats.js";
import { button, icon, make, setAttribute } from "./dom.js";

export class ChatHistory {
  /** `create` opens a new chat; `open` and `remove` are called with a chat of the list. */
  constructor({ create, open, remove }) {
    Object.assign(this, { open, remove });
    this.items = make("ul", { class: "past" });
    this.list = make(
      "div",
      { class: "past-list", id: "past" },
      make("h2", {}, "Past chats"),
      this.items,
    );
    this.toggleButton = button(
      { class: "plain past-toggle", "aria-controls": "past" },
      () => this.toggle(!this.list.classList.contains("open")),
      icon("chats"),
      "Past chats",
    );
    this.toggle(false);
    const newButton = button("plain", create, icon("add"), "New chat");
    this.element = make(
      "aside",
      { "aria-label": "Chats" },
      make("div", { class: "aside-head" }, newButton, this.toggleButton),
      this.list,
    );
  }

  /** Opens or closes the list on a narrow screen; on a wide one it is always open. */
  toggle(open) {
    this.list.classList.toggle("open", open);
    setAttribute(this.toggleButton, "aria-expanded", String(open));
  }

  /** Lists the stored chats; `currentId` is that of the chat that is open. */
  show(currentId) {
    const items = loadChats().map((chat) => this.#item(chat, chat.id === currentId));
    const none = make("li", { class: "none" }, "Your chats will be listed here.");
    this.items.replaceChildren(...(items.length ? items : [none]));
  }

  #item(chat, current) {
    const title = titleOf(chat);
    return make(
      "li",
      { class: current && "here" },
      button(
        { class: "past-open", title, "aria-current": current && "true" },
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
