/** Buttons that rate an answer: thumbs up and down. */

import { call } from "./api.js";
import { button, icon, setAttribute } from "./dom.js";
import { withSession } from "./session.js";

const LABELS = { up: "A good answer", down: "A bad answer" };

/** Two buttons; `onRated` is called with the rating, `onError` with the error and a retry. */
export function ratingButtons({ model, question, answer, rating }, { onRated, onError }) {
  const buttons = Object.entries(LABELS).map(([name, label]) =>
    button(
      { class: "quiet thumb", "aria-label": label, title: label },
      () => rate(name),
      icon(name),
    ),
  );
  const press = (chosen) =>
    Object.keys(LABELS).forEach((name, n) =>
      setAttribute(buttons[n], "aria-pressed", String(name === chosen)),
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
    } catch (error) {
      onError(error, () => rate(chosen));
      return;
    }
    press(chosen);
    onRated(chosen);
  }

  return buttons;
}
