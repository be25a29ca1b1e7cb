// The box of values at the pointer, one for a page. Text nodes only: names are the user's.
const hlbtTip = (() => {
  "use strict";
  const tip = document.createElement("div");
  tip.className = "hlbt-tip"; tip.hidden = true; tip.setAttribute("role", "status");
  document.body.append(tip);

  function element(name, text, parent) {
    const made = document.createElement(name);
    made.textContent = text;
    parent.append(made);
    return made;
  }

  // Beside the pointer: a heading, and lines of {colour, name, value}, of which each may be missing.
  function show(event, heading, lines) {
    tip.replaceChildren();
    element("b", heading, tip);
    for (const { colour, name = "", value = "" } of lines) {
      const text = element("div", "", tip);
      if (colour) element("span", "", text).style.background = colour;
      text.append(name && value ? `${name} ` : name);
      element("b", value, text);
    }
    tip.hidden = false;
    const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, room)) + window.scrollX}px`;
    tip.style.top = `${Math.max(4, event.clientY - tip.offsetHeight - 12) + window.scrollY}px`;
  }

  return { show, hide: () => { tip.hidden = true; } };
})();
