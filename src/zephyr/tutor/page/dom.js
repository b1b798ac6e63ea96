/** DOM elements and icons. Text becomes text nodes; nothing is ever parsed as HTML. */

/**
 * An element with attributes (`true` sets an empty one, `false` and `null` none), event listeners
 * under `on`, and children: nodes or text.
 */
export function make(tag, attributes = {}, ...children) {
  const { on = {}, ...plain } = attributes;
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(plain)) setAttribute(element, name, value);
  for (const [event, listener] of Object.entries(on)) element.addEventListener(event, listener);
  element.append(...children.filter((child) => child != null && child !== false));
  return element;
}

export function setAttribute(element, name, value) {
  if (value === false || value == null) element.removeAttribute(name);
  else element.setAttribute(name, value === true ? "" : value);
}

/** A button with a click handler; `kind` is its class, or all its attributes. */
export function button(kind, onClick, ...children) {
  const attributes = typeof kind === "string" ? { class: kind } : kind;
  return make("button", { type: "button", ...attributes, on: { click: onClick } }, ...children);
}

/** An empty state: a title, and a sentence on what to do. */
export function emptyState(title, text, ...more) {
  return make("div", { class: "empty" }, make("h2", {}, title), make("p", {}, text), ...more);
}

let lastId = 0;

/** An id that no other element has. */
export const uniqueId = (prefix) => `${prefix}-${++lastId}`;

const ICON_PATHS = {
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

/** An icon of 24 by 24 in the colour of the text around it. */
export function icon(name) {
  const namespace = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(namespace, "svg");
  for (const [key, value] of [
    ["viewBox", "0 0 24 24"],
    ["class", "icon"],
    ["aria-hidden", "true"],
  ])
    svg.setAttribute(key, value);
  const path = document.createElementNS(namespace, "path");
  path.setAttribute("d", ICON_PATHS[name]);
  svg.append(path);
  return svg;
}

/** Announces a text to screen readers, by the page's live region. */
export function announce(text) {
  document.getElementById("announced").textContent = text;
}
