/** Thumbs up and down for an answer. */

import { call } from "./api.js";
import { button, icon, set } from "./dom.js";
import { withSession } from "./session.js";

const WORDS = { up: "A good answer", down: "A bad answer" };

/** Two buttons; `rated` is told what was stored, `failed` what went wrong, and how to try again. */
export function thumbs({ model, question, answer, rating }, { rated, failed }) {
  const buttons = Object.entries(WORDS).map(([name, words]) =>
    button(
      { class: "quiet thumb", "aria-label": words, title: words },
      () => rate(name),
      icon(name),
    ),
  );
  const press = (chosen) =>
    Object.keys(WORDS).forEach((name, n) =>
      set(buttons[n], "aria-pressed", String(name === chosen)),
    );
  press(rating);

  async function rate(chosen) {
    try {
      await withSession((session) =>
        call("tutor/rating", {
          method: "POST",
          body: { session, model, question, answer, rating: chosen },
        }),
      );
    } catch (failure) {
      failed(failure, () => rate(chosen));
      return;
    }
    press(chosen);
    rated(chosen);
  }

  return buttons;
}
