// Puts the rows of a table in the order of one column's numbers: up, down, and back as they were.
"use strict";
const next = { none: "ascending", ascending: "descending", descending: "none" };
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.querySelectorAll("th[data-column]")];
  const compare = (column, sign) => (a, b) => {
    const [x, y] = [a, b].map((row) => row.cells[column].dataset.value);
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
    return sign * (x - y);
  };
  for (const head of heads) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const order = next[head.getAttribute("aria-sort") ?? "none"];
      for (const other of heads) other.removeAttribute("aria-sort");
      if (order !== "none") head.setAttribute("aria-sort", order);
      const sign = { none: 0, ascending: 1, descending: -1 }[order];
      body.append(...(sign ? [...rows].sort(compare(head.dataset.column, sign)) : rows));
    });
  }
}
