/** The students' page: loads the configuration, and shows the tabs that it names. */

import { call } from "./api.js";
import { Ask } from "./ask.js";
import { deleteChats } from "./chats.js";
import { Compare } from "./compare.js";
import { announce } from "./dom.js";
import { Hints } from "./hints.js";
import { errorNotice } from "./notice.js";
import { Quiz } from "./quiz.js";
import { deleteSession } from "./session.js";
import { sessionStore } from "./storage.js";
import { tabs } from "./tabs.js";

const VIEWS = {
  ask: ["Ask", Ask],
  compare: ["Compare", Compare],
  quiz: ["Quiz", Quiz],
  hint: ["Hints", Hints],
};
const WRONG_PASSWORD = "That is not the password of this class.";
const byId = (id) => document.getElementById(id);

async function start(message = "") {
  byId("main").replaceChildren();
  let config;
  try {
    config = await call("tutor/config");
  } catch (error) {
    if (error.status === 401) {
      sessionStore.remove("password");
      start(WRONG_PASSWORD);
    } else {
      byId("main").replaceChildren(errorNotice(error, () => start()));
    }
    return;
  }
  showCourse(config.course);
  if (config.models) showViews(config);
  else askPassword(message);
}

function showCourse(course) {
  byId("course").textContent = course;
  document.title = `${course} · Tutor`;
}

function showViews(config) {
  byId("main").replaceChildren();
  if (!config.models.length) {
    byId("main").append("No model is served yet.");
    return;
  }
  const ways = Object.keys(VIEWS)
    .filter((way) => config.ways.includes(way))
    .map((way) => {
      const [title, View] = VIEWS[way];
      const view = new View(config);
      byId("main").append(view.panel);
      return { name: way, title, panel: view.panel, view };
    });
  byId("ways").hidden = ways.length < 2;
  let current = null;
  tabs(byId("ways"), ways, (way) => {
    const { view } = ways.find((one) => one.name === way);
    current = view;
    byId("page").dataset.way = way;
    view.show?.();
    const focusOnTabs = byId("ways").contains(document.activeElement);
    // focus on a touch screen would open its keyboard
    if (!focusOnTabs && matchMedia("(pointer: fine)").matches) view.focus?.();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !document.querySelector("dialog[open]")) current.stop();
  });
  byId("kept").textContent = config.kept;
  byId("foot").hidden = false;
  setUpDeletion(() => ways.forEach(({ view }) => view.refresh?.()));
}

function askPassword(message) {
  const dialog = byId("password-dialog");
  const field = byId("password");
  const notice = byId("password-trouble");
  notice.textContent = message;
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  byId("password-form").onsubmit = async (event) => {
    event.preventDefault();
    sessionStore.set("password", field.value);
    notice.textContent = "";
    try {
      const config = await call("tutor/config");
      if (config.models) {
        dialog.close();
        field.value = "";
        showViews(config);
        return;
      }
      notice.textContent = WRONG_PASSWORD;
    } catch (error) {
      notice.textContent = error.status === 401 ? WRONG_PASSWORD : error.message;
    }
    sessionStore.remove("password");
    field.select();
  };
  dialog.showModal();
}

function setUpDeletion(onDeleted) {
  const dialog = byId("forget-dialog");
  const notice = byId("forget-trouble");
  byId("forget").onclick = () => {
    notice.replaceChildren();
    dialog.showModal();
  };
  byId("forget-cancel").onclick = () => dialog.close();
  byId("forget-form").onsubmit = async (event) => {
    event.preventDefault();
    notice.replaceChildren();
    try {
      const deleted = await deleteSession();
      if (byId("forget-chats").checked) deleteChats();
      onDeleted();
      dialog.close();
      const words = deleted === 1 ? "One entry was deleted." : `${deleted} entries were deleted.`;
      byId("forgotten").textContent = deleted ? words : "The server held nothing of yours.";
      announce(byId("forgotten").textContent);
    } catch (error) {
      notice.append(errorNotice(error));
    }
  };
}

start();
