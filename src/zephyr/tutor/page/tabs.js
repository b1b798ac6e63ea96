/** Tabs by the WAI-ARIA pattern: the arrow keys move the focus, and its tab is shown. */

import { make, setAttribute } from "./dom.js";

/** Fills a tab list. `items` are {name, title, panel}; `onShow` is called with the name shown. */
export function tabs(list, items, onShow) {
  const buttons = items.map(({ name, title, panel }) => {
    panel.id = `panel-${name}`;
    setAttribute(panel, "role", "tabpanel");
    setAttribute(panel, "aria-labelledby", `tab-${name}`);
    return make(
      "button",
      {
        type: "button",
        role: "tab",
        id: `tab-${name}`,
        "aria-controls": panel.id,
        on: { click: () => show(name) },
      },
      title,
    );
  });
  list.replaceChildren(...buttons);
  list.addEventListener("keydown", (event) => {
    const focused = buttons.indexOf(document.activeElement);
    const last = buttons.length - 1;
    const next = {
      ArrowRight: focused === last ? 0 : focused + 1,
      ArrowLeft: focused === 0 ? last : focused - 1,
      Home: 0,
      End: last,
    }[event.key];
    if (focused < 0 || next === undefined) return;
    event.preventDefault();
    buttons[next].focus();
    show(items[next].name);
  });

  function show(name) {
    items.forEach((item, n) => {
      const selected = item.name === name;
      setAttribute(buttons[n], "aria-selected", String(selected));
      buttons[n].tabIndex = selected ? 0 : -1;
      item.panel.hidden = !selected;
    });
    history.replaceState(null, "", `#${name}`);
    onShow(name);
  }

  const requested = location.hash.slice(1);
  show(items.some(({ name }) => name === requested) ? requested : items[0].name);
}
