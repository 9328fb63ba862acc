const $ = (id) => document.getElementById(id);
const worker = new Worker("worker.js", { type: "module" });
// What is shown: ids of segments (Int32Array, row by row), their size, and the segments by id.
let shown = null;
let lit = 0;

worker.onmessage = ({ data }) => {
  if (data.error) return say(data.error);
  if (data.ready) {
    $("file").disabled = false;
    return say(`Ready. The model knows ${data.ready.categories.map((row) => row.name).join(", ")}.`);
  }
  $("file").disabled = false;
  show(data.result);
};
worker.onerror = (event) => say(`The model cannot run in this browser: ${event.message}`);

$("file").addEventListener("change", () => open($("file").files[0]));
document.addEventListener("paste", (event) => open(event.clipboardData.files[0]));
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", name === "dragenter" || name === "dragover");
    if (name === "drop") open(event.dataTransfer.files[0]);
  });
}
$("opacity").addEventListener("input", paint);
$("overlay").addEventListener("pointermove", point);
$("overlay").addEventListener("pointerleave", () => light(0));

/** Read a file's pixels as they are stored, upright, and hand them to the worker. */
async function open(file) {
  if (!file || $("file").disabled) return;
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none", imageOrientation: "from-image" });
  } catch {
    return say(`${file.name} is not an image that this browser reads.`);
  }
  const { width, height } = bitmap;
  for (const id of ["image", "overlay"]) Object.assign($(id), { width, height });
  const context = $("image").getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  shown = null;
  $("segments").replaceChildren();
  $("photo").hidden = false;
  $("file").disabled = true;
  say(`Looking at ${file.name}, ${width}×${height} …`);
  worker.postMessage({ pixels: context.getImageData(0, 0, width, height).data, height, width });
}

function show(result) {
  shown = { ...result, byId: new Map(result.segments.map((segment) => [segment.id, segment])) };
  window.lastResult = result; // for scripts and tests
  const parts = result.segments.length === 1 ? "1 segment" : `${result.segments.length} segments`;
  say(`${parts} in ${result.seconds.toFixed(1)} s. Point at one.`);
  $("segments").replaceChildren(...result.segments.map(row));
  paint();
}

/** A line of the list: colour, name and score, share of the photo. */
function row(segment) {
  const button = document.createElement("button");
  button.dataset.id = segment.id;
  const swatch = document.createElement("i");
  swatch.style.background = `rgb(${segment.color})`;
  const name = document.createElement("span");
  name.textContent = label(segment);
  const share = document.createElement("small");
  share.textContent = `${((100 * segment.area) / shown.map.length).toFixed(1)} %`;
  button.append(swatch, name, share);
  for (const begin of ["pointerenter", "focus"]) button.addEventListener(begin, () => light(segment.id));
  for (const end of ["pointerleave", "blur"]) button.addEventListener(end, () => light(0));
  const item = document.createElement("li");
  item.append(button);
  return item;
}

const label = (segment) => (segment.isthing ? `${segment.name} ${Math.round(100 * segment.score)} %` : segment.name);

function point(event) {
  if (!shown) return;
  const box = $("overlay").getBoundingClientRect();
  const x = Math.min(Math.floor(((event.clientX - box.left) / box.width) * shown.width), shown.width - 1);
  const y = Math.min(Math.floor(((event.clientY - box.top) / box.height) * shown.height), shown.height - 1);
  const segment = shown.byId.get(shown.map[y * shown.width + x]);
  light(segment ? segment.id : 0);
  $("name").hidden = false;
  $("name").textContent = segment ? label(segment) : "nothing that the model knows";
  $("name").style.left = `${event.clientX - box.left}px`;
  $("name").style.top = `${event.clientY - box.top}px`;
}

/** Show one segment alone; 0: all. */
function light(id) {
  if (id === 0) $("name").hidden = true;
  if (id === lit) return;
  lit = id;
  for (const button of $("segments").querySelectorAll("button")) button.classList.toggle("lit", Number(button.dataset.id) === id);
  paint();
}

/** Colours of the segments over the photo, with dark outlines; pixels of no segment stay as they are. */
function paint() {
  if (!shown) return;
  const { map, width, height, byId } = shown;
  const context = $("overlay").getContext("2d");
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer); // little-endian: alpha, blue, green, red
  const alpha = Math.round(2.55 * $("opacity").value);
  const colours = new Map();
  for (const [id, { color: [r, g, b] }] of byId) {
    const shownAlpha = lit === 0 || lit === id ? alpha : alpha >> 2;
    colours.set(id, ((shownAlpha << 24) | (b << 16) | (g << 8) | r) >>> 0);
  }
  const outline = 0xd0101010;
  for (let i = 0; i < map.length; i++) {
    const right = (i + 1) % width !== 0 && map[i] !== map[i + 1];
    const below = i + width < map.length && map[i] !== map[i + width];
    pixels[i] = alpha && (right || below) ? outline : colours.get(map[i]) ?? 0;
  }
  context.putImageData(image, 0, 0);
}

function say(text) {
  $("status").textContent = text;
}
