// A chart of lines over a scale: axes, a zero line, marks, and a reading at the pointer or the keys.
// Drawn by uPlot (../vendor/uplot). Behind it is a table with all numbers.
//
// A chart is described by { name, x, lines, marks, unit, height }:
//   x      { label, values, format, axis, hint }: `axis` formats its labels; hint(n) is added to
//          the reading of place n
//   lines  [{ label, values, look, isStepped }]: a look is a key of LOOKS; a value may be null
//   marks  [{ x, label }]: vertical lines

import uPlot from "../vendor/uplot/uPlot.js";
import { element, fit, set, write } from "./elements.js";
import { upTo } from "./format.js";
import { fill } from "./table.js";

const AXIS_WIDTH = 62;
const AXIS_HEIGHT = 34;
const MARKS_HEIGHT = 18;
const TABLE_LINES = 21;

// What a line looks like: colour (a custom property of the style sheet), width, dashes, and whether
// the space to zero is filled, green above and red below.
const LOOKS = {
  strong: { colour: "--text", width: 2, isFilled: true },
  chosen: { colour: "--link", width: 2 },
  faint: { colour: "--dim", width: 1.5, dash: [6, 4] },
  after: { colour: "--mark", width: 2, dash: [2, 3] },
};

export class Chart {
  constructor(box) {
    this.box = box;
    this.place = null;
    this.canvas = element("div", undefined, { class: "canvas", role: "slider", tabindex: "0" });
    this.legend = element("p", undefined, { class: "legend" });
    this.reading = element("p", undefined, { class: "reading" });
    this.table = element("table");
    const details = element("details");
    details.append(element("summary", "Numbers"), this.table);
    box.replaceChildren(this.legend, this.canvas, this.reading, details);

    this.canvas.addEventListener("keydown", (event) => this.#moveByKey(event));
    this.observer = new ResizeObserver(() => this.#resize());
    this.observer.observe(this.canvas);
    this.redraw = () => this.#build();
    document.documentElement.addEventListener("theme", this.redraw);
  }

  // Free what the browser would keep of a chart that is shown no more.
  close() {
    this.observer.disconnect();
    document.documentElement.removeEventListener("theme", this.redraw);
    this.plot?.destroy();
  }

  draw(described) {
    const isAlike = this.plot && lookOf(this.described) === lookOf(described);
    this.described = described;
    if (isAlike) this.plot.setData(dataOf(described));
    else this.#build();
    this.#drawLegend();
    this.#drawTable();
    this.#read(this.place ?? startOf(described));
  }

  #build() {
    if (!this.described) return;
    this.plot?.destroy();
    this.plot = new uPlot(optionsOf(this), dataOf(this.described), this.canvas);
  }

  #resize() {
    const width = this.canvas.clientWidth;
    if (this.plot && width && width !== this.plot.width) this.plot.setSize({ width, height: this.plot.height });
  }

  #drawLegend() {
    const { lines } = this.described;
    fit(this.legend, lines.length, "span").forEach((item, n) => {
      write(item, lines[n].label);
      set(item, "class", `line-${lines[n].look}`);
    });
  }

  #drawTable() {
    const { x, lines } = this.described;
    const places = evenPlaces(x.values.length, TABLE_LINES);
    const rows = places.map((n) => ({ cells: [x.format(x.values[n]), ...lines.map((line) => textAt(line, n))] }));
    fill(this.table, [x.label, ...lines.map((line) => line.label)], rows);
  }

  // Say what the lines are at a place; a screen reader hears it as the value of a slider.
  #read(place) {
    const { name, x, lines } = this.described;
    const n = Math.max(0, Math.min(place, x.values.length - 1));
    const hint = x.hint ? ` (${x.hint(n)})` : "";
    const texts = lines.map((line) => `${line.label} ${textAt(line, n)}`);
    const text = `${x.label} ${x.format(x.values[n])}${hint}: ${texts.join(" · ")}`;
    write(this.reading, text);
    set(this.canvas, "aria-label", name);
    set(this.canvas, "aria-valuemin", String(x.values[0]));
    set(this.canvas, "aria-valuemax", String(x.values.at(-1)));
    set(this.canvas, "aria-valuenow", String(x.values[n]));
    set(this.canvas, "aria-valuetext", text);
  }

  point(place) {
    if (place === null || place === undefined) return;
    this.place = place;
    this.#read(place);
  }

  #moveByKey(event) {
    const last = this.described.x.values.length - 1;
    const at = this.place ?? startOf(this.described);
    const next = { ArrowLeft: at - 1, ArrowRight: at + 1, PageDown: at - 10, PageUp: at + 10, Home: 0, End: last }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    this.point(Math.max(0, Math.min(next, last)));
    const left = this.plot.valToPos(this.described.x.values[this.place], "x");
    this.plot.setCursor({ left, top: this.plot.over.clientHeight / 2 }, false);
  }
}

// The charts of a panel by key: one moves into another box when the choice changes, and what the browser
// keeps of those that are gone is freed.
export class Charts {
  #charts = new Map();

  // Draw what is described in a box; without lines nothing is shown.
  draw(box, key, described) {
    if (!this.#charts.has(key)) this.#charts.set(key, new Chart(element("div", undefined, { class: "chart" })));
    const chart = this.#charts.get(key);
    if (chart.box.parentElement !== box) box.append(chart.box);
    chart.box.hidden = !described.lines.length;
    if (described.lines.length) chart.draw(described);
  }

  keep(keys) {
    for (const [key, chart] of this.#charts) {
      if (keys.includes(key)) continue;
      chart.close();
      chart.box.remove();
      this.#charts.delete(key);
    }
  }
}

const lookOf = ({ x, lines, unit, height }) => JSON.stringify([x.label, unit, height, lines.map((line) => [line.label, line.look])]);
const dataOf = ({ x, lines }) => [x.values, ...lines.map((line) => line.values)];
const short = (value) => upTo(value, Math.abs(value) < 99.5 ? 2 : 0);
const textAt = (line, n) => short(line.values[n]);

// The place of the mark that is named first, such as the price now; else the last.
function startOf({ x, marks }) {
  const target = marks?.[0]?.x ?? x.values.at(-1);
  const distances = x.values.map((value) => Math.abs(value - target));
  return distances.indexOf(Math.min(...distances));
}

function evenPlaces(count, most) {
  const last = count - 1;
  const places = Array.from({ length: Math.min(count, most) }, (_, n) => Math.round((n * last) / Math.max(1, Math.min(count, most) - 1)));
  return [...new Set(places)];
}

// --- What uPlot is told ----------------------------------------------------------------------------

function optionsOf(chart) {
  const { described, canvas } = chart;
  const { x, lines, height } = described;
  const ofDays = { ...axis(x.label, x.axis, AXIS_HEIGHT), incrs: STEPS_OF_DAYS, space: 76 };
  const ofNumbers = axis(x.label, (value) => x.axis?.(value) ?? x.format(value), AXIS_HEIGHT);
  return {
    width: canvas.clientWidth || 300,
    height,
    padding: [MARKS_HEIGHT, 22, 0, 0],
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
    scales: { x: { time: Boolean(x.isTime) }, y: { range: rangeWithZero } },
    axes: [x.isTime ? ofDays : ofNumbers, axis(described.unit, (value) => upTo(value, 2), AXIS_WIDTH)],
    series: [{}, ...lines.map(seriesOf)],
    hooks: {
      drawAxes: [drawZero],
      draw: [(plot) => drawMarks(plot, chart.described.marks ?? [])],
      setCursor: [(plot) => chart.point(plot.cursor.event ? plot.cursor.idx : null)],
    },
  };
}

// Seconds between the marks of an axis of days: never a part of a day.
const STEPS_OF_DAYS = [1, 2, 3, 5, 10, 15, 30, 60, 90, 180, 365].map((days) => 86400 * days);

function axis(label, format, size) {
  return {
    label,
    size,
    labelSize: 16,
    font: "11px system-ui, sans-serif",
    labelFont: "11px system-ui, sans-serif",
    stroke: () => colour("--dim"),
    grid: { stroke: () => colour("--rule"), width: 1 },
    ticks: { stroke: () => colour("--rule"), size: 4 },
    ...(format && { values: (_plot, values) => values.map(format) }),
  };
}

function seriesOf({ label, look, isStepped, values }) {
  const { colour: name, width, dash, isFilled } = LOOKS[look];
  return {
    label,
    width,
    dash,
    stroke: () => colour(name),
    fill: isFilled ? fillToZero : undefined,
    fillTo: 0,
    points: { show: values.length < 3 },
    spanGaps: false,
    ...(isStepped && { paths: uPlot.paths.stepped({ align: 1 }) }),
  };
}

// Zero is always shown: whether a line is a gain or a loss must be seen.
function rangeWithZero(_plot, low, high) {
  const least = Math.min(0, low ?? 0);
  const most = Math.max(0, high ?? 0);
  const space = (most - least || 1) * 0.06;
  return [least < 0 ? least - space : -space, most > 0 ? most + space : space];
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function fillToZero(plot) {
  const { top, height } = plot.bbox;
  const zero = (plot.valToPos(0, "y", true) - top) / height;
  const at = Math.max(0, Math.min(1, zero));
  const gradient = plot.ctx.createLinearGradient(0, top, 0, top + height);
  gradient.addColorStop(0, `${colour("--up")}59`);
  gradient.addColorStop(at, `${colour("--up")}1f`);
  gradient.addColorStop(at, `${colour("--down")}1f`);
  gradient.addColorStop(1, `${colour("--down")}66`);
  return gradient;
}

function drawZero(plot) {
  const { left, width } = plot.bbox;
  const y = Math.round(plot.valToPos(0, "y", true));
  stroked(plot, "--dim", [], [left, y, left + width, y]);
}

// Vertical lines with their labels above, where the labels of those before leave room.
function drawMarks(plot, marks) {
  const { ctx } = plot;
  const { left, top, width, height } = plot.bbox;
  const ratio = devicePixelRatio;
  const taken = [];
  for (const mark of marks) {
    const x = Math.round(plot.valToPos(mark.x, "x", true));
    if (x < left || x > left + width) continue;
    stroked(plot, mark.colour ?? "--mark", [3 * ratio, 3 * ratio], [x, top, x, top + height]);

    ctx.save();
    ctx.font = `${11 * ratio}px system-ui, sans-serif`;
    ctx.fillStyle = colour("--text");
    const half = ctx.measureText(mark.label).width / 2;
    const middle = Math.min(Math.max(x, left + half), left + width - half);
    const space = half + 5 * ratio;
    if (taken.every(([from, to]) => middle + space <= from || middle - space >= to)) {
      ctx.textAlign = "center";
      ctx.fillText(mark.label, middle, top - 5 * ratio);
      taken.push([middle - space, middle + space]);
    }
    ctx.restore();
  }
}

function stroked(plot, name, dash, [fromX, fromY, toX, toY]) {
  const { ctx } = plot;
  ctx.save();
  ctx.strokeStyle = colour(name);
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash(dash);
  ctx.beginPath();
  ctx.moveTo(fromX, fromY);
  ctx.lineTo(toX, toY);
  ctx.stroke();
  ctx.restore();
}
