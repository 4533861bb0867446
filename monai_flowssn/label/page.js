// The page: a client of the server's own requests, and of /draws/file, which gives every image and mask as NRRD.
"use strict";

const byId = new Proxy({}, {get: (_, id) => document.getElementById(id)});
const canvas = byId.canvas, pen = canvas.getContext("2d");
const RATERS = ["#56b4e9", "#ff8a5c", "#4fd6a5", "#d9a0ff", "#ffffff", "#f0a6c0"];
const HEAT = [[42, 10, 94], [181, 54, 122], [252, 137, 97], [252, 253, 191]];  // colours from 0 to 1
const MOST = 2 ** 30;  // voxels of all draws that a browser holds
let models = {}, studies = {};  // of the server, by their names; of a study, the tags of its labels
let image = null, raters = [], point = null;  // of the study: raters have a name, a mask and a size; the point is [x, y, z]
let answer = null, request = null;  // what was drawn, and what is being drawn

// --- what the server has ---------------------------------------------------------------------------------------------------------

async function ask(path, options) {
  const reply = await fetch(path, options), text = reply.ok || await reply.text();
  if (reply.ok) return reply;
  throw new Error(/^{"detail":"/.test(text) ? JSON.parse(text).detail : text);
}

/** Read a NRRD file: its values, components first, then x, y, z. */
async function nrrd(blob) {
  const start = new Uint8Array(await blob.slice(0, 1 << 20).arrayBuffer());
  const end = start.findIndex((byte, i) => byte === 10 && start[i + 1] === 10);
  const lines = new TextDecoder().decode(start.subarray(0, end)).split("\n");
  const header = Object.fromEntries(lines.map(line => line.split(/: ?=? ?/)).map(([name, ...rest]) => [name, rest.join(":")]));
  const body = blob.slice(end + 2), packed = /gz/.test(header.encoding);
  const plain = packed ? new Response(body.stream().pipeThrough(new DecompressionStream("gzip"))) : body;
  const types = {float: Float32Array, double: Float64Array, "unsigned char": Uint8Array, uint8: Uint8Array};
  const values = new types[header.type](await plain.arrayBuffer());
  const sizes = header.sizes.split(" ").map(Number), first = /^(domain|space)/.test(header.kinds ?? "domain");
  const components = first ? 1 : sizes.shift(), axes = sizes.length;
  const size = [...sizes, 1, 1].slice(0, 3);
  const vectors = (header["space directions"] ?? "").match(/[^()]+(?=\))/g) ?? [];
  const directions = vectors.map(vector => vector.split(",").map(Number));
  return {values, components, axes, size, directions, space: header.space};
}

async function begin() {
  models = (await (await ask("../info/")).json()).models;
  fill(byId.model, Object.keys(models));
  studies = await (await ask("studies")).json();
  fill(byId.study, Object.keys(studies));
  const wanted = new URLSearchParams(location.search);
  for (const id of ["study", "model"]) if (wanted.has(id)) byId[id].value = wanted.get(id);
  chooseModel();
  if (!byId.study.value) throw new Error("This server has no studies.");
  await chooseStudy();
}

/** What the network of the model sees of an image. */
const sees = name => models[byId.model.value]?.sees?.[`data::${name}`];
const fill = (select, names) => select.replaceChildren(...names.map(name => new Option(name, name)));
const load = async address => nrrd(await (await ask(address)).blob());

function chooseModel() {
  const model = models[byId.model.value] ?? {};
  byId.point.hidden = !model.sees || sees("crops") === "whole";
  byId.without.textContent = sees("crops") === "anywhere" ? "the whole image" : "the middle of the image";
  byId.count.value = model.config?.draws ?? 16;
  byId.class.replaceChildren(...Object.entries(model.labels ?? {}).map(([name, id]) => new Option(name, id)));
  byId.classes.hidden = byId.class.length < 2;
  forget();
}

async function chooseStudy() {
  const study = byId.study.value, file = `file?image=${encodeURIComponent(study)}`;
  [image, raters] = [null, []];
  setPoint(null);
  const read = await load(file);
  const tags = studies[study].filter(tag => tag !== "original");  // that one is a model's
  const masks = await Promise.allSettled(tags.map(tag => load(`${file}&tag=${encodeURIComponent(tag)}`)));
  if (study !== byId.study.value) return;  // another was chosen meanwhile
  image = read;
  raters = masks.flatMap((mask, i) => mask.value ? [{name: tags[i], mask: mask.value}] : []);
  const held = sees("class_values") ?? [];  // what the files of raters hold for class 0, 1, ...
  if (held.length) for (const {mask} of raters) mask.values = mask.values.map(value => held.indexOf(value));
  const refused = masks.find(mask => mask.reason);
  if (refused) byId.fault.textContent = refused.reason.message;
  byId.outlines.replaceChildren(...[...byId.outlines.children].slice(0, 2), ...raters.map(({name}, i) => {
    const row = byId.one.parentElement.cloneNode(true), [box, key, text] = row.children;
    [box.id, box.checked, key.style.borderColor, text.textContent] = [`rater${i}`, true, RATERS[i % RATERS.length], name];
    return row;
  }));
  const sorted = Float32Array.from({length: 4096}, (_, i) => image.values[Math.floor(i / 4096 * image.values.length)]).sort();
  [byId.black.value, byId.white.value] = sees("intensity_range") ?? [sorted[20], sorted[4075]].map(value => +value.toPrecision(4));
  [byId.x.max, byId.y.max, byId.z.max] = image.size.map(size => size - 1);
  [byId.slice.max, byId.slice.value] = [image.size[2] - 1, image.size[2] >> 1];
  [byId.depth.hidden, byId.slices.hidden] = [image.axes < 3, image.size[2] < 2];
  show();
}

// --- drawing ---------------------------------------------------------------------------------------------------------------------

function forget() {
  request?.abort();
  answer = null;
  for (const id of ["flip", "sizes"]) byId[id].hidden = true;
  for (const id of ["file", "json"]) URL.revokeObjectURL(byId[id].href);
  [byId.top.value, byId.fault.textContent, byId.status.textContent] = ["", "", ""];
  show();
}

/** Take a point, [x, y, z] or null; what was drawn around another is gone. */
function setPoint(place) {
  point = place;
  ["x", "y", "z"].forEach((id, i) => byId[id].value = place?.[i] ?? "");
  if (place) byId.slice.value = place[2];
  forget();
}

/** Ask for draws, or for a map of the same ones: the noise of a study is the same each time. */
async function infer(params) {
  const body = new FormData();
  const foreground = point && !byId.point.hidden ? {foreground: [point.slice(0, image.axes)]} : {};
  body.append("params", JSON.stringify({...foreground, draws: answer?.draws.components ?? +byId.count.value, ...params}));
  const path = `../infer/${encodeURIComponent(byId.model.value)}?image=${encodeURIComponent(byId.study.value)}&output=all`;
  request = new AbortController();
  const mine = request, began = performance.now();
  [byId.go.disabled, byId.cancel.hidden, byId.fault.textContent, byId.status.textContent] = [true, false, "", "Drawing …"];
  try {
    const reply = await (await ask(path, {method: "POST", body, signal: mine.signal})).formData();
    const file = reply.get("image"), result = JSON.parse(reply.get("params"));
    const map = await nrrd(file);
    mine.signal.throwIfAborted();  // another study or point was chosen meanwhile
    byId.status.textContent = `Done in ${((performance.now() - began) / 1000).toFixed(1)} s.`;
    return {file, result, map};
  } catch (error) {
    byId.status.textContent = error.name === "AbortError" ? "Cancelled." : "";
    throw error;
  } finally {
    if (mine === request) [byId.go.disabled, byId.cancel.hidden] = [false, true];
  }
}

async function go() {
  const voxels = image?.size.reduce((a, b) => a * b);
  if (voxels * byId.count.value > MOST) throw new Error(`Ask for at most ${Math.floor(MOST / voxels)} draws of this study.`);
  forget();
  if (!image) return;
  const {file, result, map: draws} = await infer({output: "draws"});
  answer = {result, draws, maps: {}};
  [byId.draw.max, byId.draw.value] = [draws.components, 1];
  for (const id of ["flip", "sizes"]) byId[id].hidden = false;
  byId.kind.textContent = result.shape.length > 2 ? "Volumes" : "Areas";
  byId.file.href = URL.createObjectURL(file);
  byId.json.href = URL.createObjectURL(new Blob([JSON.stringify(result, null, 2)], {type: "application/json"}));
  const stem = byId.study.value.replace(/[^\w.-]+/g, "_");
  [byId.file.download, byId.json.download, byId.picture.download] = [`${stem}.seg.nrrd`, `${stem}.json`, `${stem}.png`];
  count();
  if (!point) byId.slice.value = answer.slices.indexOf(Math.max(...answer.slices));
  show();
}

/** Find the share of the draws that hold the class, for every voxel, and the size of it in the raters' masks. */
function count() {
  const {values, components} = answer.draws, kind = +byId.class.value, counts = new Float32Array(values.length / components);
  for (let i = 0, at = 0; i < counts.length; i++) for (let n = 0; n < components; n++) counts[i] += values[at++] === kind;
  answer.maps.share = counts.map(count => count / components);
  answer.slices = Array(image.size[2]).fill(0);  // how much of the class each has
  counts.forEach((count, i) => answer.slices[Math.floor(i / image.size[0] / image.size[1])] += count);
  const voxel = (answer.result.spacing ?? []).reduce((a, b) => a * b, 1);
  for (const rater of raters) rater.size = voxel * rater.mask.values.reduce((sum, value) => sum + (value === kind), 0);
}

async function chooseTop() {
  const name = byId.top.value;
  if (name && answer && !answer.maps[name]) {
    const {map, result} = await infer({output: name, result_extension: ".nrrd"});
    const most = map.values instanceof Uint8Array ? 255 : Math.log(result.num_classes);  // pictures hold the maps in 8 bits
    answer.maps[name] = Float32Array.from(map.values, value => value / most);
  }
  show();
}

// --- showing ---------------------------------------------------------------------------------------------------------------------

/** What is shown along x and y: the first pixel and how many, whether backwards, and the letters of its ends. The patient's right is
 *  left, and the front is up; the point is in the middle, as far as it can. */
function view() {
  return [0, 1].map(axis => {
    const all = image.size[axis], size = all / byId.zoom.value, middle = point ? point[axis] + .5 : all / 2;
    const first = Math.min(Math.max(middle - size / 2, 0), all - size), vector = image.directions[axis];
    const known = image.space === "left-posterior-superior" && vector?.length === 3;
    const along = known ? vector.map(Math.abs).indexOf(Math.max(...vector.map(Math.abs))) : 3;
    return {first, size, back: known && (vector[along] < 0) !== (along === 2), letters: ["RL", "AP", "SI", "  "][along]};
  });
}

function show() {
  if (!image) {  // nothing of another study stays
    canvas.width = canvas.height = 300;
    return canvas.setAttribute("aria-label", "No image");
  }
  const [width, height] = image.size, z = +byId.slice.value, spacing = image.directions.map(each => Math.hypot(...each));
  const ratio = (spacing[1] || 1) / (spacing[0] || 1), scale = Math.max(1, Math.round(900 / Math.max(width, height * ratio)));
  [canvas.width, canvas.height] = [width * scale, Math.round(height * scale * ratio)];
  const [across, down] = view();
  pen.save();
  pen.translate(across.back ? canvas.width : 0, down.back ? canvas.height : 0);
  pen.scale((across.back ? -1 : 1) * canvas.width / across.size, (down.back ? -1 : 1) * canvas.height / down.size);
  pen.translate(-across.first, -down.first);
  pen.drawImage(pixels(grey(z)), 0, 0);
  const map = answer?.maps[byId.top.value];
  if (map) pen.drawImage(pixels(heat(map, z)), 0, 0);
  const line = 2.5 * across.size / canvas.width;
  const all = answer && byId.all.checked ? answer.draws.components : 0;
  for (let n = 0; n < all; n++) outline(answer.draws, n, z, "#ffd60a66", line / 2);
  raters.forEach((rater, i) => byId[`rater${i}`].checked && outline(rater.mask, 0, z, RATERS[i % RATERS.length], line));
  if (answer && byId.one.checked) outline(answer.draws, byId.draw.value - 1, z, "#ffd60a", 1.4 * line);
  if (answer?.result.window) {
    const [low, high] = answer.result.window;
    pen.beginPath();
    pen.rect(low[0], low[1], high[0] - low[0] + 1, high[1] - low[1] + 1);
    stroke("#6cb6ff", line / 2, [2 * line, 2 * line]);
  }
  if (point?.[2] === z) {
    pen.beginPath();
    pen.arc(point[0] + .5, point[1] + .5, 5 * line, 0, 2 * Math.PI);
    stroke("#6cb6ff", line);
  }
  pen.restore();
  [pen.font, pen.fillStyle] = ["600 22px system-ui, sans-serif", "#fff"];
  const x = canvas.width / 2, y = canvas.height / 2, places = [[8, y], [2 * x - 26, y], [x, 26], [x, 2 * y - 10]];
  [...across.letters, ...down.letters].forEach((letter, i) => pen.fillText(letter, ...places[i]));
  describe(z);
}

/** Make a picture of (r, g, b, a) for every pixel. */
function pixels(colours) {
  const picture = new OffscreenCanvas(...image.size.slice(0, 2));
  picture.getContext("2d").putImageData(new ImageData(colours, image.size[0]), 0, 0);
  return picture;
}

function grey(z) {
  const {values, components, size} = image, area = size[0] * size[1], out = new Uint8ClampedArray(4 * area).fill(255);
  const black = +byId.black.value, range = (+byId.white.value - black) || 1;
  for (let i = 0; i < area; i++) for (let c = 0; c < 3; c++) {
    const value = values[(z * area + i) * components + (components < 3 ? 0 : c)];
    out[4 * i + c] = 255 * (value - black) / range;
  }
  return out;
}

function heat(map, z) {
  const area = image.size[0] * image.size[1], out = new Uint8ClampedArray(4 * area);
  for (let i = 0; i < area; i++) {
    const value = Math.min(1, map[z * area + i]), at = Math.min(2.999, 3 * value), low = Math.floor(at);
    for (let c = 0; c < 3; c++) out[4 * i + c] = HEAT[low][c] + (at - low) * (HEAT[low + 1][c] - HEAT[low][c]);
    out[4 * i + 3] = value > 0.01 ? 90 + 80 * value : 0;
  }
  return out;
}

/** Draw the edges between the pixels of a class and all others. */
function outline({values, components}, n, z, colour, thick) {
  const [width, height] = image.size, first = z * width * height, kind = +byId.class.value;
  const at = (x, y) => values[(first + y * width + x) * components + n];
  const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && at(x, y) === kind;
  pen.beginPath();
  for (let y = 0; y <= height; y++) for (let x = 0; x <= width; x++) {
    const here = inside(x, y);
    if (here !== inside(x - 1, y)) { pen.moveTo(x, y); pen.lineTo(x, y + 1) }
    if (here !== inside(x, y - 1)) { pen.moveTo(x, y); pen.lineTo(x + 1, y) }
  }
  stroke(colour, thick);
}

function stroke(colour, thick, dash = []) {
  [pen.strokeStyle, pen.lineWidth, pen.lineCap] = [colour, thick, "round"];
  pen.setLineDash(dash);
  pen.stroke();
}

// --- what it says in words and numbers -------------------------------------------------------------------------------------------

const unit = () => answer.result.unit.replace(/\^(\d)/, (_, digit) => "²³"[digit - 2]);
const number = value => value.toLocaleString("en", {maximumSignificantDigits: 4});

function describe(z) {
  const parts = [`Study ${byId.study.value}`];
  byId.where.textContent = `${z + 1} of ${image.size[2]}`;
  if (image.size[2] > 1) parts.push(`slice ${byId.where.textContent}`);
  if (point) parts.push(`point ${point.slice(0, image.axes).join(", ")}`);
  byId.legend.hidden = !answer?.maps[byId.top.value];
  if (answer) {
    const sizes = answer.result.classes[byId.class.value], n = byId.draw.value - 1;
    const size = `${number(sizes.per_draw[n])} ${unit()}`;
    byId.which.textContent = `${n + 1} of ${answer.draws.components}: ${size}`;
    byId.high.textContent = byId.top.value === "share" ? "all draws" : `${Math.log(answer.result.num_classes).toFixed(2)} nats`;
    parts.push(`draw ${n + 1}, ${size}`);
    histogram(sizes, n);
  }
  canvas.setAttribute("aria-label", parts.join(", "));
}

function histogram(sizes, n) {
  const values = sizes.per_draw, most = 1.02 * Math.max(...values, ...raters.map(({size}) => size)) || 1;
  const counts = Array(20).fill(0), bin = value => Math.floor(value / most * 20), place = value => 10 + 300 * value / most;
  for (const value of values) counts[bin(value)]++;
  const tallest = Math.max(...counts), parts = [];
  const add = (kind, attributes, text = "") => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", kind);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.textContent = text;
    parts.push(node);
  };
  counts.forEach((count, i) => {
    const height = 110 * count / tallest, fill = i === bin(values[n]) ? "#ffd60a" : "#8a93a3";
    add("rect", {x: 10 + 15 * i, y: 125 - height, width: 14, height, fill});
  });
  raters.forEach(({size}, i) => add("path", {d: `M${place(size)} 127l5 9h-10z`, fill: RATERS[i % RATERS.length]}));
  const marks = {start: 0, middle: most / 2, end: most};
  for (const [anchor, value] of Object.entries(marks)) add("text", {x: place(value), y: 152, "text-anchor": anchor}, Math.round(value));
  add("text", {x: 160, y: 166, "text-anchor": "middle"}, `${unit()}; bars are draws`);
  byId.histogram.replaceChildren(...parts);
  const [low, high] = sizes.interval_95.map(number), empty = values.filter(value => value === 0).length;
  const said = [`Median ${number(sizes.median)}, mean ${number(sizes.mean)} ${unit()}; 95 % of the draws lie in [${low}, ${high}].`];
  if (empty) said.push(`${empty} of ${values.length} draws are empty.`);
  if (raters.length) said.push(`Triangles: ${raters.map(({name, size}) => `${name} ${number(size)}`).join(", ")}.`);
  byId.text.textContent = said.join(" ");
}

// --- what a person does ----------------------------------------------------------------------------------------------------------

const safely = action => event => Promise.resolve(event).then(action).catch(error => {
  if (error.name !== "AbortError") byId.fault.textContent = error.message;
});

byId.ask.addEventListener("submit", event => { event.preventDefault(); safely(go)(event) });
byId.cancel.addEventListener("click", () => request.abort());
byId.model.addEventListener("change", safely(async () => { chooseModel(); await chooseStudy() }));
byId.study.addEventListener("change", safely(chooseStudy));
byId.top.addEventListener("change", safely(chooseTop));
byId.class.addEventListener("change", () => { if (answer) count(); show() });
byId.unpoint.addEventListener("click", () => setPoint(null));
document.querySelector("[aria-label=Image]").addEventListener("input", show);
byId.point.addEventListener("input", () => {
  const place = ["x", "y", "z"].map(id => byId[id].valueAsNumber || 0);
  if (byId.x.value && byId.y.value && (byId.z.value || image.axes < 3)) setPoint(place);
});
canvas.addEventListener("click", event => {
  if (!image || byId.point.hidden) return;
  const box = canvas.getBoundingClientRect(), parts = [event.offsetX / box.width, event.offsetY / box.height];
  const place = view().map(({first, size, back}, i) => Math.floor(first + size * (back ? 1 - parts[i] : parts[i])));
  setPoint([...place, +byId.slice.value]);
});
byId.picture.addEventListener("click", () => { byId.picture.href = canvas.toDataURL() });
safely(begin)();
