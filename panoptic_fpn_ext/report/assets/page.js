// The page around the images: theme, tables that sort, charts, the confusion matrix.
"use strict";

const report = JSON.parse(document.getElementById("report-data").textContent);
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const isDark = () => style("color-scheme") === "dark";
const onTheme = [];

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  document.getElementById("theme").textContent = isDark() ? "Light" : "Dark";
  onTheme.forEach((redraw) => redraw());
}
setTheme();
document.getElementById("theme").addEventListener("click", () => setTheme(isDark() ? "light" : "dark"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setTheme(document.documentElement.dataset.theme));
let before = null;
addEventListener("beforeprint", () => { before = document.documentElement.dataset.theme || ""; setTheme("light"); });
addEventListener("afterprint", () => setTheme(before || undefined));

// Tables: a click on a head sorts by the cells' data-value; the boxes above filter rows by data-kind and text.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button")?.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") === "descending" || (head.classList.contains("text") && !head.hasAttribute("aria-sort"));
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const valueOf = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const compare = head.classList.contains("text")
        ? (a, b) => valueOf(a).localeCompare(valueOf(b))
        : (a, b) => (valueOf(a) === "" ? -Infinity : +valueOf(a)) - (valueOf(b) === "" ? -Infinity : +valueOf(b)) || 0;
      body.append(...[...body.rows].sort((a, b) => (up ? 1 : -1) * compare(a, b)));
    });
  });
}
for (const tools of document.querySelectorAll("[data-filters]")) {
  const rows = [...document.getElementById(tools.dataset.filters).tBodies[0].rows];
  const kind = tools.querySelector("select"), text = tools.querySelector("input");
  const filter = () => {
    const wanted = text.value.trim().toLowerCase();
    for (const row of rows) {
      row.hidden = (kind.value && row.dataset.kind !== kind.value) || !row.cells[0].textContent.toLowerCase().includes(wanted);
    }
    tools.querySelector("output").textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
  };
  kind.addEventListener("change", filter);
  text.addEventListener("input", filter);
}

// Charts: a small description from Python becomes Chart.js's.
const drawn = new Map();
function drawChart(id) {
  const spec = report.charts[id], canvas = document.getElementById(`chart-${id}`);
  drawn.get(id)?.destroy();
  const flat = spec.kind === "bars";
  const rows = spec.labels.length;
  if (flat) canvas.parentElement.style.height = `${Math.max(9, 4.5 + 1.55 * rows)}rem`;
  const scale = (title, extra = {}) => ({
    title: { display: Boolean(title), text: title, color: style("--soft") }, ticks: { color: style("--soft"), ...extra.ticks },
    grid: { color: style("--line"), display: extra.grid ?? true }, border: { display: false }, ...extra.more,
  });
  const rounded = (value) => (value == null ? "none" : Number(value.toPrecision(4)).toLocaleString("en"));
  const axes = flat
    ? { x: scale(spec.x, { more: { stacked: true } }), y: scale(spec.y, { grid: false, ticks: { autoSkip: false }, more: { stacked: true } }) }
    : { x: scale(spec.x, { more: { type: spec.numeric ? "linear" : "category", ...(spec.range && { min: spec.range[0], max: spec.range[1] }) } }),
        y: scale(spec.y, { more: { ...(spec.log && { type: "logarithmic" }), ...(spec.range && { min: spec.range[0], max: spec.range[1] }) } }) };
  drawn.set(id, new Chart(canvas, {
    type: flat || spec.kind === "columns" ? "bar" : "line",
    data: {
      labels: spec.labels,
      datasets: spec.series.map((one) => ({
        label: one.name, backgroundColor: one.color, borderColor: one.color, borderWidth: flat ? 0 : 2, maxBarThickness: 26,
        data: spec.numeric ? one.values.map((y, i) => ({ x: spec.labels[i], y })) : one.values, borderDash: one.dashed ? [5, 4] : [],
        pointRadius: rows > 40 || one.dashed ? 0 : 3, pointHitRadius: 8, tension: 0, spanGaps: true,
      })),
    },
    options: {
      indexAxis: flat ? "y" : "x", animation: false, responsive: true, maintainAspectRatio: false, scales: axes,
      interaction: { mode: flat ? "nearest" : "index", intersect: flat },
      plugins: {
        legend: { display: spec.series.length > 1, position: "bottom", labels: { color: style("--text"), boxWidth: 12, boxHeight: 12 } },
        tooltip: { callbacks: { label: (item) => `${item.dataset.label}: ${rounded(flat ? item.parsed.x : item.parsed.y)}` } },
      },
    },
  }));
}
Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) { seen.unobserve(entry.target); drawChart(entry.target.id.slice(6)); }
  }
}, { rootMargin: "300px" });
for (const id of Object.keys(report.charts)) seen.observe(document.getElementById(`chart-${id}`));
onTheme.push(() => drawn.forEach((_, id) => drawChart(id)));
addEventListener("beforeprint", () => Object.keys(report.charts).forEach(drawChart));

// The confusion of classes as squares; the pointer and the arrow keys name a cell.
function drawMatrix(figure) {
  const canvas = figure.querySelector("canvas"), said = figure.querySelector("output");
  const unit = figure.querySelector("select"), counts = report.confusion.counts, names = report.confusion.names, size = names.length;
  const cell = Math.max(6, Math.min(26, Math.floor(640 / size))), ratio = devicePixelRatio || 1;
  const rowSums = () => counts[unit.value].map((row) => row.reduce((sum, value) => sum + value, 0));
  // Names beside the squares where there is room for them.
  const named = size <= 40, margin = named ? 130 : 0;
  let at = [0, 0];
  const draw = () => {
    const values = counts[unit.value], sums = rowSums(), context = canvas.getContext("2d");
    const side = size * cell + margin;
    Object.assign(canvas, { width: side * ratio, height: side * ratio });
    canvas.style.width = canvas.style.height = `${side}px`;
    context.scale(ratio, ratio);
    context.translate(margin, margin);
    context.fillStyle = style("--soft");
    context.font = `12px ${Chart.defaults.font.family}`;
    context.textBaseline = "middle";
    if (named) names.forEach((name, i) => {
      const text = name.length > 18 ? `${name.slice(0, 17)}…` : name, middle = (i + 0.5) * cell;
      context.textAlign = "right";
      context.fillText(text, -8, middle, margin - 10);
      context.save();
      context.translate(middle, -8);
      context.rotate(-Math.PI / 2);
      context.textAlign = "left";
      context.fillText(text, 0, 0, margin - 10);
      context.restore();
    });
    values.forEach((row, y) => row.forEach((value, x) => {
      const share = value / (sums[y] || 1);
      context.fillStyle = style("--line");
      context.globalAlpha = 0.35;
      context.fillRect(x * cell, y * cell, cell - 1, cell - 1);
      context.fillStyle = x === y ? "#0072b2" : "#d55e00";
      context.globalAlpha = value ? 0.12 + 0.88 * Math.sqrt(share) : 0;
      context.fillRect(x * cell, y * cell, cell - 1, cell - 1);
    }));
    context.globalAlpha = 1;
    context.strokeStyle = style("--text");
    context.strokeRect(at[0] * cell - 0.5, at[1] * cell - 0.5, cell, cell);
    const [x, y] = at, value = values[y][x];
    said.textContent = `${names[y]} predicted as ${names[x]}: ${value.toLocaleString("en")} ${unit.value} `
      + `(${((100 * value) / (sums[y] || 1)).toFixed(1)} % of ${names[y]})`;
  };
  const go = (x, y) => { at = [Math.min(size - 1, Math.max(0, x)), Math.min(size - 1, Math.max(0, y))]; draw(); };
  for (const kind of ["pointermove", "pointerdown"]) {
    canvas.addEventListener(kind, (event) => go(Math.floor((event.offsetX - margin) / cell), Math.floor((event.offsetY - margin) / cell)));
  }
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (step) { event.preventDefault(); go(at[0] + step[0], at[1] + step[1]); }
  });
  unit.addEventListener("change", draw);
  onTheme.push(draw);
  draw();
}
document.querySelectorAll("[data-matrix]").forEach(drawMatrix);

// The section in view is marked in the bar.
const links = new Map([...document.querySelectorAll(".bar nav a")].map((link) => [link.hash.slice(1), link]));
const spy = new IntersectionObserver((entries) => entries.forEach((entry) => {
  if (entry.isIntersecting) {
    links.forEach((link) => link.removeAttribute("aria-current"));
    links.get(entry.target.id)?.setAttribute("aria-current", "true");
  }
}), { rootMargin: "-20% 0px -70% 0px" });
document.querySelectorAll("main section[id]").forEach((section) => spy.observe(section));
