// The numbers of the page and the table of sets. What the charts share with it is in `sweep`.
const sweep = (() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const TYPES = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, f4: Float32Array };
  const byId = (id) => document.getElementById(id);

  // An array that Python's packed() has written.
  function unpack(packed) {
    const text = atob(packed.data);
    const bytes = new Uint8Array(text.length);
    for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at);
    const values = new TYPES[packed.type](bytes.buffer);
    if (!packed.of) return values;
    const levels = unpack(packed.of);
    return Float32Array.from(values, (place) => levels[place]);
  }

  // A new element; text is always set as text, never as HTML.
  function element(tag, properties = {}, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  const grouped = (value, digits) =>
    value.toLocaleString("en-US", {
      minimumFractionDigits: digits, maximumFractionDigits: digits, signDisplay: "negative", // no -0.00
    });

  // A metric as it is read; "percent", "ratio", "usd" and "count" are Python's form().
  function show(value, form) {
    if (value === null || value === undefined || Number.isNaN(value)) return "n/a";
    if (form === "percent") return grouped(value * 100, Math.abs(value) < 10 ? 2 : 0) + "%";
    if (form === "ratio") return grouped(value, 2);
    if (form === "usd") return grouped(value, 0);
    return Number.isInteger(value) ? grouped(value, 0) : String(Number(value.toPrecision(6)));
  }

  const columns = data.table.columns.map((column) => ({ ...column }));
  for (const column of columns) {
    if (column.data) column.data = unpack(column.data);
    if (column.codes) column.codes = unpack(column.codes);
  }
  const places = unpack(data.table.rows);
  const text = (column, row) => (column.data ? show(column.data[row], column.form) : column.values[column.codes[row]]);
  const number = (column, row) => (column.data ? column.data[row] : column.numbers[column.codes[row]]);

  // Figures below 0 of these are a loss; a drawdown or a net exposure below 0 says nothing.
  const REDDENED = new Set(["sharpe_joint", "sharpe", "cagr", "total_return", "sortino", "calmar"]);

  // ---- filters -------------------------------------------------------------------------------------------------

  // A test of rows for what stands in a column's filter; null for nothing, undefined for what cannot be read.
  function test(column, typed) {
    typed = typed.trim();
    if (!typed) return null;
    return column.kind === "number" ? numberTest(column, typed) : textTest(column, typed);
  }

  function textTest(column, typed) {
    const wanted = typed.replace(/^[=!]/, "").trim().toLowerCase();
    const exact = typed.startsWith("=");
    // Each distinct text is looked at once.
    const hits = column.values.map((value) => {
      const matches = exact ? value.toLowerCase() === wanted : value.toLowerCase().includes(wanted);
      return matches !== typed.startsWith("!");
    });
    return (row) => hits[column.codes[row]];
  }

  function numberTest(column, typed) {
    // Figures are kept as float32: a typed bound must be rounded as they are, or =0.1 would find nothing.
    const read = (digits) => {
      const value = Number(digits.replace(/[%,_]/g, "")) / (column.form === "percent" ? 100 : 1);
      return column.data ? Math.fround(value) : value;
    };
    const one = String.raw`[-+]?[\d.,_]*\d[\d,_]*\.?(?:e[-+]?\d+)?%?`;
    const range = new RegExp(`^(${one})\\.\\.(${one})$`, "i");
    const compared = new RegExp(`^(<=|>=|!=|<|>|=)?(${one})$`, "i");
    const tests = [];
    for (const part of typed.replace(/([<>=!])\s+/g, "$1").split(/\s+/)) {
      const between = part.match(range), bound = part.match(compared);
      if (part.toLowerCase() === "n/a") tests.push(Number.isNaN);
      else if (between) {
        const [low, high] = [read(between[1]), read(between[2])];
        if (Number.isNaN(low + high)) return undefined;
        tests.push((value) => value >= low && value <= high);
      } else if (bound) {
        const limit = read(bound[2]), digits = bound[2].replace(/[%,_+]/g, "");
        if (Number.isNaN(limit)) return undefined;
        const shown = (value) => show(value, column.form).replace(/[%,]/g, "") === digits;
        tests.push({
          "<": (value) => value < limit,
          "<=": (value) => value <= limit,
          ">": (value) => value > limit,
          ">=": (value) => value >= limit,
          "!=": (value) => value !== limit && !shown(value),
        }[bound[1]] ?? ((value) => value === limit || shown(value)));
      } else return undefined;
    }
    return (row) => tests.every((holds) => holds(number(column, row)));
  }

  // ---- order ---------------------------------------------------------------------------------------------------

  const words = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

  // What rows are sorted by: the number, or the rank of the text; NaN goes last whatever the direction.
  function keys(column) {
    if (column.data) return column.data;
    if (column.kind === "number") return Float64Array.from(column.codes, (code) => column.numbers[code]);
    const texts = column.values, order = texts.map((_, code) => code);
    order.sort((a, b) => words.compare(texts[a], texts[b]));
    const rank = new Float64Array(column.values.length);
    order.forEach((code, place) => { rank[code] = column.values[code] === "" ? NaN : place; });
    return Float64Array.from(column.codes, (code) => rank[code]);
  }

  const state = {
    order: Array.from(places, (place, row) => row), first: 0,
    by: 0, down: true, chosen: null, all: false,
  };
  const filters = columns.map(() => null);
  // What stands in state.by instead of a column: the number of the set, or the order of the page.
  const SET = -2, NONE = -1;

  function arrange() {
    const rows = [];
    const tests = filters.filter(Boolean);
    for (let row = 0; row < places.length; row++) if (tests.every((holds) => holds(row))) rows.push(row);
    if (state.by !== NONE) {
      const key = state.by === SET ? places : keys(columns[state.by]), sign = state.down ? -1 : 1;
      rows.sort((a, b) => {
        const x = key[a], y = key[b];
        if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y) || a - b;
        return sign * (x - y) || a - b;
      });
    }
    state.order = rows;
    state.first = 0;
    body();
  }

  // ---- table ---------------------------------------------------------------------------------------------------

  const table = byId("sets"), listeners = [];
  const shown = () => columns.map((column, at) => at).filter((at) => state.all || columns[at].main || columns[at].typed);
  const size = () => Number(byId("size").value);

  function head() {
    const own = element("button", { type: "button", textContent: "set" });
    const titles = element("tr", {}, element("th", { scope: "col", className: "t" }, own));
    const inputs = element("tr", {}, element("th"));
    own.addEventListener("click", () => sort(SET));
    for (const at of shown()) {
      const column = columns[at];
      const button = element("button", { type: "button", textContent: column.label, title: column.name });
      const cell = element("th", { scope: "col", className: column.kind === "text" ? "t" : "" }, button);
      cell.dataset.column = at;
      button.addEventListener("click", () => sort(at));
      const input = element("input", {
        type: "text", value: column.typed ?? "", autocomplete: "off", spellcheck: false,
      });
      input.setAttribute("aria-label", `Filter ${column.label}`);
      input.dataset.column = at;
      input.addEventListener("input", () => {
        column.typed = input.value;
        const filter = test(column, input.value);
        input.setAttribute("aria-invalid", filter === undefined);
        filters[at] = filter ?? null;
        arrange();
      });
      titles.append(cell);
      inputs.append(element("th", { className: cell.className }, input));
    }
    table.tHead.replaceChildren(titles, inputs);
    mark();
  }

  // Says in the headings what the table is sorted by.
  function mark() {
    for (const cell of table.tHead.rows[0].cells) {
      const sorted = Number(cell.dataset.column ?? SET) === state.by;
      cell.setAttribute("aria-sort", sorted ? (state.down ? "descending" : "ascending") : "none");
    }
  }

  // Figures start with the largest, words with A and the number of the set with 0.
  function sort(at) {
    state.down = at === state.by ? !state.down : at !== SET && columns[at].kind === "number";
    state.by = at;
    mark();
    arrange();
  }

  function body() {
    const visible = shown(), rows = state.order.slice(state.first, state.first + size());
    table.tBodies[0].replaceChildren(...rows.map((row) => {
      const place = places[row];
      const button = element("button", { type: "button", textContent: String(place), title: "show its curve" });
      button.setAttribute("aria-pressed", row === state.chosen);
      const first = element("td", { className: "t" }, button);
      if (row === data.table.winner)
        first.append(element("span", { className: "star", textContent: " ★", title: data.called }));
      const page = data.pages[place];
      if (page) first.append(" ", element("a", { href: page, textContent: "tearsheet" }));
      const line = element("tr", { className: row === state.chosen ? "chosen" : "" }, first);
      line.dataset.row = row;
      for (const at of visible) {
        const column = columns[at], written = text(column, row);
        const cell = element("td", { textContent: written });
        if (column.kind === "text") cell.className = column.name === "error" ? "t error" : "t";
        else if (REDDENED.has(column.name) && column.data[row] < 0) cell.className = "loss";
        if (written.length > 40) cell.title = written;
        line.append(cell);
      }
      return line;
    }));
    const count = state.order.length, last = Math.min(state.first + size(), count);
    const of = count === places.length ? "" : `, of ${grouped(places.length, 0)}`;
    const range = `${grouped(state.first + 1, 0)} to ${grouped(last, 0)} of ${grouped(count, 0)} sets`;
    byId("count").textContent = (count ? range : "no set") + of;
    byId("before").disabled = state.first === 0;
    byId("after").disabled = last >= count;
  }

  // A set is chosen, or no longer: its figures are listed and the charts follow.
  function choose(row) {
    state.chosen = row === state.chosen ? null : row;
    for (const line of table.tBodies[0].rows) {
      const mine = Number(line.dataset.row) === state.chosen;
      line.classList.toggle("chosen", mine);
      line.querySelector("button").setAttribute("aria-pressed", mine);
    }
    detail();
    for (const listener of listeners) listener(state.chosen);
  }

  function detail() {
    const box = byId("detail"), row = state.chosen;
    box.hidden = row === null;
    if (row === null) return;
    const list = element("dl", { className: "facts" });
    for (const column of columns) {
      const written = text(column, row);
      if (written === "") continue;
      const name = element("dt", { textContent: column.label });
      list.append(element("div", {}, name, element("dd", { textContent: written })));
    }
    box.replaceChildren(element("h3", { textContent: `Set ${places[row]}` }), list);
    const curves = data.fan ? data.fan.kept : 0;
    if (row >= curves && row !== data.table.winner && data.fan)
      box.append(element("p", {
        className: "faint", textContent: `Curves are on the page for the ${grouped(curves, 0)} best sets.`,
      }));
  }

  table.tBodies[0].addEventListener("click", (event) => {
    const line = event.target.closest("tr");
    if (line && !event.target.closest("a")) choose(Number(line.dataset.row));
  });
  byId("before").addEventListener("click", () => { state.first = Math.max(0, state.first - size()); body(); });
  byId("after").addEventListener("click", () => { state.first += size(); body(); });
  byId("size").addEventListener("change", () => { state.first = 0; body(); });
  byId("all").addEventListener("change", (event) => { state.all = event.target.checked; head(); body(); });
  byId("clear").addEventListener("click", () => {
    for (const column of columns) column.typed = "";
    filters.fill(null);
    head();
    arrange();
  });
  head();
  body();

  return { data, unpack, show, grouped, element, byId, places, onChosen: (listener) => listeners.push(listener) };
})();
