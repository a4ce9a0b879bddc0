"use strict";
// Sorts a table by the column whose head is clicked: largest first, then smallest first; what is undefined stays last.
for (const table of document.querySelectorAll("table.sort")) {
  const value = (cell, size) => {
    if (cell.dataset.v) return +cell.dataset.v;
    const head = /^L(\d+)[HV](\d+)/.exec(cell.textContent);
    if (head) return -(head[1] * 1e5 + +head[2]);
    const number = parseFloat(cell.textContent.replace("−", "-").replace(/[<+]/, "").replace("∞", "Infinity"));
    return size ? Math.abs(number) : number;
  };
  for (const head of table.tHead.rows[table.tHead.rows.length - 1].querySelectorAll("th")) {
    const sort = () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      for (const other of table.tHead.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows].map((row) => [value(row.cells[head.cellIndex], "size" in head.dataset), row]);
      rows.sort(([x], [y]) => isNaN(x) - isNaN(y) || (down ? y - x : x - y) || 0);
      table.tBodies[0].append(...rows.map(([, row]) => row));
    };
    head.tabIndex = 0;
    head.title = "sort";
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault(); // Space would scroll.
      sort();
    });
  }
}
