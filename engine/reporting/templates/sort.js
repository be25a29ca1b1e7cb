// Tables of class "sortable": a heading that is chosen sorts by its column; data-v holds what a cell is sorted by.
(() => {
  "use strict";
  const words = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

  function sortable(table) {
    const body = table.tBodies[0], heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
    const rows = [...body.rows], place = new Map(rows.map((row, at) => [row, at]));

    function key(row, column, numeric) {
      // A row with one cell for all figures, as of a damaged run, has nothing to sort by.
      const cell = row.cells.length === heads.length || column === 0 ? row.cells[column] : null;
      const text = cell ? cell.dataset.v ?? cell.textContent.trim() : "";
      return text === "" ? null : numeric ? Number(text) : text;
    }

    function sort(column) {
      const head = heads[column], numeric = head.classList.contains("n"), now = head.getAttribute("aria-sort");
      // Numbers start with the largest, words with A.
      const down = now === "none" ? numeric : now === "ascending";
      const order = (one, other) => {
        const [a, b] = [key(one, column, numeric), key(other, column, numeric)];
        // What has no value stays at the end in both directions.
        if (a === null || b === null) return (a === null) - (b === null) || place.get(one) - place.get(other);
        const apart = numeric ? a - b : words.compare(a, b);
        return (down ? -apart : apart) || place.get(one) - place.get(other);
      };
      body.append(...[...rows].sort(order));
      for (const other of heads) other.setAttribute("aria-sort", other === head ? (down ? "descending" : "ascending") : "none");
    }

    heads.forEach((head, column) => head.firstElementChild?.addEventListener("click", () => sort(column)));
  }

  for (const table of document.querySelectorAll("table.sortable")) sortable(table);
})();
