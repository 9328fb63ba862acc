// The gallery of images, the worst segments, and the viewer with its panes that move together.
"use strict";

const viewer = document.getElementById("viewer");
const shown = { photo: true, things: true, stuff: true, outlines: true, labels: true, void: true, opacity: 0.5 };
const view = { scale: 1, x: 0, y: 0 };
let current = null, asking = null, panes = [], order = [], marked = null, alone = null;

// --- what a pane shows -------------------------------------------------------------------------------------------

function panesOf(image) {
  const many = report.models.length > 1, named = (text, m) => (many ? `${text}, ${report.models[m]}` : text);
  const found = [{ kind: "image", title: "Image", side: null }];
  if (image.truth) found.push({ kind: "truth", title: "Ground truth", side: image.truth });
  image.predictions.forEach((side, m) => found.push({ kind: "prediction", model: m, title: named("Prediction", m), side }));
  if (image.truth) image.predictions.forEach((side, m) => found.push({ kind: "errors", model: m, title: named("Errors", m), side: null, errors: side }));
  return found;
}

function makeLayers() {
  for (const pane of panes) {
    if (pane.kind === "errors") pane.layer = errorLayer(current, pane.errors, pane.model, shown);
    else if (pane.side) pane.layer = segmentLayer(current, pane.side, shown, markedIn(pane));
  }
}

const markedIn = (pane) => (marked && (pane.kind === "truth" ? marked.model == null : marked.model === pane.model) ? marked.index : -1);

function arrange() {
  const visible = panes.filter((_, i) => alone == null || alone === i), place = document.getElementById("panes");
  const tall = place.clientHeight > place.clientWidth, count = visible.length;
  const long = count <= 2 ? count : Math.ceil(count / 2), short = Math.ceil(count / long);
  const columns = tall && count !== 4 ? short : long;
  place.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
  place.style.gridTemplateRows = `repeat(${Math.ceil(count / columns)}, minmax(0, 1fr))`;
  panes.forEach((pane, i) => {
    pane.box.hidden = alone != null && alone !== i;
    pane.box.style.order = columns === 3 ? [0, 3, 1, 4, 2, 5][i] : i; // one row a model
  });
}

function buildPanes() {
  const place = document.getElementById("panes");
  place.replaceChildren();
  panes.forEach((pane, i) => {
    const canvas = element("canvas", { role: "img", "aria-label": `${pane.title} of ${report.images[current.number].name}` });
    const button = element("button", { type: "button", title: `Show only this (${i + 1})`, onclick: () => { alone = alone == null ? i : null; arrange(); fit(); } }, pane.title);
    pane.canvas = canvas;
    pane.button = button;
    pane.box = element("div", { class: "pane" }, button, canvas);
    place.append(pane.box);
    listen(pane);
  });
  arrange();
}

// --- drawing -----------------------------------------------------------------------------------------------------

let asked = 0;
function redraw() {
  cancelAnimationFrame(asked);
  asked = requestAnimationFrame(() => panes.forEach((pane) => {
    if (pane.box.hidden || !current) return;
    const ratio = devicePixelRatio || 1, { clientWidth: w, clientHeight: h } = pane.box;
    if (pane.canvas.width !== Math.round(w * ratio) || pane.canvas.height !== Math.round(h * ratio)) {
      Object.assign(pane.canvas, { width: Math.round(w * ratio), height: Math.round(h * ratio) });
    }
    pane.canvas.titleWidth = pane.button.offsetLeft + pane.button.offsetWidth;
    const scaled = { scale: view.scale * ratio, x: view.x * ratio, y: view.y * ratio };
    drawPane(pane.canvas, current, pane, scaled, shown, markedIn(pane));
    if (pointer && pointer.pane !== pane) ring(pane.canvas.getContext("2d"), pointer.x * scaled.scale + scaled.x, pointer.y * scaled.scale + scaled.y, ratio);
  }));
}

function ring(context, x, y, ratio) {
  for (const [color, width] of [["#000", 3], ["#fff", 1.5]]) {
    context.strokeStyle = color;
    context.lineWidth = width * ratio;
    context.beginPath();
    context.arc(x, y, 6 * ratio, 0, 7);
    context.stroke();
  }
}

const firstVisible = () => panes.find((pane) => !pane.box.hidden);
function fit() {
  const { clientWidth: w, clientHeight: h } = firstVisible().box;
  view.scale = Math.min(w / current.width, h / current.height);
  view.x = (w - current.width * view.scale) / 2;
  view.y = (h - current.height * view.scale) / 2;
  redraw();
}

function zoom(factor, x, y) {
  const { clientWidth: w, clientHeight: h } = firstVisible().box;
  const least = 0.5 * Math.min(w / current.width, h / current.height);
  const scale = Math.min(40, Math.max(least, view.scale * factor));
  x ??= w / 2; y ??= h / 2;
  view.x = x - (x - view.x) * scale / view.scale;
  view.y = y - (y - view.y) * scale / view.scale;
  view.scale = scale;
  redraw();
}

function zoomTo(box) {
  const { clientWidth: w, clientHeight: h } = firstVisible().box, [left, top, right, bottom] = box;
  const margin = 1.8 * Math.max(right - left, bottom - top, 24), scale = Math.min(w, h) / margin;
  if (scale <= Math.min(w / current.width, h / current.height)) { fit(); return; }
  view.scale = scale;
  view.x = w / 2 - (left + right) / 2 * view.scale;
  view.y = h / 2 - (top + bottom) / 2 * view.scale;
  redraw();
}

// --- what is under the pointer -----------------------------------------------------------------------------------

let pointer = null;
const points = (value) => `${value < 0.005 ? value.toPrecision(2) : value.toFixed(2)} points`;
function describe(side, index, found) {
  if (index < 0) return "void";
  const segment = side.segments[index], parts = [labelOf(segment), `${segment.area.toLocaleString("en")} px`];
  if (found?.iou != null) parts.push(`IoU ${found.iou.toFixed(2)}`);
  if (found?.cause != null) parts.push(report.causes[found.cause].name);
  if (found?.cost) parts.push(`costs ${points(found.cost)}`);
  return parts.join(", ");
}

function sayPointed() {
  const said = document.getElementById("pointed");
  const { x, y } = pointer ?? {}, inside = pointer && x >= 0 && y >= 0 && x < current.width && y < current.height;
  if (!inside) { said.textContent = ""; return; }
  const i = Math.floor(y) * current.width + Math.floor(x), many = report.models.length > 1, parts = [];
  if (current.truth) {
    const g = current.truth.index[i] - 1;
    parts.push(element("span", {}, element("b", {}, "Ground truth: "), describe(current.truth, g, g < 0 ? null : current.truth.segments[g].found[0]), ". "));
  }
  current.predictions.forEach((side, m) => {
    const p = side.index[i] - 1;
    parts.push(element("span", {}, element("b", {}, many ? `${report.models[m]}: ` : "Prediction: "), describe(side, p, side.segments[p]?.found[0]), ". "));
  });
  said.replaceChildren(...parts);
}

function listen(pane) {
  const held = new Map();
  const at = (event) => [event.offsetX, event.offsetY];
  const point = (event) => {
    pointer = { pane, x: (event.offsetX - view.x) / view.scale, y: (event.offsetY - view.y) / view.scale };
    sayPointed();
    redraw();
  };
  pane.canvas.addEventListener("pointerdown", (event) => { held.set(event.pointerId, at(event)); pane.canvas.setPointerCapture(event.pointerId); point(event); });
  pane.canvas.addEventListener("pointermove", (event) => {
    const before = held.get(event.pointerId), now = at(event);
    if (before && held.size === 1) { view.x += now[0] - before[0]; view.y += now[1] - before[1]; }
    if (before && held.size === 2) {
      const other = [...held].find(([id]) => id !== event.pointerId)[1], far = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]) || 1;
      zoom(far(now) / far(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    }
    if (before) held.set(event.pointerId, now);
    point(event);
  });
  for (const end of ["pointerup", "pointercancel"]) pane.canvas.addEventListener(end, (event) => held.delete(event.pointerId));
  pane.canvas.addEventListener("pointerleave", () => { if (!held.size) { pointer = null; sayPointed(); redraw(); } });
  pane.canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoom(Math.exp(-event.deltaY / 400), ...at(event)); }, { passive: false });
  pane.canvas.addEventListener("dblclick", (event) => zoom(2, ...at(event)));
}

// --- opening, moving on ------------------------------------------------------------------------------------------

async function show(number, mark = null) {
  asking = number;
  document.getElementById("viewer-title").textContent = report.images[number].title;
  if (!viewer.open) { alone = null; viewer.showModal(); }
  const image = await loadImage(number);
  if (asking !== number || !viewer.open) return; // another one was asked for meanwhile
  const before = current, old = alone;
  current = image; marked = mark; pointer = null;
  panes = panesOf(image);
  alone = before && old < panes.length ? old : null;
  makeLayers();
  buildPanes();
  listSegments();
  sayPointed();
  fit();
  if (mark) zoomTo(sideOf(mark).places[mark.index].box);
}

const sideOf = (mark) => (mark.model == null ? current.truth : current.predictions[mark.model]);
function step(by) {
  const at = order.indexOf(asking), next = order[at + by];
  if (at >= 0 && next != null) show(next);
}

function mark(wanted) {
  const same = marked && wanted && marked.model === wanted.model && marked.index === wanted.index;
  marked = same ? null : wanted;
  makeLayers();
  listSegments();
  if (marked) zoomTo(sideOf(marked).places[marked.index].box); else fit();
}

function listSegments() {
  const list = document.getElementById("viewer-segments"), sides = [[null, "Ground truth", current.truth], ...current.predictions.map((side, m) => [m, report.models[m], side])];
  const focus = document.activeElement?.dataset?.segment;
  list.replaceChildren();
  for (const [model, title, side] of sides) {
    if (!side) continue;
    const worst = side.segments.map((_, k) => k).sort((a, b) => (side.segments[b].found[0]?.cost ?? 0) - (side.segments[a].found[0]?.cost ?? 0));
    list.append(element("h3", {}, title), element("ul", {}, ...worst.map((index) => {
      const segment = side.segments[index], found = segment.found[0], on = marked && marked.model === model && marked.index === index;
      const more = [found?.cause != null ? report.causes[found.cause].name : found?.iou != null ? `IoU ${found.iou.toFixed(2)}` : ""];
      if (found?.cost >= 0.005) more.push(`−${found.cost.toFixed(2)}`);
      return element("li", {}, element("button", { type: "button", "aria-pressed": String(Boolean(on)), "data-segment": `${model}-${index}`, onclick: () => mark({ model, index }) },
        element("span", { class: "chip", style: `background:${report.categories[segment.category].color}` }), labelOf(segment), element("em", {}, more.filter(Boolean).join(" "))));
    })));
  }
  list.querySelector(`[data-segment="${focus}"]`)?.focus();
}

const actions = {
  "zoom-in": () => zoom(1.5), "zoom-out": () => zoom(1 / 1.5), "zoom-fit": () => { marked = null; makeLayers(); listSegments(); fit(); },
  previous: () => step(-1), next: () => step(1), close: () => viewer.close(),
  list: () => { document.querySelector("#viewer aside").classList.toggle("shown"); arrange(); fit(); },
};
for (const [name, act] of Object.entries(actions)) viewer.querySelector(`[data-act="${name}"]`)?.addEventListener("click", act);
for (const box of viewer.querySelectorAll("[data-layer]")) {
  box.addEventListener("input", () => {
    shown[box.dataset.layer] = box.type === "checkbox" ? box.checked : box.value / 100;
    makeLayers();
    redraw();
  });
}
const keys = {
  "+": "zoom-in", "=": "zoom-in", "-": "zoom-out", 0: "zoom-fit", n: "next", PageDown: "next", p: "previous", PageUp: "previous", s: "list",
};
const layerKeys = { i: "photo", t: "things", f: "stuff", o: "outlines", l: "labels", v: "void" };
viewer.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !current) return;
  const typing = event.target.matches("input[type=range], select");
  const pan = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] }[event.key];
  const box = layerKeys[event.key] && viewer.querySelector(`[data-layer="${layerKeys[event.key]}"]`), pane = +event.key - 1;
  if (typing && pan) return;
  if (pan) { view.x += pan[0]; view.y += pan[1]; redraw(); }
  else if (keys[event.key]) actions[keys[event.key]]();
  else if (box) box.click();
  else if (pane >= 0 && pane < panes.length) { alone = alone === pane ? null : pane; arrange(); fit(); }
  else return;
  event.preventDefault();
});
viewer.addEventListener("close", () => { current = asking = null; panes = []; document.getElementById("panes").replaceChildren(); });
new ResizeObserver(() => { if (current) { arrange(); fit(); } }).observe(document.getElementById("panes"));

// --- tiles -------------------------------------------------------------------------------------------------------

const TILE = { photo: true, things: true, stuff: true, outlines: true, labels: false, void: true, opacity: 0.5 };
async function drawTile(canvas) {
  const { image: number, model = "", index } = canvas.dataset, image = await loadImage(+number);
  const width = 2 * (canvas.clientWidth || 200), height = Math.round(0.75 * width);
  Object.assign(canvas, { width, height });
  const m = model === "" ? 0 : +model, isMarked = index != null && index !== "";
  const side = isMarked && model === "" ? image.truth : image.predictions[m];
  const pane = isMarked || !image.truth
    ? { kind: "prediction", layer: segmentLayer(image, side, TILE, isMarked ? +index : -1) }
    : { kind: "errors", layer: errorLayer(image, image.predictions[m], m, TILE) };
  let [left, top, right, bottom] = [0, 0, image.width, image.height];
  if (isMarked) {
    const box = side.places[+index].box, reach = 0.35 * Math.max(box[2] - box[0], box[3] - box[1], 32);
    [left, top] = [Math.max(0, box[0] - reach), Math.max(0, box[1] - reach)];
    [right, bottom] = [Math.min(image.width, box[2] + reach), Math.min(image.height, box[3] + reach)];
  }
  const scale = Math.min(width / (right - left), height / (bottom - top));
  const x = width / 2 - (left + right) / 2 * scale, y = height / 2 - (top + bottom) / 2 * scale;
  drawPane(canvas, image, pane, { scale, x, y }, TILE, -1);
}
const tiles = new IntersectionObserver((entries) => entries.forEach((entry) => {
  if (entry.isIntersecting) { tiles.unobserve(entry.target); drawTile(entry.target); }
}), { rootMargin: "200px" });

function addTile(list, { number, title, text, model, index }) {
  const isMarked = index != null;
  const canvas = element("canvas", { "data-image": number, "data-model": model, "data-index": index, "aria-hidden": "true" });
  const open = () => { order = numbersIn(list); show(number, isMarked ? { model: model ?? null, index } : null); };
  list.append(element("li", {}, element("button", { type: "button", class: "tile", "data-number": number, onclick: open }, canvas, element("span", {}, element("b", {}, title), text))));
  tiles.observe(canvas);
}
const numbersIn = (list) => (list.id === "gallery" ? filtered : [...new Set([...list.querySelectorAll("[data-number]")].map((tile) => +tile.dataset.number))]);

let filtered = [], drawnTiles = 0;
const PAGE = 24;
function filterGallery() {
  const value = (id) => document.getElementById(id)?.value ?? "";
  const text = value("gallery-text").toLowerCase(), cause = value("gallery-cause"), category = value("gallery-class"), sort = value("gallery-sort") || "order";
  const key = (image) => (sort === "name" ? 0 : cause !== "" && sort === "lost" ? image.by_cause[cause] ?? 0 : image[sort] ?? 0);
  filtered = report.images.map((_, number) => number).filter((number) => {
    const image = report.images[number];
    return image.name.toLowerCase().includes(text) && (cause === "" || image.by_cause?.[cause] > 0) && (category === "" || image.categories.includes(+category));
  });
  if (sort === "name") filtered.sort((a, b) => report.images[a].name.localeCompare(report.images[b].name));
  else if (sort !== "order") filtered.sort((a, b) => key(report.images[b]) - key(report.images[a]));
  drawnTiles = 0;
  document.getElementById("gallery").replaceChildren();
  moreTiles();
}
function moreTiles() {
  const list = document.getElementById("gallery"), until = Math.min(filtered.length, drawnTiles + PAGE);
  for (; drawnTiles < until; drawnTiles++) {
    const number = filtered[drawnTiles], image = report.images[number];
    addTile(list, { number, title: image.name, text: image.text });
  }
  document.getElementById("gallery-more").hidden = drawnTiles >= filtered.length;
  document.getElementById("gallery-count").textContent = `${filtered.length} of ${report.images.length} images`;
}
if (document.getElementById("gallery")) {
  for (const id of ["gallery-text", "gallery-cause", "gallery-class", "gallery-sort"]) document.getElementById(id)?.addEventListener("input", filterGallery);
  document.getElementById("gallery-more").addEventListener("click", moreTiles);
  for (const link of document.querySelectorAll("[data-show-cause]")) {
    link.addEventListener("click", () => { document.getElementById("gallery-cause").value = link.dataset.showCause; filterGallery(); });
  }
  filterGallery();
}
for (const list of document.querySelectorAll("[data-segments]")) report.segments[list.dataset.segments].forEach((one) => addTile(list, one));
for (const button of document.querySelectorAll("[data-open]")) {
  button.addEventListener("click", () => { const one = report.segments[button.dataset.open][button.dataset.at]; order = []; show(one.number, { model: one.model ?? null, index: one.index }); });
}
document.documentElement.dataset.ready = "";
