{% include "tip.js" %}
// Charts as SVG, from a description that is data alone:
//   x, y    axes: {title, kind: "time" | "names", names, low, high, log, zero, format(value)}
//   marks   {type: "line" | "band" | "bars" | "dots", x, y, low, width, colour, colours, opacity, dash, name, tips(at)}
//   cells   a heat map instead of marks: {values, texts, tips(x, y), ends, colours: [low, middle, high], format,
//           bar, written, chosen: [x, y]}; `ends` on both sides of 0 are as far from it
//   rules   {x | y, name, colour, dash}: lines across the chart
//   unified the values of all lines at the pointer's x
// A colour is the name of one of the style sheet's, so that day, night and paper need no drawing again. Dragging
// enlarges a part, a double click shows all, and the names under a chart hide and show what they name.
const plot = (() => {
  "use strict";
  const DAY = 86400e3, FONT = "11px Arial, Helvetica, sans-serif";
  const pen = document.createElement("canvas").getContext("2d");
  const ink = (name) => `var(--${name})`;
  const known = (value) => typeof value === "number" && Number.isFinite(value);
  const short = (text, most) => (text.length > most ? `${text.slice(0, Math.max(1, most - 1))}…` : text);
  const number = (value) => value.toLocaleString("en-US", { maximumFractionDigits: 6, signDisplay: "negative" });
  const day = (value) => new Date(value).toISOString().slice(0, 10);

  function breadth(text) {
    pen.font = FONT;
    return Math.max(...text.split("\n").map((line) => pen.measureText(line).width));
  }

  function shape(tag, attributes, parent, text) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  }

  // ---- axes ----------------------------------------------------------------------------------------------------

  // Numbers of an axis in which it is linear, and back.
  const linear = (axis) => (axis.log ? [Math.log10, (value) => 10 ** value] : [(value) => value, (value) => value]);

  // What an axis spans: what is drawn, what the description asks for, or what was enlarged.
  function span(axis, values, pad, enlarged) {
    if (enlarged) return enlarged;
    if (axis.names) return [-0.5, axis.names.length - 0.5];
    const [to, from] = linear(axis), used = values.filter((value) => known(value) && (!axis.log || value > 0));
    if (axis.zero) used.push(0);
    let low = Infinity, high = -Infinity;
    for (const value of used) { low = Math.min(low, to(value)); high = Math.max(high, to(value)); }
    if (low > high) [low, high] = [to(1) - 1, to(1) + 1];
    if (low === high) [low, high] = [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
    const room = pad * (high - low);
    if (!(axis.zero && low === 0)) low -= room;
    if (!(axis.zero && high === 0)) high += room;
    return [axis.low ?? from(low), axis.high ?? from(high)];
  }

  // From values to pixels; `back` is the other way.
  function scale(axis, [low, high], first, last) {
    const [to, from] = linear(axis), start = to(low), slope = (last - first) / (to(high) - start);
    return Object.assign((value) => first + (to(value) - start) * slope, {
      back: (pixel) => from(start + (pixel - first) / slope), low, high,
    });
  }

  const rounded = (rough) => {
    const power = 10 ** Math.floor(Math.log10(rough)), times = rough / power;
    return power * (times <= 1 ? 1 : times <= 2 ? 2 : times <= 5 ? 5 : 10);
  };

  function steps(low, high, most) {
    const step = rounded((high - low) / Math.max(1, most)), found = [];
    for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at++)
      found.push(Number((at * step).toPrecision(12)));
    return found;
  }

  function powers(low, high, most) {
    const found = [], [first, last] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
    const times = last - first > most ? [1] : [1, 2, 5], every = Math.max(1, Math.ceil((last - first) / most));
    for (let power = first; power <= last; power += every)
      for (const one of times) found.push(Number(`${one}e${power}`));
    const inside = found.filter((value) => value >= low && value <= high);
    return inside.length > 2 ? inside : steps(low, high, most);
  }

  function dates(low, high, most) {
    const days = (high - low) / DAY / Math.max(1, most), found = [];
    if (days < 15) {
      const step = [1, 2, 7, 14].find((each) => each >= days) ?? 14;
      for (let at = Math.ceil(low / DAY / step) * step * DAY; at <= high; at += step * DAY) found.push([at, day(at)]);
      return found;
    }
    const months = [1, 2, 3, 6, 12, 24, 60, 120].find((each) => each >= days / 31) ?? 120, from = new Date(low);
    const first = Math.ceil((from.getUTCFullYear() * 12 + from.getUTCMonth()) / months);
    for (let month = first * months; ; month += months) {
      const at = Date.UTC(Math.floor(month / 12), month % 12);
      if (at > high) return found;
      if (at >= low) found.push([at, months >= 12 ? day(at).slice(0, 4) : day(at).slice(0, 7)]);
    }
  }

  // Names at as many places as there is room for, cut where they would touch.
  function named(names, low, high, length, across) {
    const first = Math.max(0, Math.ceil(low)), last = Math.min(names.length - 1, Math.floor(high));
    const apart = length / Math.max(high - low, 1), widest = Math.min(44, Math.max(...names.map(breadth), 8) + 8);
    const every = Math.max(1, Math.ceil((across ? widest : 15) / apart)), found = [];
    const most = across ? Math.floor((apart * every - 6) / 6.6) : length < 300 ? 16 : 26;
    for (let at = Math.ceil(first / every) * every; at <= last; at += every) {
      const lines = names[at].split("\n"), fits = !across || breadth(names[at]) < apart * every - 4;
      found.push([at, fits && across ? names[at] : lines.map((line) => short(line, most)).join("\n")]);
    }
    return found;
  }

  function ticks(axis, [low, high], length, across) {
    if (axis.names) return named(axis.names, low, high, length, across);
    const most = Math.max(2, Math.floor(length / (!across ? 36 : axis.kind === "time" ? 78 : 52)));
    if (axis.kind === "time") return dates(low, high, most);
    const values = (axis.log ? powers : steps)(low, high, most);
    return values.map((value) => [value, (axis.format ?? number)(value)]);
  }

  // ---- marks ---------------------------------------------------------------------------------------------------

  // What is drawn now.
  const visible = ({ spec, hidden }) => (spec.marks ?? []).filter((mark) => !hidden.has(mark.name));
  const wide = (mark, at) => (Array.isArray(mark.width) ? mark.width[at] : mark.width);
  const colourOf = (mark, at) => ink(mark.colours ? mark.colours[at] : mark.colour);

  function path(mark, x, y, values) {
    let text = "", open = false;
    for (let at = 0; at < mark.x.length; at++) {
      const up = known(values[at]) ? y(values[at]) : NaN;
      if (Number.isFinite(up)) text += `${open ? "L" : "M"}${x(mark.x[at]).toFixed(1)} ${up.toFixed(1)}`;
      open = Number.isFinite(up);
    }
    return text;
  }

  const DASHES = { dot: "2 4", dash: "7 5" };
  const painters = {
    line(mark, x, y, area) {
      const stroke = {
        d: path(mark, x, y, mark.y), fill: "none", stroke: ink(mark.colour), "stroke-width": mark.width ?? 2,
        "stroke-linejoin": "round",
      };
      if (mark.dash) stroke["stroke-dasharray"] = DASHES[mark.dash];
      shape("path", stroke, area);
      if (mark.points) painters.dots({ ...mark, radius: mark.points }, x, y, area);
    },
    band(mark, x, y, area) {
      const back = { x: [...mark.x].reverse() }, low = [...mark.low].reverse();
      const d = `${path(mark, x, y, mark.y)}${path(back, x, y, low).replace("M", "L")}Z`;
      shape("path", { d, fill: ink(mark.colour), "fill-opacity": mark.opacity }, area);
    },
    bars(mark, x, y, area) {
      const floor = y(0);
      mark.y.forEach((value, at) => {
        if (!known(value)) return;
        const [left, right] = [-0.5, 0.5].map((half) => x(mark.x[at] + half * wide(mark, at))), top = y(value);
        shape("rect", {
          x: left + 0.5, width: Math.max(0.5, right - left - 1), y: Math.min(top, floor),
          height: Math.abs(top - floor), fill: colourOf(mark, at), "fill-opacity": mark.opacity ?? 1,
        }, area);
      });
    },
    dots(mark, x, y, area) {
      mark.x.forEach((value, at) => {
        if (known(value) && known(mark.y[at])) shape("circle", {
          cx: x(value).toFixed(1), cy: y(mark.y[at]).toFixed(1), r: mark.radius ?? 2.5, fill: colourOf(mark, at),
          "fill-opacity": mark.opacity ?? 1,
        }, area);
      });
    },
  };

  const crossing = (ends) => ends[0] < 0 && ends[1] > 0;

  function drawCells({ values, texts, ends, colours, chosen, written }, x, y, area) {
    const across = Math.abs(x(1) - x(0)), up = Math.abs(y(1) - y(0)), gap = Math.min(2, across / 6, up / 6);
    const widest = Math.max(...texts.flat().map((text) => breadth(text)));
    const [low, middle, high] = colours;
    values.forEach((row, v) => row.forEach((value, u) => {
      if (value === null) return;
      const share = crossing(ends) ? value / ends[1] : (value - ends[0]) / (ends[1] - ends[0]);
      const strong = Math.round(1000 * Math.abs(share)) / 10, end = share < 0 ? low : high;
      shape("rect", {
        x: x(u) - across / 2 + gap / 2, y: y(v) - up / 2 + gap / 2, width: across - gap, height: up - gap,
        style: `fill:color-mix(in srgb, ${ink(end)} ${strong}%, ${ink(middle)})`,
      }, area);
      if (written && widest < across - 4 && up > 13) shape("text", {
        x: x(u), y: y(v) + 4, "text-anchor": "middle", "font-size": 12, fill: ink(strong > 70 ? "back" : "text"),
      }, area, texts[v][u]);
    }));
    if (chosen) shape("rect", {
      x: x(chosen[0]) - across / 2, y: y(chosen[1]) - up / 2, width: across, height: up, fill: "none",
      stroke: ink("orange"), "stroke-width": 3, class: "chosencell",
    }, area);
  }

  // The colours of a heat map with the values that they stand for.
  function colourBar(place, { ends, colours, format }, svg, box) {
    const [low, middle, high] = colours, id = `${place.id}-colours`;
    const fade = shape("linearGradient", { id, x1: 0, x2: 0, y1: 1, y2: 0 }, svg);
    const stops = crossing(ends) ? [low, middle, high] : [middle, high];
    stops.forEach((one, at) =>
      shape("stop", { offset: at / (stops.length - 1), style: `stop-color:${ink(one)}` }, fade));
    const left = box.right + 14;
    shape("rect", { x: left, y: box.top, width: 10, height: box.bottom - box.top, fill: `url(#${id})` }, svg);
    const up = scale({}, ends, box.bottom, box.top);
    for (const value of steps(...ends, 6))
      shape("text", { x: left + 15, y: up(value) + 4, class: "tick" }, svg, format(value));
  }

  function drawRules(rules, x, y, box, svg) {
    rules.forEach(({ x: at, y: up, name, colour, dash }, row) => {
      const upright = at !== undefined, place = upright ? x(at) : y(up);
      if (!(place >= (upright ? box.left : box.top) - 1 && place <= (upright ? box.right : box.bottom) + 1)) return;
      const line = upright ? { x1: place, x2: place, y1: box.top, y2: box.bottom }
        : { x1: box.left, x2: box.right, y1: place, y2: place };
      shape("line", {
        ...line, stroke: ink(colour), "stroke-width": 2, ...(dash ? { "stroke-dasharray": DASHES[dash] } : {}),
      }, svg);
      const left = upright && place < (box.left + box.right) / 2;
      shape("text", {
        x: upright ? place + (left ? 5 : -5) : box.right - 2, y: upright ? box.top + 11 + 16 * row : place - 5,
        "text-anchor": left ? "start" : "end", fill: ink(colour), class: "rule",
      }, svg, name);
    });
  }

  // ---- chart ---------------------------------------------------------------------------------------------------

  function spans({ spec, zoom }, marks) {
    const x = [], y = [];
    let bars = false, dots = false;
    for (const mark of marks) {
      bars ||= mark.type === "bars";
      dots ||= mark.type === "dots" || Boolean(mark.points);
      mark.x.forEach((value, at) => {
        const half = mark.type === "bars" ? wide(mark, at) / 2 : 0;
        if (known(value)) x.push(value - half, value + half);
      });
      y.push(...mark.y, ...(mark.low ?? []), ...(mark.type === "bars" ? [0] : []));
    }
    for (const rule of spec.rules ?? []) (rule.x === undefined ? y : x).push(rule.x ?? rule.y);
    const upright = (spec.rules ?? []).some((rule) => rule.x !== undefined);
    const high = span({ ...spec.y, zero: spec.y.zero || bars }, y, upright ? 0.2 : 0.06, zoom && zoom.y);
    return [span(spec.x, x, dots || upright ? 0.04 : 0, zoom && zoom.x), high];
  }

  function frame(place, across, high, spec) {
    const width = place.clientWidth, height = place.clientHeight;
    const box = { top: 8, right: width - (spec.cells && spec.cells.bar ? 70 : 12) };
    const up = ticks(spec.y, high, height - 50, false);
    const most = width * 0.4;
    box.left = Math.min(most, Math.max(...up.map(([, text]) => breadth(text)), 10) + (spec.y.title ? 30 : 12));
    const along = ticks(spec.x, across, box.right - box.left, true);
    const lines = Math.max(1, ...along.map(([, text]) => text.split("\n").length));
    box.bottom = height - 8 - 13 * lines - (spec.x.title ? 19 : 0);
    return { width, height, box, up, along };
  }

  function axes({ width, height, box, up, along }, x, y, spec, svg) {
    const line = (x1, y1, x2, y2, colour) => shape("line", { x1, y1, x2, y2, stroke: ink(colour) }, svg);
    for (const [value, text] of up) {
      if (!spec.cells) line(box.left, y(value), box.right, y(value), value === 0 ? "grey" : "line");
      shape("text", { x: box.left - 6, y: y(value) + 4, "text-anchor": "end", class: "tick" }, svg, text);
    }
    for (const [value, text] of along) {
      if (!spec.cells && !spec.x.names) line(x(value), box.top, x(value), box.bottom, "line");
      const half = breadth(text) / 2, at = Math.min(Math.max(x(value), half), width - half);
      text.split("\n").forEach((part, row) => shape("text", {
        x: at, y: box.bottom + 16 + 13 * row, "text-anchor": "middle", class: "tick",
      }, svg, part));
    }
    if (spec.x.title) shape("text", {
      x: (box.left + box.right) / 2, y: height - 5, "text-anchor": "middle", class: "title",
    }, svg, short(spec.x.title, Math.floor((box.right - box.left) / 6)));
    if (spec.y.title) shape("text", {
      transform: `translate(11 ${(box.top + box.bottom) / 2}) rotate(-90)`, "text-anchor": "middle", class: "title",
    }, svg, short(spec.y.title, Math.floor((box.bottom - box.top) / 6)));
  }

  function render(place) {
    const state = place.plot, { spec } = state, marks = visible(state);
    if (!place.clientWidth) return;
    const [across, high] = spans(state, marks), made = frame(place, across, high, spec), { box, width, height } = made;
    const x = scale(spec.x, across, box.left, box.right), y = scale(spec.y, high, box.bottom, box.top);
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    axes(made, x, y, spec, svg);
    const id = `${place.id}-inside`, inside = { x: box.left, y: box.top, width: box.right - box.left };
    shape("rect", { ...inside, height: box.bottom - box.top }, shape("clipPath", { id }, svg));
    const area = shape("g", { "clip-path": `url(#${id})` }, svg);
    if (spec.cells) drawCells(spec.cells, x, y, area);
    for (const mark of marks) painters[mark.type](mark, x, y, area);
    drawRules(spec.rules ?? [], x, y, box, svg);
    if (spec.cells && spec.cells.bar) colourBar(place, spec.cells, svg, box);
    Object.assign(state, { x, y, box, svg, width });
    place.replaceChildren(svg);
  }

  // The names under a chart; each hides and shows what it names.
  function legend(place) {
    const { spec, hidden } = place.plot, marks = (spec.marks ?? []).filter((mark) => mark.name);
    const keys = sweep.element("div", { className: "keys" });
    for (const mark of marks) {
      const swatch = sweep.element("span", { className: `${mark.type} ${mark.dash ?? ""}` });
      swatch.style.cssText = `--key:${ink(mark.colour)};opacity:${mark.opacity ? Math.min(1, 2 * mark.opacity) : 1}`;
      const key = sweep.element("button", { type: "button", title: "hide or show" }, swatch, mark.name);
      key.setAttribute("aria-pressed", !hidden.has(mark.name));
      key.addEventListener("click", () => {
        if (!hidden.delete(mark.name)) hidden.add(mark.name);
        key.setAttribute("aria-pressed", !hidden.has(mark.name));
        render(place);
      });
      keys.append(key);
    }
    if (place.nextElementSibling?.className === "keys") place.nextElementSibling.remove();
    if (spec.legend) place.after(keys);
  }

  // ---- pointer -------------------------------------------------------------------------------------------------

  // The place in `values` nearest to x in pixels, and how far it is.
  function nearest(mark, x, px, y, py) {
    let best = -1, least = Infinity;
    mark.x.forEach((value, at) => {
      if (!known(value) || !known(mark.y[at])) return;
      const aside = x(value) - px, far = y ? Math.hypot(aside, y(mark.y[at]) - py) : Math.abs(aside);
      if (far < least) [best, least] = [at, far];
    });
    return [best, least];
  }

  // What there is to say at a point: [heading, lines, x of the line that marks it].
  function said({ spec, x, y, ...state }, px, py) {
    if (spec.cells) {
      const u = Math.round(x.back(px)), v = Math.round(y.back(py));
      return (spec.cells.values[v]?.[u] ?? null) === null ? null : [...spec.cells.tips(u, v), null];
    }
    const found = visible({ spec, ...state }).filter((mark) => mark.tips || (spec.unified && mark.type === "line"))
      .map((mark) => [mark, ...nearest(mark, x, px, mark.type === "dots" ? y : null, py)])
      .filter(([, at]) => at >= 0);
    if (!found.length) return null;
    const [mark, at, far] = found.reduce((one, other) => (other[2] < one[2] ? other : one));
    if (!spec.unified) {
      if (mark.type === "dots" && far > 30) return null;
      return [...mark.tips(at), mark.type === "line" ? x(mark.x[at]) : null];
    }
    const lines = found.filter(([one, row]) => Math.abs(x(one.x[row]) - x(mark.x[at])) < 4)
      .map(([one, row]) => ({ colour: ink(one.colour), name: one.name, value: spec.value(one.y[row]) }));
    return [day(mark.x[at]), lines, x(mark.x[at])];
  }

  function listen(place) {
    const state = { zoom: null, hidden: new Set(), drag: null };
    const touch = window.matchMedia("(pointer: coarse)").matches;
    const spot = (event) => {
      const at = place.getBoundingClientRect();
      return [event.clientX - at.left, event.clientY - at.top];
    };
    const inside = ([px, py]) => {
      const { box } = state;
      return px >= box.left - 4 && px <= box.right + 4 && py >= box.top && py <= box.bottom;
    };
    const clear = () => {
      hlbtTip.hide();
      state.svg?.querySelectorAll(".hlbt-mark, .hlbt-drag").forEach((one) => one.remove());
    };
    // The rectangle of a drag; a flat one leaves the other axis whole.
    const dragged = ([px, py]) => {
      const { box, drag } = state, bound = (value, low, high) => Math.min(Math.max(value, low), high);
      const [left, right] = [drag[0], bound(px, box.left, box.right)].sort((a, b) => a - b);
      const [top, bottom] = [drag[1], bound(py, box.top, box.bottom)].sort((a, b) => a - b);
      return { left, right, ...(bottom - top > 12 ? { top, bottom } : { ...box, left, right, flat: true }) };
    };
    const show = (event) => {
      const at = spot(event);
      clear();
      if (state.drag) {
        const { left, right, top, bottom } = dragged(at);
        shape("rect", { x: left, y: top, width: right - left, height: bottom - top, class: "hlbt-drag" }, state.svg);
        return;
      }
      const found = state.svg && inside(at) ? said(state, ...at) : null;
      if (!found) return;
      const [heading, lines, along] = found, { box } = state;
      if (along !== null) shape("line", {
        x1: along, x2: along, y1: box.top, y2: box.bottom, class: "hlbt-mark",
      }, state.svg);
      hlbtTip.show(event, heading, lines);
    };
    place.addEventListener("pointermove", (event) => state.svg && show(event));
    place.addEventListener("pointerdown", (event) => {
      if (!state.svg) return;
      if (!touch && event.button === 0 && inside(spot(event))) {
        state.drag = spot(event);
        place.setPointerCapture(event.pointerId);
      } else show(event);
    });
    place.addEventListener("pointerup", (event) => {
      if (!state.drag) return;
      const { left, right, top, bottom, flat } = dragged(spot(event));
      state.drag = null;
      clear();
      if (right - left < 8) return;
      state.zoom = {
        x: [state.x.back(left), state.x.back(right)],
        y: flat ? state.zoom && state.zoom.y : [state.y.back(bottom), state.y.back(top)],
      };
      render(place);
    });
    place.addEventListener("pointercancel", () => { state.drag = null; clear(); });
    place.addEventListener("pointerleave", () => { if (!state.drag) clear(); });
    place.addEventListener("dblclick", () => { if (state.zoom) { state.zoom = null; clear(); render(place); } });
    new ResizeObserver(() => {
      if (state.svg && Math.round(place.clientWidth) !== state.width) render(place);
    }).observe(place);
    return state;
  }

  // Draw a chart, or a sentence that says why there is none. What was enlarged stays so while `key` is the same.
  return function draw(place, spec, key = "") {
    const state = (place.plot ??= listen(place)), none = typeof spec === "string";
    place.style.height = none ? "auto" : "";
    if (state.key !== key) state.zoom = null;
    Object.assign(state, { spec: none ? { marks: [] } : spec, key });
    legend(place);
    if (none) {
      state.svg = null;
      place.replaceChildren(sweep.element("p", { className: "why", textContent: spec }));
    } else render(place);
  };
})();
