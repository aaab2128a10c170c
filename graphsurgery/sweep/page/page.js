"use strict";
(() => {
  const table = document.querySelector("table.cells");
  const form = document.querySelector("form.filters");
  const rows = [...table.tBodies[0].rows];
  const headers = [...table.tHead.rows[0].cells];

  // A key is absent where a figure is not known: such rows come last in both directions.
  const compare = (column, numeric, sign) => (a, b) => {
    const [x, y] = [a, b].map((row) => row.cells[column].dataset.key);
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
    const order = numeric ? Number(x) - Number(y) : x.localeCompare(y, undefined, { numeric: true });
    return sign * order;
  };
  const isNumeric = (column) =>
    rows.every((row) => row.cells[column].dataset.key === undefined || !Number.isNaN(Number(row.cells[column].dataset.key)));
  const sort = (column) => {
    const header = headers[column];
    const sign = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    headers.forEach((each) => each.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    table.tBodies[0].append(...[...rows].sort(compare(column, isNumeric(column), sign)));
  };
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = header.textContent;
    button.addEventListener("click", () => sort(column));
    header.replaceChildren(button);
  });

  const control = (name) => form.querySelector(`[data-filter="${name}"]`);
  const filter = () => {
    const words = control("text").value.toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = ["module", "place", "state"].map((name) => [name, control(name).value]);
    const fits = control("fits")?.checked;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden =
        (fits && row.dataset.fits === undefined) ||
        chosen.some(([name, value]) => value && row.dataset[name] !== value) ||
        words.some((word) => !text.includes(word));
    }
    const shown = rows.filter((row) => !row.hidden).length;
    form.querySelector("output").textContent = `${shown} of ${rows.length} cells`;
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));
  // A link from a plot or a heat map leads to a row that a filter may hide.
  addEventListener("hashchange", () => {
    const row = rows.find((each) => `#${each.id}` === location.hash);
    if (row?.hidden) {
      form.reset();
      filter();
      row.scrollIntoView();
    }
  });
  form.hidden = false;
  filter();
})();
