// Runs the exported graph off the page's thread. Messages in: {pixels, height, width}; out: {ready}, {result}, {error}.
import * as ort from "./ort.wasm.min.mjs";

ort.env.wasm.wasmPaths = new URL("./", import.meta.url).href;
// Threads need shared memory, which browsers give to isolated pages only; serve.py isolates this one.
ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, 8) : 1;

const description = await (await fetch("model.json")).json();
let session;
try {
  session = await ort.InferenceSession.create("model.onnx", { executionProviders: ["wasm"], logSeverityLevel: 3 });
  postMessage({ ready: description });
} catch (error) {
  postMessage({ error: `The model does not load: ${error.message}` });
}

self.onmessage = async ({ data: { pixels, height, width } }) => {
  try {
    const began = performance.now();
    const image = new ort.Tensor("uint8", channels(pixels, description.input_format), [height, width, 3]);
    const found = await session.run({ image });
    const map = found.panoptic_seg.data;
    postMessage({ result: { map, height, width, segments: segments(found), seconds: (performance.now() - began) / 1000 } });
  } catch (error) {
    postMessage({ error: `The photo could not be segmented: ${error.message}` });
  }
};

/** RGBA bytes as three channels in the order that the model was trained with. */
function channels(pixels, order) {
  const [r, b] = order === "BGR" ? [2, 0] : [0, 2];
  const out = new Uint8Array((pixels.length / 4) * 3);
  for (let from = 0, to = 0; from < pixels.length; from += 4, to += 3) {
    out[to + r] = pixels[from];
    out[to + 1] = pixels[from + 1];
    out[to + b] = pixels[from + 2];
  }
  return out;
}

/** One object for each segment, the largest first. */
function segments(found) {
  const categories = new Map(description.categories.map((row) => [row.id, row]));
  return Array.from(found.segment_id.data, (id, i) => {
    const category = categories.get(Number(found.category_id.data[i]));
    const area = Number(found.area.data[i]);
    return { id: Number(id), area, score: found.score.data[i], isthing: category.isthing, name: category.name, color: category.color };
  }).sort((a, b) => b.area - a.area);
}
