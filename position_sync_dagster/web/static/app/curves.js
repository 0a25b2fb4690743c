// The curves of the day, from the ledger of the last hours: the worst and the best strategies, and accounts.

import { byId, fit, set, write } from "./elements.js";
import { figures } from "./figures.js";
import { whole } from "./format.js";
import { plot } from "./plot.js";

const COLOURS = 8;

// With a moment, in milliseconds, the legend says what each had earned by then.
export function drawCurves(at = null) {
  const curves = figures.curves.map(lineOf);
  const none = figures.scenarios.at ? "The profit of the day is not known yet." : "Not computed yet.";
  const marks = figures.changes.map((change) => ({ at: Date.parse(change.at), look: `event ${change.kind}`, name: change.text }));
  if (at !== null) {
    marks.push({ at, look: "moment", name: "the moment" });
    for (const curve of curves) curve.label += ` ${whole(earnedBy(curve, at))}`;
  }
  plot(byId("curves"), curves, none, { marks });
  drawLegend(curves, figures.curves_hidden);
}

function earnedBy({ points }, at) {
  return points.findLast(([time]) => time <= at)?.[1] ?? null;
}

function lineOf(curve, n) {
  const colour = curve.is_account ? "account" : `curve${n % COLOURS}`;
  const dashes = n < COLOURS || curve.is_account ? "" : " second";
  const points = curve.points.map(([at, value]) => [Date.parse(at), value]);
  return { name: `${curve.name} ${curve.currency ?? ""}`, label: curve.name, colour, look: colour + dashes, points };
}

function drawLegend(curves, hidden) {
  const labels = curves.map((curve) => [curve.label, curve.colour]);
  if (hidden) labels.unshift([`${hidden} more between the worst and the best`, "none"]);
  set(byId("legend"), "title", labels.map(([name]) => name).join("\n"));
  fit(byId("legend"), labels.length, "span").forEach((node, n) => {
    write(node, labels[n][0]);
    set(node, "class", labels[n][1]);
  });
}
