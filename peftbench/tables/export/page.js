"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const colour = (row) => data.colors[row % data.colors.length];
const again = (row) => row >= data.colors.length; // a colour's second row: hollow points, dashed lines

function make(name, attributes = {}, ...children) {
  const svg = ["svg", "g", "path", "circle", "line", "text", "rect", "title"].includes(name);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// ---- sorting

const body = document.querySelector("table tbody");

function sortBy(index, heading) {
  const descending = heading.getAttribute("aria-sort") === "ascending";
  for (const other of heading.parentNode.children) other.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const value = (row) => row.children[index].dataset.value;
  const compare = (a, b) => (index === 0 ? a.localeCompare(b, undefined, { numeric: true }) : Number(a) - Number(b));
  const rows = [...body.rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    // what has no figure stays last either way
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
    return descending ? compare(y, x) : compare(x, y);
  });
  body.append(...rows);
}

document.querySelectorAll("thead").item(0).querySelectorAll("th").forEach((heading, index) => {
  heading.querySelector("button").addEventListener("click", () => sortBy(index, heading));
});

// ---- the runs of a row

const dialog = document.getElementById("details");

function flat(value, prefix = "") {
  return Object.entries(value).flatMap(([key, inner]) =>
    inner !== null && typeof inner === "object" && !Array.isArray(inner)
      ? flat(inner, `${prefix}${key}.`)
      : [`${prefix}${key}: ${JSON.stringify(inner)}`]
  );
}

function describe(run) {
  const article = make("article", {}, make("h3", {}, `seed ${run.seed}: ${run.status}`));
  if (run.reason) article.append(make("p", { class: "missing" }, run.reason));
  for (const [split, metrics] of Object.entries(run.metrics)) {
    const figures = Object.entries(metrics).map(([name, value]) => `${name} ${value === null ? "–" : value.toFixed(4)}`);
    article.append(make("p", {}, `${split}: ${figures.join(", ")}`));
  }
  article.append(make("p", { class: "quiet" }, `run ${run.id}, record ${run.folder}`), make("pre", {}, run.command));
  const config = flat(run.config);
  if (config.length) {
    article.append(make("details", {}, make("summary", {}, "config"), make("pre", {}, config.join("\n"))));
  }
  return article;
}

function show(row) {
  const close = make("button", { type: "button", class: "lead" }, "close");
  close.addEventListener("click", () => dialog.close());
  const title = make("h2", { id: "details-title" }, data.rows[row].label);
  dialog.replaceChildren(make("header", {}, title, close), ...data.rows[row].runs.map(describe));
  dialog.showModal();
}

function leadsTo(element, row) {
  element.dataset.row = row;
  element.setAttribute("tabindex", "0");
  element.setAttribute("role", "button");
  element.addEventListener("click", () => show(row));
  element.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      show(row);
    }
  });
  return element;
}

for (const row of body.rows) row.addEventListener("click", () => show(Number(row.dataset.row)));
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());

// ---- plots

const WIDTH = 420, HEIGHT = 300, LEFT = 48, RIGHT = 16, TOP = 12, BOTTOM = 40;

function ticks(low, high) {
  const rough = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((times) => times * power).find((size) => size >= rough);
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(6)));
}

function decades(low, high) {
  const all = [];
  for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; power++)
    for (const times of [1, 3]) if (times * 10 ** power >= low && times * 10 ** power <= high) all.push(Number((times * 10 ** power).toPrecision(2)));
  return all;
}

function axis(low, high, from, to, log = false) {
  const [a, b] = log ? [Math.log10(low), Math.log10(high)] : [low, high];
  return (value) => from + (((log ? Math.log10(value) : value) - a) / (b - a || 1)) * (to - from);
}

function range(values, share = 0.08) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const margin = (high - low || Math.abs(high) || 1) * share;
  return [low - margin, high + margin];
}

function frame(xs, ys, x, y, xTitle, yTitle, name) {
  const svg = make("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "group", "aria-label": name });
  for (const value of ys) {
    svg.append(make("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }));
    svg.append(make("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, String(value)));
  }
  for (const [value, text] of xs) {
    svg.append(make("text", { x: x(value), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, text));
  }
  svg.append(make("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, xTitle));
  svg.append(make("text", { x: -(HEIGHT - BOTTOM) / 2, y: 12, "text-anchor": "middle", transform: "rotate(-90)" }, yTitle));
  return svg;
}

function figure(title, svg, rows) {
  const legend = rows.map((row) => {
    const button = make("button", { type: "button" }, make("span", { style: `border:2px solid ${colour(row)};background:${again(row) ? "none" : colour(row)}` }), data.rows[row].label);
    button.addEventListener("click", () => show(row));
    return make("li", {}, button);
  });
  return make("figure", {}, make("figcaption", {}, title), svg, make("ul", { class: "legend" }, ...legend));
}

function drawScatter(plot) {
  const at = (point) => (plot.log && point.cost <= 0 ? plot.zero : point.cost);
  const costs = plot.points.map(at);
  const [low, high] = plot.log ? [Math.min(...costs) / 1.5, Math.max(...costs) * 1.5] : range(costs);
  const [bottom, top] = range(plot.shown);
  const x = axis(low, high, LEFT, WIDTH - RIGHT, plot.log);
  const y = axis(bottom, top, HEIGHT - BOTTOM, TOP);
  const marks = (plot.log ? decades(low, high) : ticks(low, high)).map((value) => [value, String(value)]);
  if (plot.log && plot.zero) marks.splice(0, marks.filter(([value]) => value < 3 * plot.zero).length, [plot.zero, "0"]);
  const title = `${data.primary} with intervals against ${plot.title}`;
  const svg = frame(marks, ticks(bottom, top), x, y, plot.title, data.primary, title);
  if (plot.ceiling !== null) {
    svg.append(make("line", { class: "ceiling", x1: LEFT, x2: WIDTH - RIGHT, y1: y(plot.ceiling), y2: y(plot.ceiling) }));
    svg.append(make("text", { x: LEFT + 4, y: y(plot.ceiling) + 14 }, data.ceiling));
  }
  // a staircase: the best score that can be had at this cost or less
  const [start, ...steps] = plot.front.map((index) => plot.points[index]).map((p) => [x(at(p)), y(p.score)]);
  svg.append(make("path", { class: "front", d: `M${start}${steps.map(([right, up]) => `H${right}V${up}`).join("")}` }));
  for (const point of plot.points) {
    const [cx, cy] = [x(at(point)), y(point.score)];
    const interval = point.score_low < point.score_high ? ` (${point.score_low.toFixed(1)} … ${point.score_high.toFixed(1)})` : "";
    const text = `${point.label}: ${data.primary} ${point.score.toFixed(1)}${interval}, ${plot.title} ${Number(point.cost.toPrecision(4))}`;
    const mark = make("g", { class: "point", "aria-label": text }, make("title", {}, text));
    if (point.score_low < point.score_high) {
      const ends = { x1: cx, x2: cx, y1: y(Math.max(point.score_low, bottom)), y2: y(Math.min(point.score_high, top)) };
      mark.append(make("line", { ...ends, stroke: colour(point.row), "stroke-width": 1.5 }));
    }
    mark.append(make("circle", { cx, cy, r: 14, fill: "transparent" })); // room for a finger
    mark.append(make("circle", { cx, cy, r: 5, fill: again(point.row) ? "var(--page)" : colour(point.row), stroke: colour(point.row), "stroke-width": 2 }));
    svg.append(leadsTo(mark, point.row));
  }
  return figure(title, svg, plot.points.map((point) => point.row));
}

function drawCurves(curves, title, xTitle) {
  const epochs = curves.flatMap((curve) => curve.epochs.map(([epoch]) => epoch));
  const [first, last] = [Math.min(...epochs), Math.max(...epochs)];
  const [bottom, top] = range(curves.flatMap((curve) => curve.epochs.flatMap(([, , low, high]) => [low, high])));
  const x = axis(first - 0.1, last + 0.1, LEFT, WIDTH - RIGHT);
  const y = axis(bottom, top, HEIGHT - BOTTOM, TOP);
  const step = Math.ceil((last - first + 1) / 10);
  const marks = [...new Set(epochs)].sort((a, b) => a - b).filter((epoch) => (epoch - first) % step === 0);
  const svg = frame(marks.map((epoch) => [epoch, String(epoch)]), ticks(bottom, top), x, y, xTitle, data.primary, title);
  for (const curve of curves) {
    const line = curve.epochs.map(([epoch, mean]) => `${x(epoch)},${y(mean)}`);
    const band = [
      ...curve.epochs.map(([epoch, , low]) => `${x(epoch)},${y(low)}`),
      ...[...curve.epochs].reverse().map(([epoch, , , high]) => `${x(epoch)},${y(high)}`),
    ];
    const mark = make("g", { class: "curve", "aria-label": curve.label }, make("title", {}, curve.label));
    mark.append(make("path", { d: `M${band.join("L")}Z`, fill: colour(curve.row), opacity: 0.12 }));
    const dashes = again(curve.row) ? "5 3" : "none";
    mark.append(make("path", { d: `M${line.join("L")}`, fill: "none", stroke: colour(curve.row), "stroke-width": 2, "stroke-dasharray": dashes }));
    for (const [epoch, mean] of curve.epochs) mark.append(make("circle", { cx: x(epoch), cy: y(mean), r: 3, fill: colour(curve.row) }));
    svg.append(leadsTo(mark, curve.row));
  }
  return figure(title, svg, curves.map((curve) => curve.row));
}

function drawIntervals(points) {
  const LINE = 22;
  const height = LINE * points.length + BOTTOM;
  const [low, high] = range(points.flatMap((point) => [point.score_low, point.score_high]));
  const x = axis(low, high, LEFT, WIDTH - RIGHT);
  const title = `${data.primary} with intervals, best first`;
  const svg = make("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "group", "aria-label": title, style: "max-width: 40rem" });
  for (const value of ticks(low, high)) {
    svg.append(make("line", { class: "grid", x1: x(value), x2: x(value), y1: 0, y2: height - BOTTOM }));
    svg.append(make("text", { x: x(value), y: height - BOTTOM + 16, "text-anchor": "middle" }, String(value)));
  }
  svg.append(make("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: height - 6, "text-anchor": "middle" }, data.primary));
  points.forEach((point, place) => {
    const cy = LINE * (place + 0.65);
    const text = `${point.label}: ${point.score.toFixed(1)} (${point.score_low.toFixed(1)} … ${point.score_high.toFixed(1)})`;
    const mark = make("g", { class: "point", "aria-label": text }, make("title", {}, text));
    mark.append(make("line", { x1: x(point.score_low), x2: x(point.score_high), y1: cy, y2: cy, stroke: colour(0), "stroke-width": 1.5 }));
    mark.append(make("circle", { cx: x(point.score), cy, r: 4, fill: colour(0) }));
    const left = x(point.score) > (LEFT + WIDTH - RIGHT) / 2; // the label stands where there is room
    const end = left ? x(point.score_low) - 6 : x(point.score_high) + 6;
    mark.append(make("text", { x: end, y: cy + 4, "text-anchor": left ? "end" : "start" }, point.label));
    svg.append(leadsTo(mark, point.row));
  });
  return make("figure", {}, make("figcaption", {}, title), svg);
}

const plots = document.getElementById("plots");
plots.append(...data.scatters.map(drawScatter));
if (data.intervals.length) plots.append(drawIntervals(data.intervals));
if (data.curves.length) plots.append(drawCurves(data.curves, `${data.primary} on validation while training`, "epoch"));
if (data.tuning.length) plots.append(drawCurves(data.tuning, `${data.primary} on validation: expected best of k trials`, "trials k"));
