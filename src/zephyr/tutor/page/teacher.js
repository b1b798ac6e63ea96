/** The teacher's page: a summary of questions, votes and quizzes, and downloads of the data. */

import { call, download } from "./api.js";
import { intervalChart, intervalText, stackedBar } from "./charts.js";
import { announce, button, icon, make, uniqueId } from "./dom.js";
import { errorNotice } from "./notice.js";
import { sessionStore } from "./storage.js";

const KEY = "teacher";
const DOWNLOADS = [
  ["teacher/preferences.json", "preferences.json", "Preferences as JSON"],
  ["teacher/events.csv", "events.csv", "Events as CSV"],
];
const main = document.getElementById("main");

async function start() {
  const token = sessionStore.get(KEY);
  if (!token) {
    askForToken();
    return;
  }
  let summary;
  try {
    summary = await call("teacher/summary", { key: token });
  } catch (error) {
    if (error.status === 401 || error.status === 403) {
      sessionStore.remove(KEY);
      askForToken("That token is not the teacher’s.");
    } else {
      main.replaceChildren(errorNotice(error, start));
    }
    return;
  }
  show(summary, token);
}

function askForToken(message = "") {
  const field = make("input", {
    type: "password",
    id: uniqueId("token"),
    autocomplete: "current-password",
    required: true,
  });
  main.replaceChildren(
    make(
      "form",
      {
        class: "token",
        on: {
          submit: (event) => {
            event.preventDefault();
            sessionStore.set(KEY, field.value.trim());
            start();
          },
        },
      },
      make("h2", {}, "What your class thinks"),
      make(
        "label",
        { for: field.id },
        "The teacher’s token, from the file that the server named when it started",
      ),
      make("input", { type: "text", autocomplete: "username", value: "teacher", hidden: true }),
      field,
      make("p", { class: "wrong-words", role: "alert" }, message),
      make("div", { class: "buttons" }, make("button", { type: "submit", class: "main" }, "Open")),
    ),
  );
  field.focus();
}

function show(summary, token) {
  document.getElementById("course").textContent = summary.course;
  document.title = `${summary.course} · Teacher`;
  main.replaceChildren(
    make(
      "div",
      { class: "sheet" },
      toolbar(summary, token),
      address(token),
      keyFigures(summary),
      wins(summary),
      pairs(summary),
      closestVotes(summary),
      quiz(summary),
      models(summary),
    ),
  );
}

/** Where students go: the address for the board, and its QR code; nothing until it is known. */
function address(token) {
  const place = make("div");
  call("teacher/address", { key: token })
    .then(({ url, qr }) => {
      const code = make("img", { src: qr, alt: `QR code of ${url}`, width: 160, height: 160 });
      const link = make("a", { href: url }, url);
      const words = "They open this address, or point a phone at the code.";
      place.replaceChildren(
        section("For students", words, make("div", { class: "address" }, link, code)),
      );
    })
    .catch((error) => place.replaceChildren(errorNotice(error)));
  return place;
}

function toolbar({ since }, token) {
  const place = make("div");
  const files = DOWNLOADS.map(([path, file, words]) =>
    button("plain", () => downloadFile(path, file, token, place), words),
  );
  return make(
    "div",
    {},
    make(
      "div",
      { class: "toolbar" },
      make(
        "p",
        { class: "since" },
        since ? `Since ${formatDate(since)}` : "Nothing has been kept yet.",
      ),
      ...files,
      button("plain", start, icon("again"), "Refresh"),
      button("quiet", forgetToken, "Forget the token"),
    ),
    place,
  );
}

function forgetToken() {
  sessionStore.remove(KEY);
  askForToken();
}

async function downloadFile(path, file, token, place) {
  place.replaceChildren();
  try {
    const address = URL.createObjectURL(await download(path, token));
    make("a", { href: address, download: file }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
    announce(`${file} is saved.`);
  } catch (error) {
    place.append(errorNotice(error, () => downloadFile(path, file, token, place)));
  }
}

function keyFigures({ sessions, votes, questions, quiz }) {
  const asked = Object.values(questions ?? {}).reduce((all, n) => all + n, 0);
  const all = {
    Sessions: sessions,
    Questions: asked,
    Votes: votes,
    "Quiz answers": quiz?.answered,
  };
  return make(
    "dl",
    { class: "figures" },
    ...Object.entries(all).map(([words, number]) =>
      make("div", {}, make("dt", {}, words), make("dd", {}, formatCount(number))),
    ),
  );
}

function wins({ wins = {} }) {
  const rows = Object.entries(wins).sort(([, a], [, b]) => (b.value ?? -1) - (a.value ?? -1));
  return section(
    "How often a model wins",
    "The share of its comparisons that a model wins, an equal vote counting half, with a 95 % " +
      "interval. The dashed line is one half.",
    rows.length &&
      table(
        ["Model", "", "Wins", "Votes"],
        rows.map(([model, rate]) => [
          model,
          chartCell(intervalChart(rate)),
          numberCell(intervalText(rate)),
          numberCell(formatCount(rate.n)),
        ]),
      ),
    "Nobody has voted yet.",
  );
}

function pairs({ pairs = [] }) {
  return section(
    "Two models on one question",
    "The bar shows how often the first was better, both were equal, and the second was better.",
    pairs.length &&
      table(
        ["Pair", "", "First better", "Equal", "Second better"],
        pairs.map(({ a, b, a_wins, b_wins, ties }) => [
          `${a} and ${b}`,
          chartCell(stackedBar([a_wins, ties, b_wins])),
          numberCell(formatCount(a_wins)),
          numberCell(formatCount(ties)),
          numberCell(formatCount(b_wins)),
        ]),
      ),
    "Nobody has voted yet.",
  );
}

function closestVotes({ closest = [] }) {
  const items = closest.map(({ question, votes = {}, ties = 0 }) =>
    make(
      "li",
      {},
      make("p", {}, question),
      make(
        "p",
        { class: "votes" },
        [...Object.entries(votes), ["equal", ties]]
          .map(([words, n]) => `${words}: ${formatCount(n)}`)
          .join(" · "),
      ),
    ),
  );
  return section(
    "Where the class is most divided",
    "Questions of four votes and more that are nearest to even: worth talking about.",
    items.length && make("ol", { class: "close-questions" }, ...items),
    "No question has four votes yet.",
  );
}

function quiz({ quiz }) {
  const share = (n) => (quiz.answered ? `${formatCount(n)} of ${formatCount(quiz.answered)}` : "–");
  return section(
    "Quiz",
    "What students and models answered to the same questions.",
    quiz?.answered &&
      table(
        ["", "", "Share"],
        [
          ["Students were right", "", numberCell(share(quiz.right))],
          ["Models were right", "", numberCell(share(quiz.model_right))],
          ...(quiz.agreement
            ? [
                [
                  "Student and model chose the same",
                  chartCell(intervalChart(quiz.agreement)),
                  numberCell(intervalText(quiz.agreement)),
                ],
              ]
            : []),
        ],
      ),
    "Nobody has answered a quiz question yet.",
  );
}

function models({ questions = {}, ratings = {} }) {
  const names = [...new Set([...Object.keys(questions), ...Object.keys(ratings)])];
  return section(
    "Models",
    "How often each was asked, and what its answers were rated.",
    names.length &&
      table(
        ["Model", "Questions", "Rated good", "Rated bad"],
        names.map((name) => [
          name,
          numberCell(formatCount(questions[name])),
          numberCell(formatCount(ratings[name]?.up)),
          numberCell(formatCount(ratings[name]?.down)),
        ]),
      ),
    "Nobody has asked anything yet.",
  );
}

function section(title, about, content, empty) {
  return make(
    "section",
    {},
    make("h2", {}, title),
    content && about ? make("p", { class: "about" }, about) : null,
    content
      ? make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": title }, content)
      : make("p", { class: "about" }, empty),
  );
}

/** A table whose first column names the rows. A cell is text, a node, or {node, kind}. */
function table(head, rows) {
  const cell = (content, n) => {
    const { node, kind } = content?.kind ? content : { node: content, kind: null };
    return make("td", { class: kind, "data-head": head[n + 1] }, node);
  };
  const kinds = rows[0].map((content) => content?.kind ?? null);
  return make(
    "table",
    {},
    make(
      "thead",
      {},
      make(
        "tr",
        {},
        ...head.map((words, n) =>
          make(words ? "th" : "td", { scope: words ? "col" : null, class: kinds[n] }, words),
        ),
      ),
    ),
    make(
      "tbody",
      {},
      ...rows.map(([name, ...others]) =>
        make("tr", {}, make("th", { scope: "row" }, name), ...others.map(cell)),
      ),
    ),
  );
}

const numberCell = (node) => ({ node, kind: "number" });
const chartCell = (node) => ({ node, kind: "drawn" });
const formatCount = (n) => (n ?? 0).toLocaleString("en");

/** A time in seconds or by ISO 8601 as a date. */
function formatDate(time) {
  const date = new Date(typeof time === "number" ? time * 1000 : time);
  return Number.isNaN(date.getTime())
    ? String(time)
    : date.toLocaleDateString("en-GB", { day: "numeric", month: "long", year: "numeric" });
}

start();
