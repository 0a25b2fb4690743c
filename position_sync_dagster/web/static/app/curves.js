// The curves of the day, from the ledger of the last hours: the worst and the best strategies, and accounts.

import { byId, fit, set, write } from "./elements.js";
import { figures } from "./figures.js";
import { clock, whole } from "./format.js";
import { ends } from "./table.js";

const GAP_MS = 300000; // no line of a curve over a longer time without a value
const COLOURS = 8;
const LEFT = 46;
const SVG = "http://www.w3.org/2000/svg";

export function drawCurves() {
  const { curves, hidden } = chosenCurves();
  const box = byId("curves");
  const size = { width: box.clientWidth || 440, height: box.clientHeight || 110 };
  box.setAttribute("viewBox", `0 0 ${size.width} ${size.height}`);
  const points = curves.flatMap((curve) => curve.points.filter(([, value]) => value !== null));
  const none = shape("text", { x: LEFT, y: size.height / 2 }, "The profit of the day is not known yet.");
  box.replaceChildren(...(points.length ? picture(curves, points, size) : [none]));
  drawLegend(curves, hidden);
}

function chosenCurves() {
  const known = figures.curves
    .filter((curve) => curve.points.some(([, value]) => value !== null))
    .map((curve) => ({ ...curve, points: curve.points.map(([at, value]) => [Date.parse(at), value]) }));
  const newest = (curve) => curve.points.findLast(([, value]) => value !== null)[1];
  const strategies = known.filter((curve) => !curve.is_account).sort((a, b) => newest(a) - newest(b));
  const [worst, best] = ends("curves", strategies);
  const accounts = known.filter((curve) => curve.is_account);
  return { curves: [...worst, ...best, ...accounts], hidden: strategies.length - worst.length - best.length };
}

function shape(name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function picture(curves, points, { width, height }) {
  const times = points.map(([at]) => at);
  const values = points.map(([, value]) => value);
  const span = { first: Math.min(...times), last: Math.max(...times), low: Math.min(0, ...values), high: Math.max(0, ...values) };
  const x = (at) => LEFT + ((width - LEFT - 4) * (at - span.first)) / Math.max(1, span.last - span.first);
  const y = (value) => 6 + ((height - 20) * (span.high - value)) / Math.max(1, span.high - span.low);

  const shapes = [];
  for (const value of new Set([span.low, 0, span.high])) {
    shapes.push(shape("line", { x1: LEFT, x2: width - 4, y1: y(value), y2: y(value), class: value ? "rule" : "zero" }));
    shapes.push(shape("text", { x: LEFT - 4, y: y(value) + 3, class: "end" }, whole(value)));
  }
  shapes.push(shape("text", { x: LEFT, y: height - 2 }, clock(span.first).slice(0, 5)));
  shapes.push(shape("text", { x: width - 4, y: height - 2, class: "end" }, clock(span.last).slice(0, 5)));
  curves.forEach((curve, n) => shapes.push(line(curve, n, pathOf(curve, span, x, y))));
  return shapes;
}

function pathOf(curve, span, x, y) {
  let before = -Infinity; // no line over a time of which nothing is known
  const steps = curve.points.map(([at, value]) => {
    const isNear = at - before < Math.max(GAP_MS, (span.last - span.first) / 12);
    before = value === null ? -Infinity : at;
    return value === null ? "" : `${isNear ? "L" : "M"}${x(at)} ${y(value)}`;
  });
  return steps.join("");
}

const colourOf = (curve, n) => (curve.is_account ? "account" : `curve${n % COLOURS}`);

function line(curve, n, path) {
  const dashes = n < COLOURS || curve.is_account ? "" : " second";
  const node = shape("path", { d: path, class: colourOf(curve, n) + dashes });
  node.append(shape("title", {}, `${curve.name} ${curve.currency ?? ""}`));
  return node;
}

function drawLegend(curves, hidden) {
  const labels = curves.map((curve, n) => [curve.name, colourOf(curve, n)]);
  if (hidden) labels.unshift([`${hidden} more between the worst and the best`, "none"]);
  set(byId("legend"), "title", labels.map(([name]) => name).join("\n"));
  fit(byId("legend"), labels.length, "span").forEach((node, n) => {
    write(node, labels[n][0]);
    set(node, "class", labels[n][1]);
  });
}
