{% include "tip.js" %}
// The values under the pointer, on every chart that carries them.
(() => {
  "use strict";
  const charts = [...document.querySelectorAll("svg[data-hover]")];
  if (!charts.length) return;
  const read = new WeakMap();

  function panels(svg) {
    if (!read.has(svg)) {
      const found = JSON.parse(svg.dataset.hover);
      for (const { kind, series } of found) for (const line of series) {
        let sum = 0;
        if (kind === "time") line.x = line.x.map((step) => (sum += step));
      }
      read.set(svg, found);
    }
    return read.get(svg);
  }

  // Place of the value nearest to x; values ascend.
  function nearest(values, x) {
    let low = 0, high = values.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (values[middle] <= x) low = middle; else high = middle;
    }
    return Math.abs(values[low] - x) <= Math.abs(values[high] - x) ? low : high;
  }

  const number = (value, digits) => value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });

  function heading(panel, x) {
    if (panel.kind === "time") {
      const text = new Date(Math.round(x * 60) * 60e3).toISOString();
      return text.slice(11, 16) === "00:00" ? text.slice(0, 10) : `${text.slice(0, 10)} ${text.slice(11, 16)} UTC`;
    }
    if (panel.kind === "log") return number(Math.round(10 ** x), 0);
    return panel.kind === "name" ? panel.names[Math.round(x)] || "" : number(x, 4);
  }

  function show(svg, event) {
    const place = svg.getBoundingClientRect(), view = svg.viewBox.baseVal;
    const across = ((event.clientX - place.left) / place.width) * view.width, found = panels(svg);
    const [left, , width] = found[0].box;
    if (across < left - 6 || across > left + width + 6) return hide();
    const [low, high] = found[0].lim, x = low + ((across - left) / width) * (high - low);
    const lines = [];
    let at = null;
    for (const panel of found) for (const line of panel.series) {
      if (!line.x.length) continue;
      const row = nearest(line.x, x);
      at ??= line.x[row];
      if (line.y[row] === null) continue;
      const colour = `var(--c${line.colour.slice(1)},${line.colour})`;
      lines.push({ colour, name: line.name, value: number(line.y[row], line.digits) + line.unit });
    }
    let mark = svg.querySelector(".hlbt-mark");
    if (!mark) {
      mark = document.createElementNS("http://www.w3.org/2000/svg", "line");
      mark.setAttribute("class", "hlbt-mark");
      svg.append(mark);
    }
    const along = left + ((at - low) / (high - low)) * width, last = found[found.length - 1].box;
    for (const [name, value] of [["x1", along], ["x2", along], ["y1", found[0].box[1]], ["y2", last[1] + last[3]]])
      mark.setAttribute(name, value);
    hlbtTip.show(event, at === null ? "" : heading(found[0], at), lines);
  }

  function hide() {
    hlbtTip.hide();
    for (const mark of document.querySelectorAll(".hlbt-mark")) mark.remove();
  }

  for (const svg of charts) {
    svg.addEventListener("pointermove", (event) => show(svg, event));
    svg.addEventListener("pointerdown", (event) => show(svg, event));
    svg.addEventListener("pointerleave", hide);
  }
})();
