/** The input for a question: Enter sends, Shift+Enter starts a new line. */

import { icon, make, uniqueId } from "./dom.js";

export class Composer {
  /** `send` is called with the question; `footer` are nodes below it, such as a model select. */
  constructor({ label, placeholder, limit, send, stop, footer = [] }) {
    Object.assign(this, { limit, send, stop });
    const id = uniqueId("question");
    this.field = make("textarea", {
      id,
      rows: 1,
      placeholder,
      autocomplete: "off",
      enterkeyhint: "send",
      "aria-describedby": `${id}-count`,
    });
    this.count = make("span", { class: "count", id: `${id}-count` });
    this.button = make("button", { type: "submit", class: "send" });
    this.element = make(
      "form",
      { class: "dock", on: { submit: (event) => this.#submit(event) } },
      make(
        "div",
        { class: "composer" },
        make("label", { class: "unseen", for: id }, label),
        this.field,
        make("div", { class: "composer-foot" }, ...footer, this.count, this.button),
      ),
    );
    this.field.addEventListener("input", () => this.#resize());
    this.field.addEventListener("keydown", (event) => this.#onKeydown(event));
    this.busy = false;
  }

  get busy() {
    return this.running;
  }

  set busy(busy) {
    this.running = busy;
    this.button.replaceChildren(
      icon(busy ? "stop" : "send"),
      make("span", {}, busy ? "Stop" : "Send"),
    );
    this.button.classList.toggle("stop", busy);
    this.#resize();
  }

  get value() {
    return this.field.value;
  }

  set value(text) {
    this.field.value = text;
    this.#resize();
  }

  focus() {
    this.field.focus({ preventScroll: true });
  }

  #submit(event) {
    event.preventDefault();
    if (this.busy) {
      this.stop();
      return;
    }
    const question = this.value.trim();
    if (!question || question.length > this.limit) return;
    this.value = "";
    this.send(question);
  }

  #onKeydown(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!this.busy) this.element.requestSubmit();
  }

  /** Fits the height to the text, and shows the characters left where they are few. */
  #resize() {
    this.field.style.height = "auto";
    if (this.field.value) this.field.style.height = `${this.field.scrollHeight}px`;
    const length = this.value.trim().length;
    const over = length - this.limit;
    this.count.textContent =
      over > 0 ? `${over} too many` : length > 0.8 * this.limit ? `${-over} left` : "";
    this.count.classList.toggle("over", over > 0);
    this.button.disabled = !this.busy && (!length || over > 0);
  }
}
