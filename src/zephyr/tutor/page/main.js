/** The students' page: asks the server what it offers, and shows that. */

import { call } from "./api.js";
import { Ask } from "./ask.js";
import { deleteChats } from "./chats.js";
import { Compare } from "./compare.js";
import { announce } from "./dom.js";
import { Hints } from "./hints.js";
import { Quiz } from "./quiz.js";
import { forget } from "./session.js";
import { passing } from "./store.js";
import { tabs } from "./tabs.js";
import { trouble } from "./trouble.js";

const WAYS = {
  ask: ["Ask", Ask],
  compare: ["Compare", Compare],
  quiz: ["Quiz", Quiz],
  hint: ["Hints", Hints],
};
const WRONG = "That is not the password of this class.";
const at = (id) => document.getElementById(id);

async function start(words = "") {
  at("main").replaceChildren();
  let config;
  try {
    config = await call("tutor/config");
  } catch (failure) {
    if (failure.status === 401) {
      passing.remove("password");
      start(WRONG);
    } else {
      at("main").replaceChildren(trouble(failure, () => start()));
    }
    return;
  }
  name(config.course);
  if (config.models) open(config);
  else askPassword(words);
}

function name(course) {
  at("course").textContent = course;
  document.title = `${course} · Tutor`;
}

function open(config) {
  at("main").replaceChildren();
  if (!config.models.length) {
    at("main").append("No model is served yet.");
    return;
  }
  const ways = Object.keys(WAYS)
    .filter((way) => config.ways.includes(way))
    .map((way) => {
      const [title, View] = WAYS[way];
      const view = new View(config);
      at("main").append(view.panel);
      return { name: way, title, panel: view.panel, view };
    });
  at("ways").hidden = ways.length < 2;
  let seen = null;
  tabs(at("ways"), ways, (way) => {
    const { view } = ways.find((one) => one.name === way);
    seen = view;
    at("page").dataset.way = way;
    view.show?.();
    const onTabs = at("ways").contains(document.activeElement);
    if (!onTabs && matchMedia("(pointer: fine)").matches) view.focus?.(); // else a keyboard pops up
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !document.querySelector("dialog[open]")) seen.stop();
  });
  at("kept").textContent = config.kept;
  at("foot").hidden = false;
  forgetting(() => ways.forEach(({ view }) => view.refresh?.()));
}

function askPassword(words) {
  const dialog = at("password-dialog");
  const field = at("password");
  const notice = at("password-trouble");
  notice.textContent = words;
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  at("password-form").onsubmit = async (event) => {
    event.preventDefault();
    passing.set("password", field.value);
    notice.textContent = "";
    try {
      const config = await call("tutor/config");
      if (config.models) {
        dialog.close();
        field.value = "";
        open(config);
        return;
      }
      notice.textContent = WRONG;
    } catch (failure) {
      notice.textContent = failure.status === 401 ? WRONG : failure.message;
    }
    passing.remove("password");
    field.select();
  };
  dialog.showModal();
}

function forgetting(done) {
  const dialog = at("forget-dialog");
  const notice = at("forget-trouble");
  at("forget").onclick = () => {
    notice.replaceChildren();
    dialog.showModal();
  };
  at("forget-cancel").onclick = () => dialog.close();
  at("forget-form").onsubmit = async (event) => {
    event.preventDefault();
    notice.replaceChildren();
    try {
      const deleted = await forget();
      if (at("forget-chats").checked) deleteChats();
      done();
      dialog.close();
      const words = deleted === 1 ? "One entry was deleted." : `${deleted} entries were deleted.`;
      at("forgotten").textContent = deleted ? words : "The server held nothing of yours.";
      announce(at("forgotten").textContent);
    } catch (failure) {
      notice.append(trouble(failure));
    }
  };
}

start();
