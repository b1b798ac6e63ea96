/** Tabs by the pattern of WAI-ARIA: the arrow keys move, and what is moved to is shown. */

import { make, set } from "./dom.js";

/** Fills a list of tabs. `ways` are {name, title, panel}; `shown` is told which one is seen. */
export function tabs(list, ways, shown) {
  const buttons = ways.map(({ name, title, panel }) => {
    panel.id = `panel-${name}`;
    set(panel, "role", "tabpanel");
    set(panel, "aria-labelledby", `tab-${name}`);
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
    const here = buttons.indexOf(document.activeElement);
    const last = buttons.length - 1;
    const next = {
      ArrowRight: here === last ? 0 : here + 1,
      ArrowLeft: here === 0 ? last : here - 1,
      Home: 0,
      End: last,
    }[event.key];
    if (here < 0 || next === undefined) return;
    event.preventDefault();
    buttons[next].focus();
    show(ways[next].name);
  });

  function show(name) {
    ways.forEach((way, n) => {
      const seen = way.name === name;
      set(buttons[n], "aria-selected", String(seen));
      buttons[n].tabIndex = seen ? 0 : -1;
      way.panel.hidden = !seen;
    });
    history.replaceState(null, "", `#${name}`);
    shown(name);
  }

  const asked = location.hash.slice(1);
  show(ways.some(({ name }) => name === asked) ? asked : ways[0].name);
}
