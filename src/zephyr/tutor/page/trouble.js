/** What went wrong, said where it happened, with a way to try again. */

import { button, icon, make } from "./dom.js";

/** A notice of a failure; `again` is offered once the server wants to be asked again. */
export function trouble(failure, again) {
  const notice = make("div", { class: "trouble", role: "alert" }, make("p", {}, failure.message));
  if (again)
    notice.append(
      againButton(failure.wait, () => {
        notice.remove();
        again();
      }),
    );
  return notice;
}

function againButton(wait, again) {
  const label = make("span");
  const waiting = button("plain", again, icon("again"), label);
  const end = Date.now() + wait * 1000;
  const tick = () => {
    const left = Math.ceil((end - Date.now()) / 1000);
    waiting.disabled = left > 0;
    label.textContent = left > 0 ? `Try again in ${left} s` : "Try again";
    if (left > 0) setTimeout(tick, 250);
  };
  tick();
  return waiting;
}
