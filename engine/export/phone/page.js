"use strict";
const read = (id) => document.getElementById(id).textContent;
const about = JSON.parse(read("page-about")), languages = JSON.parse(read("page-words"));
const language = (navigator.languages || ["en"]).map((tag) => tag.split("-")[0]).find((tag) => tag in languages) || "en";
const words = languages[language];
const say = (key, values = {}) => words[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
const percent = (share) => (100 * share).toFixed(share > 0.995 || share < 0.0995 ? 1 : 0);
const state = document.getElementById("state"), results = document.getElementById("results");
const LARGEST = 2048; // pixels a side: a larger photo is drawn at this size first, since phones have little memory
const LONGEST = 4; // of a longer strip, the middle is taken

function tell(text, bad = false) {
  state.textContent = text;
  state.className = bad ? "bad" : "";
}

async function unpacked(id) {
  const text = read(id), bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  document.getElementById(id).remove();
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function load() {
  const script = new Blob([await unpacked("page-runtime")], { type: "text/javascript" });
  const ort = await import(URL.createObjectURL(script));
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = await unpacked("page-binary");
  ort.env.logLevel = "error";
  const session = await ort.InferenceSession.create(await unpacked("page-model"), { executionProviders: ["wasm"] });
  return async (pixels) => {
    const side = about.size, input = new ort.Tensor("uint8", pixels, [1, 3, side, side]);
    const found = await session.run({ pixels: input });
    return { tuned: Array.from(found.tuned.data), before: Array.from(found.zero_shot.data) };
  };
}

// Weights of Pillow's resampling: a filter as wide as the reduction, so that every pixel counts.
const FILTERS = {
  nearest: [0, null],
  bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  bicubic: [2, (x) => {
    const a = -0.5, d = Math.abs(x);
    if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
    return d < 2 ? (((d - 5) * d + 8) * d - 4) * a : 0;
  }],
};

function halfEven(x) {
  return x % 1 === 0.5 ? 2 * Math.round(x / 2) : Math.round(x);
}

// For each of the middle `side` of `to` places: the first of the `from` pixels that count, and their weights.
function taps(from, to, side, name) {
  const [support, filter] = FILTERS[name], scale = from / to, reach = support * Math.max(scale, 1), rows = [];
  const start = halfEven((to - side) / 2);
  for (let k = start; k < start + side; k++) {
    const middle = (k + 0.5) * scale;
    if (!filter) {
      rows.push([Math.min(from - 1, Math.floor(middle)), [1]]);
      continue;
    }
    const first = Math.max(0, Math.floor(middle - reach + 0.5)), last = Math.min(from, Math.floor(middle + reach + 0.5));
    const weights = [];
    for (let j = first; j < last; j++) weights.push(filter((j - middle + 0.5) / Math.max(scale, 1)));
    const sum = weights.reduce((a, b) => a + b, 0);
    rows.push([first, weights.map((w) => w / sum)]);
  }
  return rows;
}

// RGBA rows of `width` pixels -> three planes of side x side; rounded after each direction, as Pillow does.
function resample({ data, width, height }) {
  const { size: side, interpolation: name } = about, short = Math.min(width, height);
  const length = (edge) => (about.resize === "shortest" ? Math.floor((side * edge) / short) : side);
  const across = taps(width, length(width), side, name), down = taps(height, length(height), side, name);
  const narrow = new Uint8ClampedArray(side * height * 3), planes = new Uint8ClampedArray(3 * side * side);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < side; x++) {
      const [first, weights] = across[x];
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (let j = 0; j < weights.length; j++) sum += weights[j] * data[(y * width + first + j) * 4 + c];
        narrow[(y * side + x) * 3 + c] = sum;
      }
    }
  for (let y = 0; y < side; y++) {
    const [first, weights] = down[y];
    for (let x = 0; x < side; x++)
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (let j = 0; j < weights.length; j++) sum += weights[j] * narrow[((first + j) * side + x) * 3 + c];
        planes[(c * side + y) * side + x] = sum;
      }
  }
  return new Uint8Array(planes.buffer);
}

const canvas = document.createElement("canvas");

function pixelsOf(source, width, height) {
  let [wide, high] = [width, height];
  if (about.resize === "shortest") [wide, high] = [Math.min(wide, LONGEST * high), Math.min(high, LONGEST * wide)];
  const left = Math.floor((width - wide) / 2), top = Math.floor((height - high) / 2);
  const shrink = Math.min(1, LARGEST / Math.min(wide, high));
  canvas.width = Math.round(wide * shrink);
  canvas.height = Math.round(high * shrink);
  const brush = canvas.getContext("2d", { willReadFrequently: true });
  brush.fillStyle = "#fff"; // what is transparent is shown on white
  brush.fillRect(0, 0, canvas.width, canvas.height);
  brush.imageSmoothingQuality = "high";
  brush.drawImage(source, left, top, wide, high, 0, 0, canvas.width, canvas.height);
  return resample(brush.getImageData(0, 0, canvas.width, canvas.height));
}

function element(tag, text = "", kind = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function bars(scores) {
  const box = document.createElement("div"), best = scores.tuned.map((_, k) => k).sort((a, b) => scores.tuned[b] - scores.tuned[a]);
  for (const k of best.slice(0, 5)) {
    const row = element("div", "", "row"), line = document.createElement("span");
    line.append(element("b", about.labels[k]), element("small", `${percent(scores.tuned[k])} / ${percent(scores.before[k])} %`));
    row.append(line);
    for (const side of ["tuned", "before"]) {
      const bar = element("div", "", "bar"), fill = element("i", "", side);
      fill.style.width = `${100 * scores[side][k]}%`;
      bar.append(fill);
      row.append(bar);
    }
    box.append(row);
  }
  box.append(element("small", `${say("tuned")} / ${say("before")}`));
  return box;
}

function best(scores) {
  const k = scores.indexOf(Math.max(...scores));
  return { label: about.labels[k], percent: percent(scores[k]) };
}

function show(article, name, scores, ms) {
  const text = element("div");
  text.append(element("h2", say("says", best(scores.tuned))), element("p", say("before_says", best(scores.before))));
  text.append(bars(scores), element("p", [name, say("time", { ms })].filter(Boolean).join(" · ")));
  article.replaceChild(text, article.lastChild);
  article.dataset.scores = JSON.stringify({ name, ...scores });
}

function newResult(url) {
  const article = document.createElement("article"), picture = document.createElement("img");
  picture.alt = "";
  if (url) picture.src = url;
  article.append(picture, element("div"));
  results.prepend(article);
  return article;
}

async function scored(source, width, height) {
  const begun = performance.now(), scores = await score(pixelsOf(source, width, height));
  return [scores, Math.round(performance.now() - begun)];
}

async function look(files) {
  for (const file of files) {
    tell(say("looking", { name: file.name }));
    let picture;
    try {
      picture = await createImageBitmap(file, { imageOrientation: "from-image" });
    } catch {
      tell(say("unreadable", { name: file.name }), true);
      continue;
    }
    const [scores, ms] = await scored(picture, picture.width, picture.height);
    picture.close();
    show(newResult(URL.createObjectURL(file)), file.name, scores, ms);
    tell(say("ready"));
  }
}

const video = document.getElementById("video"), live = document.getElementById("live");

function stopCamera() {
  video.srcObject?.getTracks().forEach((track) => track.stop());
  video.srcObject = null;
  video.hidden = true;
  live.textContent = say("live");
}

async function startCamera() {
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    tell(say("no_camera", { reason: error.message || error.name }), true);
    return;
  }
  video.hidden = false;
  live.textContent = say("stop");
  await video.play();
  const article = newResult();
  article.firstChild.remove();
  article.prepend(element("div"));
  while (video.srcObject) {
    if (video.videoWidth) show(article, "", ...(await scored(video, video.videoWidth, video.videoHeight)));
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

for (const place of document.querySelectorAll("[data-word]")) place.textContent = say(place.dataset.word);
document.documentElement.lang = language;
const figures = { ...about, count: about.labels.length, percent: percent(about.accuracy), low: percent(about.low), high: percent(about.high) };
document.getElementById("about").textContent = say(about.tested ? "about" : "about_untested", figures);
tell(say("loading"));

let score;
try {
  score = await load();
  let last = Promise.resolve();
  const queue = (files) => {
    const given = [...files];
    last = last.then(() => look(given));
  };
  for (const id of ["camera", "files"])
    document.getElementById(id).addEventListener("change", (event) => {
      queue(event.target.files);
      event.target.value = ""; // the same photo may be chosen again
    });
  addEventListener("paste", (event) => queue(event.clipboardData.files));
  addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("over"); });
  addEventListener("dragleave", () => document.body.classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("over");
    queue(event.dataTransfer.files);
  });
  live.hidden = !navigator.mediaDevices?.getUserMedia;
  live.addEventListener("click", () => (video.srcObject ? stopCamera() : startCamera()));
  tell(say("ready"));
} catch (error) {
  tell(say("broken", { reason: error.message || String(error) }), true);
}
