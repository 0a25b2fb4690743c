// The curves of the day: the profit of each account, as the broker sums it.

import { byId, fit, set, write } from "./elements.js";
import { figures } from "./figures.js";
import { whole } from "./format.js";
import { plot } from "./plot.js";

const COLOURS = 8;

// With a moment, in milliseconds, the legend says what each had earned by then.
export function drawCurves(at = null) {
  const curves = Object.entries(figures.curves).map(lineOf);
  const none = figures.scenarios.at ? "The profit of the day is not known yet." : "Not computed yet.";
  const marks = figures.changes.map((change) => ({ at: Date.parse(change.at), look: `event ${change.kind}`, name: change.text }));
  if (at !== null) {
    marks.push({ at, look: "moment", name: "the moment" });
    for (const curve of curves) curve.label += ` ${whole(earnedBy(curve, at))}`;
  }
  plot(byId("curves"), curves, none, { marks });
  drawLegend(curves);
}

function earnedBy({ points }, at) {
  return points.findLast(([time]) => time <= at)?.[1] ?? null;
}

function lineOf([account, values], n) {
  const colour = `curve${n % COLOURS}`;
  const points = values.map(([at, value]) => [Date.parse(at), value]);
  return { name: account, label: account, colour, look: n < COLOURS ? colour : `${colour} second`, points };
}

function drawLegend(curves) {
  set(byId("legend"), "title", curves.map(({ label }) => label).join("\n"));
  fit(byId("legend"), curves.length, "span").forEach((node, n) => {
    write(node, curves[n].label);
    set(node, "class", curves[n].colour);
  });
}
