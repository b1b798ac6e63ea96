/** The notice of an error, shown where it occurred, with a button to retry. */

import { button, icon, make } from "./dom.js";

/** The notice of an error; `retry` is offered once the server accepts requests again. */
export function errorNotice(error, retry) {
  const notice = make("div", { class: "trouble", role: "alert" }, make("p", {}, error.message));
  if (retry)
    notice.append(
      retryButton(error.wait, () => {
        notice.remove();
        retry();
      }),
    );
  return notice;
}

function retryButton(wait, retry) {
  const label = make("span");
  const element = button("plain", retry, icon("again"), label);
  const end = Date.now() + wait * 1000;
  const update = () => {
    const left = Math.ceil((end - Date.now()) / 1000);
    element.disabled = left > 0;
    label.textContent = left > 0 ? `Try again in ${left} s` : "Try again";
    if (left > 0) setTimeout(update, 250);
  };
  update();
  return element;
}
