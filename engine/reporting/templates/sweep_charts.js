// The charts. Each is a function that gives plotly's traces and layout, or a sentence that says why there is none;
// it is called when the chart comes into view, and again when colours or choices change.
(() => {
  "use strict";
  const { data, unpack, show, grouped, element, byId, places } = sweep;
  const verdict = data.verdict, winner = data.winner, called = data.called;
  const narrow = () => window.innerWidth < 720;
  const touch = window.matchMedia("(pointer: coarse)").matches;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  // Colours are those of the style sheet, so that light and dark are said once.
  function colours() {
    const style = getComputedStyle(document.documentElement);
    return new Proxy({}, { get: (_, name) => style.getPropertyValue(`--${name}`).trim() });
  }

  // A hex colour with an opacity.
  const faded = (hex, opacity) => {
    const full = hex.length === 4 ? hex.replace(/[0-9a-f]/gi, "$&$&") : hex;
    return `rgba(${[1, 3, 5].map((at) => parseInt(full.slice(at, at + 2), 16)).join(",")},${opacity})`;
  };

  // plotly reads some HTML in texts; names and values of parameters are no HTML.
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const short = (text, most = 24) => plain(text.length > most ? text.slice(0, most - 1) + "…" : text);

  function axis(title, more = {}) {
    const c = colours();
    return {
      title: { text: title, font: { size: 12, color: c.faint }, standoff: 8 },
      automargin: true, gridcolor: c.line, zerolinecolor: c.grey,
      zerolinewidth: 1, linecolor: c.line, tickfont: { size: 11, color: c.faint }, fixedrange: touch, ...more,
    };
  }

  function layout(x, y, more = {}) {
    const c = colours();
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "Arial, Helvetica, sans-serif", size: 12, color: c.text },
      margin: { l: 46, r: 12, t: 12, b: 40 }, xaxis: x, yaxis: y, showlegend: false, dragmode: touch ? false : "zoom",
      hoverlabel: { bgcolor: c.head, bordercolor: c.grey, font: { color: c.text, size: 12 } },
      legend: { orientation: "h", x: 0, y: -0.14, yanchor: "top", font: { size: 12 } }, ...more,
    };
  }

  // A line across the chart at x, with its name.
  function upright(x, name, colour, row, dash = "dot") {
    return {
      shape: { type: "line", x0: x, x1: x, yref: "paper", y0: 0, y1: 1, line: { color: colour, width: 2, dash } },
      note: {
        x, yref: "paper", y: 1 - 0.085 * row, text: name, showarrow: false, xanchor: "left", yanchor: "top",
        xshift: 4, font: { size: 11, color: colour }, bgcolor: faded(colours().back, 0.75),
      },
    };
  }

  // ---- equity fan ----------------------------------------------------------------------------------------------

  let curves = null, chosen = null;

  function fan() {
    const c = colours(), { dates, kept } = data.fan, points = dates.length;
    const bands = unpack(data.fan.bands), band = (at) => bands.subarray(at * points, (at + 1) * points);
    const traces = [];
    const filled = (low, high, name, opacity) => {
      traces.push({ x: dates, y: band(low), mode: "lines", line: { width: 0 }, hoverinfo: "skip", showlegend: false });
      traces.push({
        x: dates, y: band(high), mode: "lines", line: { width: 0 }, fill: "tonexty",
        fillcolor: faded(c.blue, opacity), name, hoverinfo: "skip",
      });
    };
    const line = (x, y, name, colour, width = 2, dash = "solid") =>
      traces.push({
        x, y, mode: "lines", name, line: { color: colour, width, dash },
        hovertemplate: `%{y:.3f} ${name}<extra></extra>`,
      });
    if (data.fan.sets > 1) {
      filled(0, 4, "90% of sets", 0.16);
      filled(1, 3, "50% of sets", 0.24);
      line(dates, band(2), "median set", c.blue, 1.5);
    }
    const named = { anchored: ["walk-forward, anchored", c.green], rolling: ["walk-forward, rolling", c.purple] };
    for (const [kind, [name, colour]] of Object.entries(named)) {
      const walk = verdict.walk[kind];
      if (walk && walk.dates) line(walk.dates, unpack(walk.growth), name, colour);
    }
    const held = verdict.benchmark;
    if (held.dates) line(held.dates, unpack(held.growth), "BTC held", c.grey, 1.5, "dash");
    if (data.fan.winner) line(dates, unpack(data.fan.winner), called, c.orange, 2.5);
    if (chosen !== null && chosen < kept && chosen !== data.table.winner) {
      curves ??= unpack(data.fan.curves);
      line(dates, curves.subarray(chosen * points, (chosen + 1) * points), `set ${places[chosen]}`, c.pink, 2.5);
    }
    const growth = axis("", { type: byId("log").checked ? "log" : "linear", tickformat: ".3~g" });
    return [traces, layout(axis("", { type: "date" }), growth, {
      showlegend: true, hovermode: "x unified", margin: { l: 46, r: 12, t: 8, b: 30 },
      legend: { orientation: "h", x: 0, y: -0.08, yanchor: "top" },
    })];
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

  const ticks = (labels) => {
    // As many labels as there is room for.
    const step = Math.ceil(labels.length / (narrow() ? 10 : 24));
    const tickvals = labels.map((_, at) => at).filter((at) => at % step === 0);
    return {
      tickmode: "array", tickvals, ticktext: tickvals.map((at) => short(labels[at])),
      range: [-0.5, labels.length - 0.5], zeroline: false, showgrid: false,
    };
  };

  function heatmap() {
    const c = colours(), metric = Number(byId("metric").value), others = byId("others").value;
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
    const hover = (x, y) => [
      ...(second ? [`${plain(second.name)} = ${plain(second.labels[y])}`] : []),
      `${plain(first.name)} = ${plain(first.labels[x])}`,
      `<b>${written(found.values[y][x])}</b> ${plain(described.label)}`,
      `${grouped(found.counts[y][x], 0)} sets`,
    ].join("<br>");
    const texts = found.values.map((row, y) => row.map((_, x) => hover(x, y)));
    const wins = winner && first.winner !== null;
    if (!second) {
      const marks = first.labels.map((_, x) => (wins && x === first.winner ? c.orange : c.blue));
      const trace = {
        x: first.labels.map((_, x) => x), y: found.values[0], text: texts[0],
        hovertemplate: "%{text}<extra></extra>", mode: "lines+markers", line: { color: c.blue, width: 2 },
        marker: { size: 9, color: marks }, connectgaps: true,
      };
      const figures = axis(plain(described.label), { tickformat: described.form === "percent" ? ".0%" : "" });
      return [[trace], layout(axis(plain(first.name), ticks(first.labels)), figures)];
    }
    const numbers = found.values.flat().filter((value) => value !== null);
    const low = Math.min(...numbers), high = Math.max(...numbers);
    const crosses = low < 0 && high > 0, far = Math.max(-low, high);
    const trace = {
      type: "heatmap", z: found.values, text: texts, hovertemplate: "%{text}<extra></extra>", xgap: 2, ygap: 2,
      colorscale: crosses ? [[0, c.low], [0.5, c.mid], [1, c.high]] : [[0, c.pale], [1, c.high]],
      zmin: crosses ? -far : low, zmax: crosses ? far : high === low ? low + 1e-9 : high,
      colorbar: {
        thickness: 10, outlinewidth: 0, tickformat: described.form === "percent" ? ".0%" : ".3~g",
        tickfont: { size: 11, color: c.faint }, len: 1,
      },
      showscale: !narrow(),
    };
    const shapes = wins ? [{
      type: "rect", x0: first.winner - 0.5, x1: first.winner + 0.5, y0: second.winner - 0.5,
      y1: second.winner + 0.5, line: { color: c.orange, width: 3 },
    }] : [];
    const annotations = [];
    if (first.labels.length <= (narrow() ? 7 : 14) && second.labels.length <= 14) {
      found.values.forEach((row, y) => row.forEach((value, x) => {
        if (value !== null) annotations.push({
          x, y, text: written(value), showarrow: false,
          font: { size: narrow() ? 10 : 12, color: inkOn(value, trace, c) },
        });
      }));
    }
    return [
      [trace],
      layout(
        axis(plain(first.name), ticks(first.labels)), axis(plain(second.name), ticks(second.labels)),
        { shapes, annotations },
      ),
    ];
  }

  // Black or white, whichever is readable on a cell of this value.
  function inkOn(value, trace, c) {
    const share = (value - trace.zmin) / (trace.zmax - trace.zmin), stops = trace.colorscale;
    const after = Math.max(1, stops.findIndex(([at]) => at >= share));
    const [from, one] = stops[after - 1], [to, two] = stops[after];
    const mix = (at) => {
      const parts = [one, two].map((hex) => parseInt(hex.slice(at, at + 2), 16));
      return parts[0] + ((parts[1] - parts[0]) * (share - from)) / (to - from);
    };
    return 0.299 * mix(1) + 0.587 * mix(3) + 0.114 * mix(5) > 140 ? "#1f2328" : "#ffffff";
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

  const bars = ({ edges, counts }, colour) => ({
    type: "bar", y: counts, marker: { color: colour, line: { width: 0 } },
    x: counts.map((_, at) => (edges[at] + edges[at + 1]) / 2),
    width: counts.map((_, at) => edges[at + 1] - edges[at]),
    customdata: counts.map((_, at) => `${edges[at].toFixed(2)} to ${edges[at + 1].toFixed(2)}`),
    hovertemplate: "%{customdata}: %{y:,}<extra></extra>",
  });

  function sharpes() {
    if (!data.histogram) return "No set has a Sharpe ratio.";
    const c = colours(), { edges, counts } = data.histogram, trials = verdict.trials;
    const traces = [{ ...bars(data.histogram, faded(c.blue, 0.55)), name: "sets" }], lines = [];
    let top = Math.max(...counts);
    const sets = counts.reduce((sum, count) => sum + count, 0);
    const width = edges[1] - edges[0], spread = trials.sharpe_sd_annual;
    if (spread > 0) {
      const x = Array.from({ length: 121 }, (_, at) => spread * (at - 60) / 15);
      const y = x.map((at) => (sets * width * Math.exp(-0.5 * (at / spread) ** 2)) / (spread * Math.sqrt(2 * Math.PI)));
      top = Math.max(top, ...y);
      traces.push({
        x, y, mode: "lines", name: "noise without skill", line: { color: c.grey, width: 2 }, hoverinfo: "skip",
      });
    }
    const said = trials.judged;
    const at = (x, name, colour, dash) => {
      if (typeof x === "number") lines.push(upright(x, name, colour, lines.length, dash));
    };
    const effective = trials.effective ? trials.effective.toFixed(1) : "";
    at(trials.expected_max_sharpe_effective_annual, `luck, ${effective} effective trials`, c.purple);
    at(trials.expected_max_sharpe_raw_annual, `luck, ${said ? grouped(said, 0) : "all"} trials`, c.pink);
    at(winner && winner.sharpe, called, c.orange, "solid");
    leftward(lines, edges);
    return [traces, layout(axis("Sharpe ratio", { zeroline: false }), axis("sets", { range: [0, 1.3 * top] }), {
      bargap: 0, shapes: lines.map((line) => line.shape), annotations: lines.map((line) => line.note),
      showlegend: traces.length > 1, legend: { orientation: "h", x: 0, y: -0.2, yanchor: "top" },
    })];
  }

  // Names of lines in the right half stand left of their line, or they would leave the chart.
  function leftward(lines, edges) {
    const ends = [edges[0], edges[edges.length - 1], ...lines.map((line) => line.note.x)];
    const middle = (Math.min(...ends) + Math.max(...ends)) / 2;
    for (const { note } of lines) if (note.x > middle) Object.assign(note, { xanchor: "right", xshift: -4 });
  }

  function degradation() {
    const pbo = verdict.pbo;
    if (pbo.why) return pbo.why;
    const c = colours(), x = pbo.in_sample, y = pbo.out_of_sample, known = x.filter((value) => value !== null);
    if (!known.length) return "The verdict keeps no pairs of in-sample and out-of-sample Sharpe ratios.";
    const ends = [Math.min(...known), Math.max(...known)];
    const traces = [{
      x, y, mode: "markers", name: "splits", marker: { size: 5, color: faded(c.blue, 0.4) },
      hovertemplate: "in %{x:.2f}, out %{y:.2f}<extra></extra>",
    }];
    const { slope, intercept } = pbo;
    if (typeof slope === "number" && typeof intercept === "number") traces.push({
      x: ends, y: ends.map((at) => intercept + slope * at), mode: "lines",
      name: `out = ${intercept.toFixed(2)} ${slope < 0 ? "−" : "+"} ${Math.abs(slope).toFixed(2)} in`,
      line: { color: c.orange, width: 2.5 }, hoverinfo: "skip",
    });
    traces.push({
      x: ends, y: ends, mode: "lines", name: "no degradation", line: { color: c.grey, width: 1.5, dash: "dot" },
      hoverinfo: "skip",
    });
    return [
      traces,
      layout(axis("Sharpe in sample", { zeroline: false }), axis("out of sample"), {
        showlegend: true, legend: { orientation: "h", x: 0, y: -0.2, yanchor: "top" },
      }),
    ];
  }

  function logits() {
    const pbo = verdict.pbo;
    if (pbo.why) return pbo.why;
    if (!pbo.logits) return "The verdict keeps no logits.";
    const c = colours(), { edges, counts } = pbo.logits;
    const trace = bars(
      pbo.logits, counts.map((_, at) => faded((edges[at] + edges[at + 1]) / 2 <= 0 ? c.low : c.blue, 0.7)),
    );
    const zero = upright(0, typeof pbo.pbo === "number" ? `${show(pbo.pbo, "percent")} at or below 0` : "", c.loss, 0);
    Object.assign(zero.note, { xanchor: edges[0] < -1.5 ? "right" : "left", xshift: edges[0] < -1.5 ? -4 : 4 });
    return [
      [trace],
      layout(axis("logit of the rank out of sample"), axis("splits"), {
        bargap: 0, shapes: [zero.shape], annotations: [zero.note],
      }),
    ];
  }

  // What chance alone would give, with the winner marked: {null: {edges, counts}, statistic, critical}.
  function chance(name, unit) {
    return () => {
      const part = verdict[name];
      if (part.why) return part.why;
      const c = colours(), lines = [];
      if (typeof part.critical === "number") lines.push(upright(part.critical, "5% are above", c.pink, 0));
      if (typeof part.statistic === "number") lines.push(upright(part.statistic, "winner", c.orange, 1, "solid"));
      leftward(lines, part.null.edges);
      return [
        [bars(part.null, faded(c.grey, 0.7))],
        layout(axis(unit, { zeroline: false }), axis("draws"), {
          bargap: 0, shapes: lines.map((line) => line.shape), annotations: lines.map((line) => line.note),
        }),
      ];
    };
  }

  // ---- stress --------------------------------------------------------------------------------------------------

  // Sharpe ratio by one thing that is changed; what else the row knows is in the hover text.
  function stress(name, key, unit, options = {}) {
    return () => {
      const rows = verdict[name];
      if (!Array.isArray(rows)) return rows.why;
      const c = colours(), y = rows.map((row) => row.sharpe ?? null);
      const text = rows.map((row) => [
        `Sharpe ${show(row.sharpe, "ratio")}`, ...("cagr" in row ? [`CAGR ${show(row.cagr, "percent")}`] : []),
        ...("max_drawdown" in row ? [`drawdown ${show(row.max_drawdown, "percent")}`] : []),
        ...("days" in row ? [`${row.days} days`] : []),
      ].join("<br>"));
      const x = rows.map((row) => row[key]);
      const own = x.map((value) => (value === options.own ? c.orange : c.blue));
      const shared = { x, y, text, hovertemplate: `${unit.replace("?", "%{x}")}<br>%{text}<extra></extra>` };
      const trace = options.bars ? { ...shared, type: "bar", textposition: "none", marker: { color: own } } : {
        ...shared, mode: "lines+markers", line: { color: c.blue, width: 2 }, marker: { size: 7, color: own },
      };
      return [
        [trace],
        layout(axis("", { zeroline: false, ...options.axis }), axis("", { rangemode: "tozero" }), {
          margin: { l: 36, r: 8, t: 8, b: 26 }, bargap: 0.25,
        }),
      ];
    };
  }

  function plateau() {
    const part = verdict.plateau, note = byId("plateaunote");
    note.textContent = "";
    if (part.why) return part.why;
    const c = colours(), each = part.neighbours;
    const said = [`${each.length} neighbours`];
    if (typeof part.median === "number") said.push(`median ${show(part.median, "ratio")}`);
    if (winner) said.push(`winner ${show(winner.sharpe, "ratio")}`);
    if (typeof part.share_positive === "number") said.push(`${Math.round(100 * part.share_positive)}% above 0`);
    note.textContent = `${said.join(", ")}.`;
    const names = each.map((one) => `${one.axis} = ${one.label}`), x = names.map((_, at) => at);
    const trace = {
      type: "bar", x, y: each.map((one) => one.sharpe), text: names.map(plain), textposition: "none",
      marker: { color: faded(c.blue, 0.8) }, hovertemplate: "%{text}<br>Sharpe %{y:.2f}<extra></extra>",
    };
    const shapes = winner ? [{
      type: "line", xref: "paper", x0: 0, x1: 1, y0: winner.sharpe, y1: winner.sharpe,
      line: { color: c.orange, width: 2 },
    }] : [];
    const annotations = winner ? [{
      xref: "paper", x: 1, y: winner.sharpe, text: "winner", showarrow: false, xanchor: "right", yanchor: "bottom",
      font: { size: 11, color: c.orange },
    }] : [];
    // Two lines, so that the values of one parameter stay apart where there is no room for its whole name.
    const most = narrow() ? 11 : 34;
    const lines = ({ axis, label }) => `${short(axis, most)}<br>${short(`= ${label}`, most)}`;
    const labelled = { ...ticks(names), ticktext: ticks(names).tickvals.map((at) => lines(each[at])) };
    return [
      [trace],
      layout(axis("", labelled), axis("", { rangemode: "tozero" }), {
        shapes, annotations, bargap: 0.4, margin: { l: 36, r: 8, t: 18, b: 26 },
      }),
    ];
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
    start_dates: stress("start_dates", "start", "from ?", { axis: { type: "date", nticks: 5 } }),
  };
  const drawn = new Set();

  function draw(name) {
    const place = byId(name), made = charts[name]();
    drawn.add(name);
    const said = typeof made === "string";
    place.style.height = said ? "auto" : "";
    if (said) {
      if (window.Plotly) Plotly.purge(place);
      place.replaceChildren(element("p", { className: "why", textContent: made }));
      return;
    }
    if (place.querySelector(".why")) place.replaceChildren();
    Plotly.react(place, made[0], made[1], { displayModeBar: false, responsive: true, doubleClick: "reset" });
  }

  choices();
  if (data.fan) {
    const unwalked = verdict.walk.why ?? verdict.walk.anchored.why ?? verdict.walk.rolling.why;
    if (unwalked) byId("walknote").textContent = `Walk-forward: ${unwalked}`;
    byId("log").addEventListener("change", () => draw("fan"));
  }
  sweep.onChosen((row) => { chosen = row; if (drawn.has("fan")) draw("fan"); });
  dark.addEventListener("change", () => drawn.forEach(draw));
  // plotly fits a chart to its new width by itself; what depends on narrow() it cannot know.
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
