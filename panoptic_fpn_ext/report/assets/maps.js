// Images and panoptic maps: decoded when they are looked at, drawn as fills, outlines, hatches and labels.
"use strict";

const bytesOf = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
const rgbOf = (color) => [1, 3, 5].map((start) => parseInt(color.slice(start, start + 2), 16));

async function inflate(base64) {
  const stream = new Blob([bytesOf(base64)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// A map of K segments: one or two planes of bytes, each row stored as its difference (xor) from the row above.
async function decodeMap(base64, width, height) {
  const bytes = await inflate(base64), size = width * height, index = new Uint16Array(size);
  for (let i = width; i < bytes.length; i++) if (i % size >= width) bytes[i] ^= bytes[i - width];
  for (let i = 0; i < size; i++) index[i] = bytes[i] + (bytes.length > size ? bytes[size + i] << 8 : 0);
  return index;
}

const decoded = new Map(); // the images looked at last
const KEPT = 10;
function loadImage(number) {
  const found = decoded.get(number);
  decoded.delete(number);
  decoded.set(number, found ?? decodeImage(number));
  if (decoded.size > KEPT) decoded.delete(decoded.keys().next().value);
  return decoded.get(number);
}

async function decodeImage(number) {
  const stored = JSON.parse(document.getElementById(`image-${number}`).textContent);
  const [width, height] = stored.size;
  const photo = stored.photo && await createImageBitmap(new Blob([bytesOf(stored.photo)], { type: "image/jpeg" }));
  const side = async (one) => one && { segments: one.segments, index: await decodeMap(one.map, width, height) };
  const truth = await side(stored.truth), predictions = await Promise.all(stored.predictions.map(side));
  for (const one of [truth, ...predictions]) if (one) one.places = findPlaces(one, width, height);
  return { number, width, height, photo, grey: photo && greyOf(photo, width, height), truth, predictions };
}

function greyOf(photo, width, height) {
  const canvas = element("canvas", { width, height }), context = canvas.getContext("2d");
  context.drawImage(photo, 0, 0, width, height);
  context.globalCompositeOperation = "saturation";
  context.fillStyle = "#808080";
  context.fillRect(0, 0, width, height);
  return canvas;
}

// Of each segment: the middle of its thickest part, where its label goes, and its box.
function findPlaces({ index, segments }, width, height) {
  const depth = new Uint16Array(width * height), places = segments.map(() => ({ depth: -1, box: [width, height, 0, 0] }));
  const reach = (i, j) => { if (index[j] === index[i]) depth[i] = Math.min(depth[i], depth[j] + 1); else depth[i] = 0; };
  for (let y = 0, i = 0; y < height; y++) for (let x = 0; x < width; x++, i++) {
    depth[i] = x && y ? 65534 : 0;
    if (x && y) { reach(i, i - 1); reach(i, i - width); }
  }
  for (let y = height - 1, i = width * height - 1; y >= 0; y--) for (let x = width - 1; x >= 0; x--, i--) {
    if (x === width - 1 || y === height - 1) depth[i] = 0; else { reach(i, i + 1); reach(i, i + width); }
    if (!index[i]) continue;
    const place = places[index[i] - 1], box = place.box;
    if (depth[i] > place.depth) Object.assign(place, { depth: depth[i], x: x + 0.5, y: y + 0.5 });
    box[0] = Math.min(box[0], x); box[1] = Math.min(box[1], y); box[2] = Math.max(box[2], x + 1); box[3] = Math.max(box[3], y + 1);
  }
  return places;
}

const labelOf = (segment) => report.categories[segment.category].name
  + (segment.score != null ? ` ${(100 * segment.score).toFixed(0)}%` : "") + (segment.crowd ? " crowd" : "");
const isOutline = (index, i, x, y, width, height) =>
  (x + 1 < width && index[i] !== index[i + 1]) || (y + 1 < height && index[i] !== index[i + width]);
const hatched = (x, y) => ((x + y) & 7) < 3;

function layer(width, height, colorAt) {
  const canvas = element("canvas", { width, height }), context = canvas.getContext("2d"), image = context.createImageData(width, height);
  for (let y = 0, i = 0; y < height; y++) for (let x = 0; x < width; x++, i++) {
    const color = colorAt(i, x, y);
    if (color) image.data.set(color, 4 * i);
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

// Segments in the colours of their categories; what is void is hatched, so that nobody takes it for a dark wall.
function segmentLayer(image, side, shown, marked = -1) {
  const { width, height } = image, { index, segments } = side, alpha = Math.round(255 * shown.opacity);
  const colors = segments.map((s) => {
    const category = report.categories[s.category];
    return shown[category.isthing ? "things" : "stuff"] ? rgbOf(category.color) : null;
  });
  return layer(width, height, (i, x, y) => {
    const k = index[i] - 1;
    if (shown.outlines && isOutline(index, i, x, y, width, height)) return [255, 255, 255, 235];
    if (k === marked && k >= 0) return [...(colors[k] ?? [255, 255, 255]), Math.min(255, alpha + 70)];
    if (k < 0) return shown.void ? (hatched(x, y) ? [0, 0, 0, 150] : [235, 235, 235, 110]) : null;
    return colors[k] && alpha ? [...colors[k], marked >= 0 ? alpha >> 1 : alpha] : null;
  });
}

// Pixels of segments that cost something, in the colour of the cause; right ones stay grey.
function errorLayer(image, prediction, model, shown) {
  const { width, height, truth } = image, alpha = Math.round(255 * Math.max(0.35, shown.opacity));
  const colors = report.causes.map((cause) => [...rgbOf(cause.color), alpha]);
  const shape = report.causes.findIndex((cause) => cause.key === report.shape);
  const wanted = truth.segments.map((s) => s.found[model] ?? {}), given = prediction.segments.map((s) => s.found[0] ?? {});
  return layer(width, height, (i, x, y) => {
    const g = truth.index[i] - 1, p = prediction.index[i] - 1;
    if (shown.outlines && isOutline(truth.index, i, x, y, width, height)) return [255, 255, 255, 150];
    const a = g < 0 ? {} : wanted[g], b = p < 0 ? {} : given[p];
    if (a.match != null && a.match === p) return null;
    const cause = a.cause ?? b.cause ?? (a.match != null || (b.match != null && g >= 0) ? shape : null);
    if (cause != null && cause >= 0) return colors[cause];
    return g < 0 && shown.void ? (hatched(x, y) ? [0, 0, 0, 150] : [235, 235, 235, 110]) : null;
  });
}

// Labels of segments that are large enough on the screen, the largest first, none over another.
function drawLabels(context, side, view, shown, ratio, marked) {
  const size = 12 * ratio, taken = [[0, 0, (context.canvas.titleWidth ?? 0) * ratio, 34 * ratio]]; // the pane's title
  context.font = `600 ${size}px ${getComputedStyle(document.body).fontFamily}`;
  context.textBaseline = "middle";
  const order = side.places.map((_, k) => k).filter((k) => side.places[k].depth >= 0)
    .sort((a, b) => (b === marked) - (a === marked) || side.places[b].depth - side.places[a].depth);
  for (const k of order) {
    const place = side.places[k], segment = side.segments[k], category = report.categories[segment.category];
    if (!shown[category.isthing ? "things" : "stuff"] && k !== marked) continue;
    if (place.depth * view.scale < 5 * ratio && k !== marked) continue;
    const text = labelOf(segment), width = context.measureText(text).width + 8 * ratio, height = size + 6 * ratio;
    const px = place.x * view.scale + view.x, py = place.y * view.scale + view.y;
    if (px < 0 || py < 0 || px > context.canvas.width || py > context.canvas.height) continue;
    const x = Math.max(0, Math.min(px - width / 2, context.canvas.width - width));
    for (const step of [0, -1, 1]) {
      const y = Math.max(0, Math.min(py - height / 2 + step * height, context.canvas.height - height));
      const free = taken.every(([l, t, w, h]) => x > l + w || l > x + width || y > t + h || t > y + height);
      if (!free) continue;
      taken.push([x, y, width, height]);
      context.fillStyle = "rgba(12, 14, 16, 0.78)";
      context.fillRect(x, y, width, height);
      context.fillStyle = category.color;
      context.fillRect(x, y, 3 * ratio, height);
      context.fillStyle = "#fff";
      context.fillText(text, x + 5 * ratio, y + height / 2);
      break;
    }
  }
}

// One pane: the image, a layer over it, labels.
function drawPane(canvas, image, pane, view, shown, marked) {
  const context = canvas.getContext("2d"), ratio = canvas.width / (canvas.clientWidth || canvas.width);
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  const place = [view.x, view.y, image.width * view.scale, image.height * view.scale];
  const ground = pane.kind === "errors" ? image.grey : image.photo;
  context.imageSmoothingEnabled = view.scale < 3;
  context.imageSmoothingQuality = "high";
  if (ground && shown.photo) context.drawImage(ground, ...place);
  else { context.fillStyle = "#6b7075"; context.fillRect(...place); }
  if (pane.layer) { context.imageSmoothingEnabled = view.scale < 1; context.drawImage(pane.layer, ...place); }
  if (pane.side && shown.labels) drawLabels(context, pane.side, view, shown, ratio, marked);
}
