// The values under the pointer, on every chart that carries them. Text nodes only: names are the user's.
(() => {
  "use strict";
  const charts = [...document.querySelectorAll("svg[data-hover]")];
  if (!charts.length) return;
  const tip = document.createElement("div");
  tip.className = "hlbt-tip"; tip.hidden = true; tip.setAttribute("role", "status");
  document.body.append(tip);
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
      const text = new Date(x * 3600e3).toISOString();
      return text.slice(11, 16) === "00:00" ? text.slice(0, 10) : `${text.slice(0, 10)} ${text.slice(11, 16)} UTC`;
    }
    if (panel.kind === "log") return number(Math.round(10 ** x), 0);
    return panel.kind === "name" ? panel.names[Math.round(x)] || "" : number(x, 4);
  }

  function element(name, text, parent) {
    const made = document.createElement(name);
    made.textContent = text;
    parent.append(made);
    return made;
  }

  function show(svg, event) {
    const place = svg.getBoundingClientRect(), view = svg.viewBox.baseVal;
    const across = ((event.clientX - place.left) / place.width) * view.width, found = panels(svg);
    const [left, , width] = found[0].box;
    if (across < left - 6 || across > left + width + 6) return hide();
    const [low, high] = found[0].lim, x = low + ((across - left) / width) * (high - low);
    tip.replaceChildren();
    let at = null;
    for (const panel of found) for (const line of panel.series) {
      if (!line.x.length) continue;
      const row = nearest(line.x, x);
      if (at === null) element("b", heading(panel, (at = line.x[row])), tip);
      if (line.y[row] === null) continue;
      const text = element("div", "", tip);
      element("span", "", text).style.background = `var(--c${line.colour.slice(1)},${line.colour})`;
      text.append(`${line.name} `);
      element("b", number(line.y[row], line.digits) + line.unit, text);
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
    tip.hidden = false;
    const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, room)) + window.scrollX}px`;
    tip.style.top = `${Math.max(4, event.clientY - tip.offsetHeight - 12) + window.scrollY}px`;
  }

  function hide() {
    tip.hidden = true;
    for (const mark of document.querySelectorAll(".hlbt-mark")) mark.remove();
  }

  for (const svg of charts) {
    svg.addEventListener("pointermove", (event) => show(svg, event));
    svg.addEventListener("pointerdown", (event) => show(svg, event));
    svg.addEventListener("pointerleave", hide);
  }
})();
