// The charts of the page. Each is a function that gives the description of plot.js, or a sentence that says why there
// is none; it is called when the chart comes into view, and again when choices change.
(() => {
  "use strict";
  const { data, unpack, show, grouped, element, byId, places } = sweep;
  const verdict = data.verdict, winner = data.winner, called = data.called;
  const narrow = () => window.innerWidth < 720;
  const growth = (value) => String(Number(value.toPrecision(3)));

  // ---- equity fan ----------------------------------------------------------------------------------------------

  let curves = null, chosen = null;

  const instants = (dates) => dates.map((date) => Date.parse(date));

  function fan() {
    const { kept } = data.fan, dates = instants(data.fan.dates), points = dates.length;
    const bands = unpack(data.fan.bands), band = (at) => bands.subarray(at * points, (at + 1) * points);
    const marks = [];
    const filled = (low, high, name, opacity) =>
      marks.push({ type: "band", x: dates, y: band(high), low: band(low), colour: "blue", opacity, name });
    const line = (x, y, name, colour, width = 2, dash = "") =>
      marks.push({ type: "line", x, y, name, colour, width, dash });
    if (data.fan.sets > 1) {
      filled(0, 4, "90% of sets", 0.16);
      filled(1, 3, "50% of sets", 0.24);
      line(dates, band(2), "median set", "blue", 1.5);
    }
    const named = { anchored: ["walk-forward, anchored", "green"], rolling: ["walk-forward, rolling", "purple"] };
    for (const [kind, [name, colour]] of Object.entries(named)) {
      const walk = verdict.walk[kind];
      if (walk && walk.dates) line(instants(walk.dates), unpack(walk.growth), name, colour);
    }
    const held = verdict.benchmark;
    if (held.dates) line(instants(held.dates), unpack(held.growth), "BTC held", "grey", 1.5, "dash");
    if (data.fan.winner) line(dates, unpack(data.fan.winner), called, "orange", 2.5);
    if (chosen !== null && chosen < kept && chosen !== data.table.winner) {
      curves ??= unpack(data.fan.curves);
      const own = curves.subarray(chosen * points, (chosen + 1) * points);
      line(dates, own, `set ${places[chosen]}`, "pink", 2.5);
    }
    return {
      x: { kind: "time" }, y: { log: byId("log").checked }, marks, legend: true, unified: true,
      value: (growth) => growth.toFixed(3),
    };
  }

  // ---- heat map ------------------------------------------------------------------------------------------------

  const heat = data.heat;

  // Value by [place up][place across] of the chosen metric; one row when nothing is chosen to go up.
  function cells(across, up, metric, others) {
    const pair = up === null ? [across] : [Math.min(across, up), Math.max(across, up)];
    const part = heat.cells[pair.join("-")];
    if (!part[others]) return null;
    const wide = heat.axes[across].labels.length, high = up === null ? 1 : heat.axes[up].labels.length;
    const values = unpack(part[others]).subarray(metric * wide * high), counts = unpack(part.count);
    const at = (x, y) => (up === null || across > up ? y * wide + x : x * high + y);
    const line = (array, y) => Array.from({ length: wide }, (_, x) => array[at(x, y)]);
    const grid = (array) => Array.from({ length: high }, (_, y) => line(array, y));
    const number = (value) => (Number.isNaN(value) ? null : value);
    return { values: grid(values).map((row) => row.map(number)), counts: grid(counts) };
  }

  function heatmap() {
    const metric = Number(byId("metric").value), others = byId("others").value;
    const across = Number(byId("across").value), up = byId("up").value === "" ? null : Number(byId("up").value);
    const described = heat.metrics[metric], first = heat.axes[across], second = up === null ? null : heat.axes[up];
    const found = cells(across, up, metric, others);
    const caption = byId("heat").closest("figure").querySelector("figcaption");
    const words = {
      median: "median of the sets of each cell", best: "of the set with the best Sharpe ratio in each cell",
      fixed: `all other parameters as the ${called} has them`,
    };
    const title = `${described.label} by ${first.name}${second ? ` and ${second.name}` : ""} `;
    caption.replaceChildren(title, element("span", { textContent: words[others] }));
    const notes = [];
    if (winner) notes.push(second ? `The outlined cell is the ${called}'s.` : `The orange point is the ${called}'s.`);
    const grouping = [first, second].some((one) => one && one.grouped);
    if (grouping) notes.push("Neighbouring values of a parameter with many values share a cell.");
    byId("heatnote").textContent = notes.join(" ");
    if (!found || !found.values.flat().some((value) => value !== null)) return "No set with such a figure.";
    const written = (value) => show(value, described.form);
    const figure = (value) => (described.form === "percent" ? written(value).replace(/\.0+%$/, "%") : growth(value));
    const count = (number) => (number === 1 ? "1 set" : `${grouped(number, 0)} sets`);
    const tips = (x, y) => [`${first.name} = ${first.labels[x]}`, [
      ...(second ? [{ name: `${second.name} = ${second.labels[y]}` }] : []),
      { name: described.label, value: written(found.values[y][x]) }, { name: count(found.counts[y][x]) },
    ]];
    const wins = winner && first.winner !== null, along = { title: first.name, names: first.labels };
    if (!second) return {
      x: along, y: { title: described.label, format: figure },
      marks: [{
        type: "line", points: 4.5, x: first.labels.map((_, x) => x), y: found.values[0], colour: "blue",
        colours: first.labels.map((_, x) => (wins && x === first.winner ? "orange" : "blue")), tips: (x) => tips(x, 0),
      }],
    };
    const numbers = found.values.flat().filter((value) => value !== null);
    const low = Math.min(...numbers), high = Math.max(...numbers), crosses = low < 0 && high > 0;
    const far = Math.max(-low, high), ends = crosses ? [-far, far] : [low, high === low ? low + 1e-9 : high];
    return {
      x: along, y: { title: second.name, names: second.labels },
      cells: {
        values: found.values,
        texts: found.values.map((row) => row.map((value) => (value === null ? "" : written(value)))),
        written: first.labels.length <= 14 && second.labels.length <= 14, bar: !narrow(), ends, tips, format: figure,
        colours: ["low", crosses ? "mid" : "pale", "high"], chosen: wins ? [first.winner, second.winner] : null,
      },
    };
  }

  function choices() {
    const option = (value, label) => element("option", { value, textContent: label });
    byId("metric").append(...heat.metrics.map((metric, at) => option(at, metric.label)));
    for (const id of ["across", "up"]) byId(id).append(...heat.axes.map((one, at) => option(at, one.name)));
    byId("up").append(option("", "nothing: a line"));
    // The first two parameters that take more than one value.
    const varying = heat.axes.map((one, at) => at).filter((at) => heat.axes[at].labels.length > 1);
    byId("across").value = varying[0] ?? 0;
    byId("up").value = varying[1] ?? "";
    const fixed = byId("others").querySelector("[value=fixed]");
    if (winner) fixed.textContent = `as the ${called} has them`;
    else fixed.remove();
    let before = [byId("across").value, byId("up").value];
    for (const id of ["metric", "across", "up", "others"]) byId(id).addEventListener("change", () => {
      // A parameter against itself is asked for by choosing it twice: then they change places.
      const [changed, other] = id === "across" ? [0, "up"] : [1, "across"];
      if (byId("across").value === byId("up").value) byId(other).value = before[changed];
      if (byId("across").value === "") byId("across").value = byId("up").value === "0" && heat.axes.length > 1 ? 1 : 0;
      if (byId("across").value === byId("up").value) byId("up").value = "";
      before = [byId("across").value, byId("up").value];
      draw("heat");
    });
  }

  // ---- luck ----------------------------------------------------------------------------------------------------

  const bars = ({ edges, counts }, colour, opacity, more = {}) => ({
    type: "bars", y: counts, colour, opacity, x: counts.map((_, at) => (edges[at] + edges[at + 1]) / 2),
    width: counts.map((_, at) => edges[at + 1] - edges[at]), ...more,
    tips: (at) => [`${edges[at].toFixed(2)} to ${edges[at + 1].toFixed(2)}`, [{ value: grouped(counts[at], 0) }]],
  });

  function sharpes() {
    if (!data.histogram) return "No set has a Sharpe ratio.";
    const { edges, counts } = data.histogram, trials = verdict.trials, rules = [];
    const marks = [bars(data.histogram, "blue", 0.55, { name: "sets" })];
    const sets = counts.reduce((sum, count) => sum + count, 0);
    const width = edges[1] - edges[0], spread = trials.sharpe_sd_annual;
    if (spread > 0) {
      const x = Array.from({ length: 121 }, (_, at) => spread * (at - 60) / 15);
      const y = x.map((at) => (sets * width * Math.exp(-0.5 * (at / spread) ** 2)) / (spread * Math.sqrt(2 * Math.PI)));
      marks.push({ type: "line", x, y, name: "noise without skill", colour: "grey" });
    }
    const said = trials.judged;
    const at = (x, name, colour, dash = "dot") => {
      if (typeof x === "number") rules.push({ x, name, colour, dash });
    };
    const effective = trials.effective ? trials.effective.toFixed(1) : "";
    at(trials.expected_max_sharpe_effective_annual, `luck, ${effective} effective trials`, "purple");
    at(trials.expected_max_sharpe_raw_annual, `luck, ${said ? grouped(said, 0) : "all"} trials`, "pink");
    at(winner && winner.sharpe, called, "orange", "");
    return { x: { title: "Sharpe ratio" }, y: { title: "sets" }, marks, rules, legend: marks.length > 1 };
  }

  function degradation() {
    const pbo = verdict.pbo;
    if (pbo.why) return pbo.why;
    const x = pbo.in_sample, y = pbo.out_of_sample, known = x.filter((value) => value !== null);
    if (!known.length) return "The verdict keeps no pairs of in-sample and out-of-sample Sharpe ratios.";
    const ends = [Math.min(...known), Math.max(...known)], { slope, intercept } = pbo;
    const marks = [{
      type: "dots", x, y, name: "splits", colour: "blue", opacity: 0.4,
      tips: (at) => ["a split", [{ value: x[at].toFixed(2), name: "in" }, { value: y[at].toFixed(2), name: "out" }]],
    }];
    if (typeof slope === "number" && typeof intercept === "number") marks.push({
      type: "line", x: ends, y: ends.map((at) => intercept + slope * at), colour: "orange", width: 2.5,
      name: `out = ${intercept.toFixed(2)} ${slope < 0 ? "−" : "+"} ${Math.abs(slope).toFixed(2)} in`,
    });
    marks.push({ type: "line", x: ends, y: ends, name: "no degradation", colour: "grey", width: 1.5, dash: "dot" });
    return { x: { title: "Sharpe in sample" }, y: { title: "out of sample" }, marks, legend: true };
  }

  function logits() {
    const pbo = verdict.pbo;
    if (pbo.why) return pbo.why;
    if (!pbo.logits) return "The verdict keeps no logits.";
    const { edges, counts } = pbo.logits;
    const colours = counts.map((_, at) => ((edges[at] + edges[at + 1]) / 2 <= 0 ? "low" : "blue"));
    const zero = typeof pbo.pbo === "number" ? `${show(pbo.pbo, "percent")} at or below 0` : "";
    return {
      x: { title: "logit of the rank out of sample" }, y: { title: "splits" },
      marks: [bars(pbo.logits, "blue", 0.7, { colours })], rules: [{ x: 0, name: zero, colour: "loss", dash: "dot" }],
    };
  }

  // What chance alone would give, with the winner marked: {null: {edges, counts}, statistic, critical}.
  function chance(name, unit) {
    return () => {
      const part = verdict[name], rules = [];
      if (part.why) return part.why;
      if (typeof part.critical === "number")
        rules.push({ x: part.critical, name: "5% are above", colour: "pink", dash: "dot" });
      if (typeof part.statistic === "number") rules.push({ x: part.statistic, name: "winner", colour: "orange" });
      return { x: { title: unit }, y: { title: "draws" }, marks: [bars(part.null, "grey", 0.7)], rules };
    };
  }

  // ---- stress --------------------------------------------------------------------------------------------------

  // Sharpe ratio by one thing that is changed; what else the row knows is in the hover text.
  function stress(name, key, unit, options = {}) {
    return () => {
      const rows = verdict[name];
      if (!Array.isArray(rows)) return rows.why;
      const written = (row) => String(row[key]);
      const x = rows.map((row) => (options.time ? Date.parse(row[key]) : row[key]));
      const tips = (at) => [unit.replace("?", written(rows[at])), [
        { name: "Sharpe", value: show(rows[at].sharpe, "ratio") },
        ...("cagr" in rows[at] ? [{ name: "CAGR", value: show(rows[at].cagr, "percent") }] : []),
        ...("max_drawdown" in rows[at] ? [{ name: "drawdown", value: show(rows[at].max_drawdown, "percent") }] : []),
        ...("days" in rows[at] ? [{ value: `${rows[at].days} days` }] : []),
      ]];
      return {
        x: { kind: options.time ? "time" : "" }, y: { zero: true },
        marks: [{
          ...(options.bars ? { type: "bars", width: 0.75 } : { type: "line", points: 3.5 }), x, colour: "blue", tips,
          y: rows.map((row) => row.sharpe ?? null),
          colours: rows.map((row) => (row[key] === options.own ? "orange" : "blue")),
        }],
      };
    };
  }

  function plateau() {
    const part = verdict.plateau, note = byId("plateaunote");
    note.textContent = "";
    if (part.why) return part.why;
    const each = part.neighbours;
    const said = [`${each.length} neighbours`];
    if (typeof part.median === "number") said.push(`median ${show(part.median, "ratio")}`);
    if (winner) said.push(`winner ${show(winner.sharpe, "ratio")}`);
    if (typeof part.share_positive === "number") said.push(`${Math.round(100 * part.share_positive)}% above 0`);
    note.textContent = `${said.join(", ")}.`;
    // Two lines, so that the values of one parameter stay apart where there is no room for its whole name.
    const rules = winner ? [{ y: winner.sharpe, name: "winner", colour: "orange" }] : [];
    return {
      x: { names: each.map(({ axis, label }) => `${axis}\n= ${label}`) }, y: { zero: true }, rules,
      marks: [{
        type: "bars", x: each.map((_, at) => at), y: each.map((one) => one.sharpe), width: 0.6, colour: "blue",
        opacity: 0.8,
        tips: (at) => [
          `${each[at].axis} = ${each[at].label}`, [{ name: "Sharpe", value: show(each[at].sharpe, "ratio") }],
        ],
      }],
    };
  }

  // ---- drawing -------------------------------------------------------------------------------------------------

  const charts = {
    fan, heat: heatmap, sharpes,
    familywise: chance("familywise", "Sharpe ratio, in standard errors"),
    null_books: chance("null_books", "Sharpe ratio"), null_search: chance("null_search", "Sharpe ratio of the best"),
    degradation, logits, plateau,
    cost_stress: stress("cost_stress", "factor", "costs times ?", { own: 1 }),
    delay_stress: stress("delay_stress", "hours", "? hours late"),
    decision_hours: stress("decision_hours", "hour", "?:00 UTC", { bars: true, own: data.hour }),
    start_dates: stress("start_dates", "start", "from ?", { time: true }),
  };
  const drawn = new Set();

  function draw(name) {
    drawn.add(name);
    plot(byId(name), charts[name](), name === "heat" ? `${byId("across").value}-${byId("up").value}` : name);
  }

  choices();
  if (data.fan) {
    const unwalked = verdict.walk.why ?? verdict.walk.anchored.why ?? verdict.walk.rolling.why;
    if (unwalked) byId("walknote").textContent = `Walk-forward: ${unwalked}`;
    byId("log").addEventListener("change", () => draw("fan"));
  }
  sweep.onChosen((row) => { chosen = row; if (drawn.has("fan")) draw("fan"); });
  // A chart fits itself to a new width; what depends on narrow() is decided here.
  let wasNarrow = narrow();
  window.addEventListener("resize", () => {
    if (narrow() === wasNarrow) return;
    wasNarrow = narrow();
    drawn.forEach(draw);
  });
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting && !drawn.has(entry.target.id)) draw(entry.target.id);
  }, { rootMargin: "400px" });
  // A page without curves or without a verdict has not all of them.
  const names = Object.keys(charts).filter(byId);
  for (const name of names) {
    // Parts that are not there say so at once, and take no room until then.
    const part = verdict[name];
    if (part && part.why) draw(name);
    else seen.observe(byId(name));
  }
  window.addEventListener("beforeprint", () => names.forEach((name) => drawn.has(name) || draw(name)));
})();
