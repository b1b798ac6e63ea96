/** Nodes made by hand. Text becomes text nodes; nothing is ever parsed as HTML. */

/**
 * An element with attributes (`true` sets an empty one, `false` and `null` none), listeners under
 * `on`, and children: nodes, or what is shown as text.
 */
export function make(tag, attributes = {}, ...children) {
  const { on = {}, ...plain } = attributes;
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(plain)) set(element, name, value);
  for (const [event, act] of Object.entries(on)) element.addEventListener(event, act);
  element.append(...children.filter((child) => child != null && child !== false));
  return element;
}

export function set(element, name, value) {
  if (value === false || value == null) element.removeAttribute(name);
  else element.setAttribute(name, value === true ? "" : value);
}

/** A button of a kind (a class, or all its attributes) that does something. */
export function button(kind, act, ...children) {
  const attributes = typeof kind === "string" ? { class: kind } : kind;
  return make("button", { type: "button", ...attributes, on: { click: act } }, ...children);
}

/** What stands where nothing has happened yet: in one sentence what to do. */
export function empty(title, words, ...more) {
  return make("div", { class: "empty" }, make("h2", {}, title), make("p", {}, words), ...more);
}

let made = 0;

/** An id that no other element has. */
export const newId = (word) => `${word}-${++made}`;

const DRAWINGS = {
  send: "M12 19V6M6 11.5 12 5.5l6 6",
  stop: "M8 8h8v8H8z",
  copy: "M9 9h10v10H9zM5.5 15V5H15",
  done: "m5.5 12.5 4.5 4.5 9-10",
  again: "M19 8.5A8 8 0 1 0 20 14M19.5 4v5h-5",
  up: "M7 11v8H4.5v-8zM7 11l4.2-7q2 .3 1.8 2.5L12.5 10H18q2 .2 1.8 2.2L18.5 17.6q-.5 1.4-1.8 1.4H7",
  down: "M7 13V5H4.5v8zM7 13l4.2 7q2-.3 1.8-2.5L12.5 14H18q2-.2 1.8-2.2L18.5 6.4Q18 5 16.7 5H7",
  remove: "M7 7l10 10M17 7 7 17",
  add: "M12 5.5v13M5.5 12h13",
  chats: "M4.5 7h15M4.5 12h15M4.5 17h9",
};

/** A drawing of 24 by 24 in the colour of the text around it. */
export function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  for (const [key, value] of [
    ["viewBox", "0 0 24 24"],
    ["class", "icon"],
    ["aria-hidden", "true"],
  ])
    svg.setAttribute(key, value);
  const path = document.createElementNS(space, "path");
  path.setAttribute("d", DRAWINGS[name]);
  svg.append(path);
  return svg;
}

/** Says something to those who listen to the page instead of looking at it. */
export function announce(words) {
  document.getElementById("announced").textContent = words;
}
