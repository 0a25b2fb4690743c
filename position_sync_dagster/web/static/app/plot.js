// Lines over time as a picture: [{ name, look, points: [[milliseconds, value or null]] }].

import { element } from "./elements.js";
import { clock, upTo, whole } from "./format.js";

const GAP_MS = 300000; // no line over a longer time without a value
const LEFT = 46;
const SVG = "http://www.w3.org/2000/svg";

// With `zero` the scale has zero; `marks` are moments of the time of the lines: { at, look, name }.
export function plot(box, lines, none, { zero = true, marks = [] } = {}) {
  const size = { width: box.clientWidth || 440, height: box.clientHeight || 110 };
  box.setAttribute("viewBox", `0 0 ${size.width} ${size.height}`);
  const points = lines.flatMap((line) => line.points.filter(([, value]) => value !== null));
  const empty = shape("text", { x: LEFT, y: size.height / 2 }, none);
  box.replaceChildren(...(points.length ? picture(lines, spanOf(points, zero), size, marks) : [empty]));
}

// A small line beside a number, without axes.
export function drawTrend(box, points, name) {
  const known = points.filter(([, value]) => value !== null);
  if (known.length < 2) return;
  let picture = box.querySelector("svg");
  if (!picture) {
    picture = shape("svg", { class: "trend", role: "img", viewBox: "0 0 100 24", preserveAspectRatio: "none", "aria-label": name });
    const text = box.querySelector("dd");
    if (text) text.after(element("dd", undefined, { class: "trend" }));
    (text?.nextSibling ?? box).append(picture);
  }
  const span = spanOf(known, false);
  picture.replaceChildren(path({ points, look: "", name }, span, ...scalesOf(span, 0, 100, 2, 20)));
}

// What turns times into places from `left`, and values into those from `top`.
function scalesOf({ first, last, low, high }, left, width, top, height) {
  const x = (at) => left + (width * (at - first)) / Math.max(1, last - first);
  const y = (value) => top + (height * (high - value)) / (high - low || 1);
  return [x, y];
}

function spanOf(points, zero) {
  const times = points.map(([at]) => at);
  const values = points.map(([, value]) => value);
  if (zero) values.push(0);
  return { first: least(times), last: greatest(times), low: least(values), high: greatest(values) };
}

const least = (numbers) => numbers.reduce((a, b) => Math.min(a, b));
const greatest = (numbers) => numbers.reduce((a, b) => Math.max(a, b));

function shape(name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function picture(lines, span, { width, height }, marks) {
  const [x, y] = scalesOf(span, LEFT, width - LEFT - 4, 6, height - 20);
  const shapes = [];
  const textOf = span.high - span.low < 10 ? (value) => upTo(value, 2) : whole; // two levels never read alike
  const levels = span.low < 0 && span.high > 0 ? [span.low, 0, span.high] : [span.low, span.high];
  for (const value of new Set(levels)) {
    shapes.push(shape("line", { x1: LEFT, x2: width - 4, y1: y(value), y2: y(value), class: value ? "rule" : "zero" }));
    shapes.push(shape("text", { x: LEFT - 4, y: y(value) + 3, class: "end" }, textOf(value)));
  }
  shapes.push(shape("text", { x: LEFT, y: height - 2 }, clock(span.first).slice(0, 5)));
  shapes.push(shape("text", { x: width - 4, y: height - 2, class: "end" }, clock(span.last).slice(0, 5)));
  const shown = marks.filter(({ at }) => at >= span.first && at <= span.last);
  const markShapes = shown.map(({ at, look, name }) => {
    const top = look === "moment" ? 0 : height - 20;
    return titled(shape("line", { x1: x(at), x2: x(at), y1: top, y2: height - 12, class: look }), name);
  });
  return [...shapes, ...lines.map((line) => path(line, span, x, y)), ...markShapes];
}

function titled(node, name) {
  node.append(shape("title", {}, name));
  return node;
}

function path(line, span, x, y) {
  const gap = Math.max(GAP_MS, (span.last - span.first) / 12);
  let before = -Infinity; // no line over a time of which nothing is known
  const steps = line.points.map(([at, value]) => {
    const move = at - before < gap ? "L" : "M";
    before = value === null ? -Infinity : at;
    return value === null ? "" : `${move}${x(at)} ${y(value)}`;
  });
  return titled(shape("path", { d: steps.join(""), class: line.look }), line.name);
}
