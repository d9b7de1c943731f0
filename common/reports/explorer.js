// Controls choose among what was recorded and what is exact; Vega-Lite draws it.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);

// Okabe and Ito's colours, each with a mark and a dash of its own
const LOOKS = {
  numpy: ["#000000", "circle", [1, 0]],
  torch: ["#D55E00", "square", [6, 3]],
  tensorflow: ["#B27500", "triangle-up", [6, 2, 1, 2]],
  jax: ["#0072B2", "diamond", [2, 2]],
  mxnet: ["#007A5A", "triangle-down", [8, 2, 2, 2]],
};
const look = (backend) => LOOKS[backend] || ["#7A4988", "cross", [4, 4]];

const CONFIG = {
  aria: false, // the box around it speaks: its label says what is seen
  background: "#ffffff",
  font: "system-ui, sans-serif",
  axis: { labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal", labelColor: "#1b1f24", titleColor: "#1b1f24", gridColor: "#e3e6ea" },
  legend: { labelFontSize: 12, titleFontSize: 12, orient: "bottom", columns: 2, labelLimit: 260 },
  title: { fontSize: 13, fontWeight: "bold", anchor: "start" },
  view: { stroke: null },
};

const by = (id) => document.getElementById(id);
const rms = (nets) => nets[0].map((_, k) => Math.sqrt(nets.reduce((sum, net) => sum + net[k] ** 2, 0) / nets.length));

/** Write a number as people read it: 0.25, 3.2e-10. */
function shown(x) {
  if (x === null || x === undefined) return "not finite";
  if (x === 0) return "0";
  const size = Math.abs(x);
  return size >= 1e-3 && size < 1e5 ? String(Number(x.toPrecision(3))) : x.toExponential(1).replace("e+", "e");
}

/** Write 10 ** x, also where it overflows. */
const power = (x) => `10^${x.toFixed(Math.abs(x) < 10 ? 1 : 0)}`;

// --- charts -------------------------------------------------------------------------------------

const drawn = {}; // id -> what draws it now
const asked = {}; // id -> the newest question

/** Draw a chart; while one is being drawn, only the newest that was asked for follows. */
async function draw(id, label, spec) {
  const box = by(id);
  box.setAttribute("aria-label", label);
  box.dataset.ready = "false";
  asked[id] = spec;
  if (drawn[id]) return;
  drawn[id] = true;
  while (asked[id]) {
    const now = asked[id];
    asked[id] = null;
    const whole = { $schema: "https://vega.github.io/schema/vega-lite/v6.json", width: "container", height: 260, autosize: { type: "fit", contains: "padding" }, config: CONFIG, ...now };
    await vegaEmbed(box.firstElementChild, whole, { ast: true, actions: false, defaultStyle: false, renderer: "svg", tooltip: false });
  }
  drawn[id] = false;
  box.dataset.ready = "true";
}

/** Fill a table: a row of headings, then rows whose first cell names them. */
function table(id, caption, headings, rows) {
  const element = by(`${id}-table`);
  const cell = (tag, text, scope) => {
    const made = document.createElement(tag);
    made.textContent = text;
    if (scope) made.scope = scope;
    if (tag === "td") made.className = "number";
    return made;
  };
  element.replaceChildren();
  const title = element.createCaption().appendChild(document.createElement("span"));
  title.textContent = caption;
  element.createTHead().insertRow().append(...headings.map((text) => cell("th", text, "col")));
  const body = element.createTBody();
  for (const [first, ...others] of rows) {
    body.insertRow().append(cell("th", first, "row"), ...others.map((text) => cell("td", text)));
  }
}

/** Marks and lines over layers, on a logarithmic axis. */
function layers(title, y, series) {
  const domain = series.map((s) => s.name);
  const values = series.flatMap((s) => s.values.map((value, k) => ({ layer: s.first + k, value, name: s.name })).filter((d) => d.value > 0));
  const scale = (range) => ({ domain, range });
  const encoding = {
    x: { field: "layer", type: "quantitative", title: "layer", axis: { tickMinStep: 1, grid: false } },
    y: { field: "value", type: "quantitative", title: y, scale: { type: "log" }, axis: { format: "~e", tickCount: 6 } },
  };
  const color = { field: "name", type: "nominal", title: null, scale: scale(series.map((s) => s.color)) };
  const lines = series.filter((s) => !s.shape).map((s) => s.name);
  const points = series.filter((s) => s.shape).map((s) => s.name);
  const drawings = [
    lines.length && { transform: [{ filter: { field: "name", oneOf: lines } }], mark: { type: "line", strokeWidth: 2 }, encoding: { color, strokeDash: { field: "name", type: "nominal", title: null, scale: scale(series.map((s) => s.dash || [1, 0])) } } },
    points.length && { transform: [{ filter: { field: "name", oneOf: points } }], mark: { type: "point", size: 45, filled: false, strokeWidth: 1.5 }, encoding: { color, shape: { field: "name", type: "nominal", title: null, scale: scale(series.map((s) => s.shape || "stroke")) } } },
  ];
  return { title, data: { values }, encoding, layer: drawings.filter(Boolean) };
}

// --- controls -----------------------------------------------------------------------------------

const controls = {};

/** A slider over a list: gives the value it stands at. */
function slider(id, values, start, changed) {
  const input = by(id);
  input.max = values.length - 1;
  input.value = start;
  const say = () => {
    by(`${id}-value`).value = values[input.value];
    input.setAttribute("aria-valuetext", values[input.value]);
  };
  input.addEventListener("input", () => { say(); changed(); });
  say();
  controls[id] = () => values[input.value];
}

/** A list to choose from: value -> words. */
function select(id, words, changed) {
  const element = by(id);
  element.append(...Object.entries(words).map(([value, text]) => new Option(text, value)));
  element.addEventListener("change", changed);
  controls[id] = () => element.value;
}

/** Buttons of which one is pressed: value -> words. */
function radios(id, words, changed) {
  const box = by(id);
  Object.entries(words).forEach(([value, text], k) => {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type: "radio", name: id, value, checked: k === 0 });
    input.addEventListener("change", changed);
    label.append(input, ` ${text}`);
    box.append(label);
  });
  controls[id] = () => box.querySelector(":checked").value;
}

const at = (id) => controls[id]();
const keys = (object) => Object.fromEntries(Object.keys(object).map((key) => [key, key]));
const unique = (values) => [...new Set(values)].sort((a, b) => a - b);

// --- (a) defaults -------------------------------------------------------------------------------

{
  const kinds = Object.keys(Object.values(data.libraries)[0].runs).map((key) => key.split("/"));
  const names = Object.fromEntries(Object.entries(data.libraries).map(([name, l]) => [name, l.title]));
  const update = () => {
    const library = data.libraries[at("defaults-library")];
    const [activation, width, depth] = [at("defaults-activation"), at("defaults-width"), at("defaults-depth")];
    const run = library.runs[`${activation}/${width}/${depth}`];
    const [color, shape] = look(library.framework);
    const seen = { signal: "", gradient: "" };
    for (const [what, y] of [["signal", "standard deviation of z"], ["gradient", "of the gradient in z"]]) {
      const found = rms(run[what]);
      const theory = run[`${what}/theory`];
      const [start, end] = what === "signal" ? [found[0], found.at(-1)] : [found.at(-1), found[0]];
      seen[what] = shown(end / start);
      draw(`defaults-${what}`, `${what} by layer, from ${shown(found[0])} in layer 1 to ${shown(found.at(-1))} in layer ${depth}; theory ${shown(theory[0])} to ${shown(theory.at(-1))}`,
        layers(what === "signal" ? "Forward: preactivations" : "Backward: the gradient in them", y, [
          { name: "infinitely wide, exact", values: theory, first: 1, color: "#1b1f24" },
          { name: `run by ${library.backend}`, values: found, first: 1, color, shape },
        ]));
    }
    by("defaults-told").textContent = `${library.title} draws weights as ${library.weight} and biases as ${library.bias}. With ${activation}, ${depth} layers of ${width} units multiply the signal by ${seen.signal}, and the gradient on its way back by ${seen.gradient}.`;
    table("defaults", `${library.title}, ${activation}, ${depth} layers of ${width} units`, ["layer", "signal, run", "signal, theory", "gradient, run", "gradient, theory"],
      rms(run.signal).map((value, k) => [k + 1, shown(value), shown(run["signal/theory"][k]), shown(rms(run.gradient)[k]), shown(run["gradient/theory"][k])]));
  };
  const depths = unique(kinds.map((k) => Number(k[2])));
  const widths = unique(kinds.map((k) => Number(k[1])));
  radios("defaults-library", names, update);
  radios("defaults-activation", Object.fromEntries(kinds.map((k) => [k[0], k[0]])), update);
  slider("defaults-depth", depths, depths.length - 1, update);
  slider("defaults-width", widths, widths.length - 1, update);
  update();
}

// --- (b) products of matrices -------------------------------------------------------------------

{
  const { decades, limits, paths, size } = data.chain;
  const last = Math.max(...Object.values(paths).flatMap((p) => p.step));
  const ends = Object.entries(limits).map(([name, y]) => {
    const same = Object.keys(limits).filter((other) => Math.abs(limits[other] - y) < 1); // one label
    return { y, name: same[0] === name ? `end of ${same.join(", ")}` : "" };
  });
  const factors = Array.from({ length: 61 }, (_, k) => Math.max(1, Math.round((k * last) / 60)));
  const update = () => {
    const backend = at("chain-backend");
    const { step, log10 } = paths[backend];
    const count = at("chain-factors");
    const typical = decades * count;
    const over = Object.entries(limits).filter(([, limit]) => typical > limit).map(([name]) => name);
    const [color] = look(backend);
    draw("chain-paths", `${log10.length} sample paths of the logarithm of a product's norm beside the exact line of ${decades.toFixed(3)} decades a factor; at ${count} factors the line is at ${power(typical)}`, {
      height: 340,
      layer: [
        { data: { values: log10.flatMap((path, k) => path.map((value, i) => ({ x: step[i], y: value, k }))) }, mark: { type: "line", strokeWidth: 0.8, opacity: 0.55, color }, encoding: { detail: { field: "k" } } },
        { data: { values: [{ x: 0, y: 0 }, { x: last, y: decades * last }] }, mark: { type: "line", strokeWidth: 2.5, color: "#1b1f24" } },
        { data: { values: ends }, layer: [
          { mark: { type: "rule", strokeDash: [5, 3], color: "#a8201a" }, encoding: { x: null } },
          { mark: { type: "text", align: "left", dx: 4, dy: -6, color: "#a8201a", fontSize: 12 }, encoding: { x: { value: 0 }, text: { field: "name" } } },
        ] },
        { data: { values: [{ x: count, y: typical }] }, layer: [{ mark: { type: "rule", color: "#0b57a4" }, encoding: { y: null } }, { mark: { type: "point", size: 90, filled: true, color: "#0b57a4" } }] },
      ],
      encoding: {
        x: { field: "x", type: "quantitative", title: "factors", axis: { grid: false } },
        y: { field: "y", type: "quantitative", title: "log10 of the norm" },
      },
    });
    by("chain-told").textContent = `A product of ${count} Gaussian ${size} × ${size} matrices has a norm of typically ${power(typical)}. ${over.length ? `That is beyond ${over.join(", ")}: the product is infinite there.` : "All four formats still hold it."}`;
    table("chain", "Where a typical product leaves each format", ["format", "largest number", "factors"], Object.entries(limits).map(([name, limit]) => [name, power(limit), Math.ceil(limit / decades)]));
  };
  select("chain-backend", keys(paths), update);
  slider("chain-factors", factors, Math.round((100 / last) * 60), update);
  update();
}

// --- (c) order and chaos ------------------------------------------------------------------------

{
  const { weight, bias, chi, line, width, defaults } = data.phase;
  const [dw, db] = [weight[1] - weight[0], bias[1] - bias[0]];
  const update = () => {
    const activation = at("phase-activation");
    const k = width.indexOf(at("phase-width"));
    const stands = Object.entries(defaults).map(([name, rows]) => ({ name: data.libraries[name].title, own: name, x: rows[k][0], y: rows[k][1] }));
    // those that stand in one place share a label
    const places = {};
    for (const s of stands) (places[`${s.x.toFixed(3)}/${s.y.toFixed(3)}`] ||= []).push(s);
    const labels = Object.values(places).map((group, n) => ({ ...group[0], name: group.map((s) => s.name).join(", "), dy: -10 - 15 * (n % 3) }));
    const beyond = labels.filter((s) => s.x > weight.at(-1));
    const cells = bias.flatMap((b, j) => weight.map((w, i) => ({ x: w - dw / 2, x2: w + dw / 2, y: Math.max(0, b - db / 2), y2: b + db / 2, chi: chi[activation][j][i] })));
    draw("phase-plane", `chi_1 over the variances of weights and biases for ${activation}; ${stands.map((s) => `${s.name} at ${shown(s.x)}, ${shown(s.y)}`).join("; ")}`, {
      height: 340,
      layer: [
        { data: { values: cells }, mark: { type: "rect", stroke: null }, encoding: { x: { field: "x", type: "quantitative", title: "σ_w² = width × variance of a weight", scale: { domain: [0, weight.at(-1)], nice: false } }, x2: { field: "x2" }, y: { field: "y", type: "quantitative", title: "σ_b² = variance of a bias", scale: { domain: [0, bias.at(-1)], nice: false } }, y2: { field: "y2" }, color: { field: "chi", type: "quantitative", title: "χ₁: below 1 order, above 1 chaos", scale: { scheme: "blueorange", domainMid: 1, domain: [0, 2], clamp: true } } } },
        { data: { values: line[activation].map(([x, y], i) => ({ x, y, i })) }, mark: { type: "line", color: "#000", strokeWidth: 2.5, clip: true }, encoding: { x: { field: "x", type: "quantitative" }, y: { field: "y", type: "quantitative" }, order: { field: "i" } } },
        { data: { values: labels.filter((s) => s.x <= weight.at(-1)) }, encoding: { x: { field: "x", type: "quantitative" }, y: { field: "y", type: "quantitative" } }, layer: [
          { mark: { type: "point", filled: true, size: 110, color: "#000", stroke: "#fff", strokeWidth: 1.5, shape: "diamond" } },
          ...[-10, -25, -40].map((dy) => ({ transform: [{ filter: { field: "dy", equal: dy } }], mark: { type: "text", align: "left", dx: 9, dy, fontSize: 12, fontWeight: "bold", color: "#000" }, encoding: { text: { field: "name" } } })),
        ] },
      ],
    });
    const critical = activation === "tanh" ? "tanh is critical at (1, 0) and along the line" : "ReLU is critical at (2, 0) alone: elsewhere on its line biases let the signal grow without end";
    by("phase-told").textContent = `With ${width[k]} units, ${stands.map((s) => `${s.name} stands at (${shown(s.x)}, ${shown(s.y)})`).join("; ")}. ${critical}.${beyond.length ? ` ${beyond.map((s) => s.name).join(", ")} is beyond the right edge, in chaos.` : ""}`;
    table("phase", `(σ_w², σ_b²) of the default dense layer, ${width[k]} units`, ["library", "σ_w²", "σ_b²"], stands.map((s) => [s.name, shown(s.x), shown(s.y)]));
  };
  radios("phase-activation", { tanh: "tanh", relu: "ReLU" }, update);
  slider("phase-width", width, width.indexOf(512), update);
  update();
}

// --- (d) remedies -------------------------------------------------------------------------------

{
  const update = () => {
    const backend = at("remedies-backend");
    const name = at("remedies-name");
    const runs = data.remedies.runs[backend];
    const [color, shape] = look(backend);
    const factor = {};
    for (const what of ["signal", "gradient"]) {
      const found = runs[name][what];
      factor[what] = shown(what === "signal" ? found.at(-1) / found[0] : found[0] / found.at(-1));
      const series = [{ name: "without", values: runs.nothing[what], first: 1, color: "#6b7280", dash: [4, 4] }];
      if (name !== "nothing") series.push({ name, values: found, first: 1, color, shape });
      draw(`remedies-${what}`, `${what} by layer with ${name}: from ${shown(found[0])} to ${shown(found.at(-1))}; without: from ${shown(runs.nothing[what][0])} to ${shown(runs.nothing[what].at(-1))}`,
        layers(what === "signal" ? "Forward: preactivations" : "Backward: the gradient in the signal", "root mean square", series));
    }
    by("remedies-told").textContent = `${name === "nothing" ? "Without a remedy" : `With ${name} (${data.remedies.why[name]})`} the signal changes from the first layer to the last by the factor ${factor.signal}, and the gradient on its way back by ${factor.gradient}.`;
    const [s, g] = [runs[name].signal, runs[name].gradient];
    table("remedies", `${name}, run by ${backend}`, ["layer", "preactivations", "gradient in the signal"], s.map((value, k) => [k + 1, shown(value), k < g.length ? shown(g[k]) : "the output"]));
  };
  select("remedies-backend", keys(data.remedies.runs), update);
  radios("remedies-name", keys(data.remedies.why), update);
  update();
}

// --- (e) three normals --------------------------------------------------------------------------

{
  const { cut, inside, truncated, clamped } = data.normals;
  const density = (x) => Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI);
  const points = Array.from({ length: 321 }, (_, k) => -4 + k / 40);
  const update = () => {
    const k = cut.indexOf(at("normals-cut"));
    const c = cut[k];
    const NAMES = ["plain", "truncated", "clamped"];
    const within = points.filter((x) => Math.abs(x) < c);
    const edge = (f) => [[-c, 0], [-c, f(c)], ...within.map((x) => [x, f(x)]), [c, f(c)], [c, 0]];
    const curves = { plain: points.map((x) => [x, density(x)]), truncated: edge((x) => density(x) / inside[k]), clamped: edge(density) };
    const values = NAMES.flatMap((name) => curves[name].map(([x, y], i) => ({ name, x, y, i })));
    const scale = (range) => ({ domain: NAMES, range });
    const atom = (1 - inside[k]) / 2;
    draw("normals-density", `densities of a normal law, of one truncated at ${c} and of one clamped there, which has ${shown(100 * atom)} percent of its mass at each end`, {
      height: 320,
      encoding: { x: { field: "x", type: "quantitative", title: "x, in standard deviations of the plain normal", scale: { domain: [-4, 4] }, axis: { grid: false } }, y: { field: "y", type: "quantitative", title: "density", scale: { domain: [0, 1.1] } } },
      layer: [
        { data: { values }, mark: { type: "line", strokeWidth: 2 }, encoding: { order: { field: "i" }, color: { field: "name", type: "nominal", title: null, scale: scale(["#1b1f24", "#0072B2", "#D55E00"]) }, strokeDash: { field: "name", type: "nominal", title: null, scale: scale([[2, 2], [1, 0], [6, 3]]) } } },
        { data: { values: [-c, c].map((x) => ({ x, y: 1, text: `${shown(100 * atom)} %` })) }, layer: [
          { mark: { type: "rule", color: "#D55E00", strokeWidth: 2 }, encoding: { y2: { datum: 0 } } },
          { mark: { type: "text", dy: -8, color: "#A34700", fontSize: 12 }, encoding: { text: { field: "text" } } },
        ] },
      ],
    });
    by("normals-told").textContent = `Cut at ${c}: what was drawn again until it lay within has a standard deviation of ${shown(truncated[k])}, what was clamped to the ends ${shown(clamped[k])}, with ${shown(100 * atom)} % of all values at each end; the plain normal 1. A law that is truncated and should have standard deviation 1 needs a parent of ${shown(1 / truncated[k])}.`;
    table("normals", "Standard deviations after the cut", ["cut", "truncated", "clamped", "share at each end"], cut.map((value, i) => [value, shown(truncated[i]), shown(clamped[i]), shown((1 - inside[i]) / 2)]));
  };
  slider("normals-cut", cut, cut.indexOf(2), update);
  update();
}

// --- (f) code -----------------------------------------------------------------------------------

{
  const frameworks = Object.keys(data.code[0].code);
  const titles = { numpy: "NumPy", torch: "PyTorch", tensorflow: "TensorFlow", jax: "JAX", mxnet: "MXNet" };
  let chosen = frameworks[0];
  const seen = {};
  const words = data.code.map(({ topic, heading }) => {
    const text = heading === topic || heading.startsWith(topic) ? topic : `${topic}: ${heading}`;
    seen[text] = (seen[text] || 0) + 1;
    return seen[text] > 1 ? `${text} (${seen[text]})` : text;
  });
  const tabs = frameworks.map((name) => {
    const tab = Object.assign(document.createElement("button"), { type: "button", id: `code-${name}`, textContent: titles[name] });
    tab.setAttribute("role", "tab");
    tab.setAttribute("aria-controls", "code-panel");
    tab.addEventListener("click", () => { chosen = name; update(); });
    return tab;
  });
  by("code-tabs").append(...tabs);
  by("code-tabs").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const count = frameworks.length;
    const now = frameworks.indexOf(chosen);
    const next = Number.isFinite(step) ? (now + step + count) % count : step < 0 ? 0 : count - 1;
    chosen = frameworks[next];
    update();
    tabs[next].focus();
  });
  const update = () => {
    tabs.forEach((tab, k) => {
      tab.setAttribute("aria-selected", String(frameworks[k] === chosen));
      tab.tabIndex = frameworks[k] === chosen ? 0 : -1;
    });
    by("code-panel").setAttribute("aria-labelledby", `code-${chosen}`);
    by("code-text").textContent = data.code[at("code-step")].code[chosen];
  };
  select("code-step", Object.fromEntries(words.map((text, k) => [k, text])), update);
  update();
}
