// Reads a chart's points under the pointer or by the arrow keys. Loads nothing; what people wrote is shown as text.
"use strict";

const tip = document.getElementById("tip");

for (const figure of document.querySelectorAll(".chart")) follow(figure);

function follow(figure) {
  const data = JSON.parse(figure.querySelector('script[type="application/json"]').textContent);
  const svg = figure.querySelector(".picture svg");
  const cursor = svg.querySelector(".cursor");
  let at = -1;

  function show(index, x, y) {
    at = Math.max(0, Math.min(data.x.length - 1, index));
    cursor.setAttribute("x1", data.x[at]);
    cursor.setAttribute("x2", data.x[at]);
    cursor.setAttribute("visibility", "visible");
    const said = data.rows[at].map((text, row) => (text === null ? null : `${data.names[row]}: ${text}`));
    const near = data.marks.filter(([place]) => Math.abs(place - data.x[at]) < 3).map(([, label]) => label);
    tip.textContent = [data.at[at], ...said.filter((line) => line !== null), ...near.slice(0, 5)].join("\n");
    tip.hidden = false;
    const width = document.documentElement.clientWidth;
    tip.style.left = `${Math.max(4, Math.min(x + 14, width - tip.offsetWidth - 4))}px`;
    tip.style.top = `${Math.max(4, Math.min(y + 14, innerHeight - tip.offsetHeight - 4))}px`;
  }

  function hide() {
    tip.hidden = true;
    cursor.setAttribute("visibility", "hidden");
    at = -1;
  }

  function byKey(index) {
    const box = svg.getBoundingClientRect();
    const place = Math.max(0, Math.min(data.x.length - 1, index));
    show(place, box.left + (data.x[place] / svg.viewBox.baseVal.width) * box.width, box.top + box.height / 3);
  }

  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    let best = 0;
    data.x.forEach((place, index) => {
      if (Math.abs(place - x) < Math.abs(data.x[best] - x)) best = index;
    });
    show(best, event.clientX, event.clientY);
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const to = { ArrowRight: at + 1, ArrowLeft: at < 0 ? data.x.length - 1 : at - 1, Home: 0, End: data.x.length - 1 }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      byKey(to);
    } else if (event.key === "Escape") hide();
  });
}
