// The campaigns that are over, the newest first, and those that are open, each with its path; a line opens one
// that is over.

import { byId } from "./elements.js";
import { percent, price, whole } from "./format.js";
import { drawTrend } from "./plot.js";
import { choose } from "./results_choice.js";
import { openedLines, fill, money } from "./table.js";

const HEADINGS = ["strategy", "closed", "kind", "underlying", "days", "rolls", "ended", "profit", "path", "worst", "fees", "at risk", "return", "not known"];

export function drawCampaigns({ campaigns, paths }) {
  const newest = campaigns.map((row, n) => ({ ...row, path: paths[n] })).reverse();
  drawLines("campaigns", HEADINGS, newest, lineOf);
}

function drawLines(name, headings, rows, lineOf) {
  const shown = openedLines(name, rows, 16, lineOf, headings.length, () => drawLines(name, headings, rows, lineOf));
  fill(byId(`${name}-table`), headings, shown, "None.");
}

// A picture from nothing to what it had earned at the end of each day.
function pathOf({ path, worst, best }) {
  const points = [0, ...(path ?? [])].map((value, n) => [n, value]);
  const box = new DocumentFragment();
  const nodes = () => (drawTrend(box, points, `worst ${whole(worst)}, best ${whole(best)}`), [...box.children]);
  return { key: points.join(), nodes };
}

const OPEN_HEADINGS = ["strategy", "since", "kind", "underlying", "rolls", "brought", "path", "stands", "worst", "cost per share", "entry delta", "entry IV", "not known"];

export function drawOpenCampaigns({ campaigns }) {
  drawLines("open", OPEN_HEADINGS, campaigns, openLine);
}

function openLine(row) {
  const amounts = [money(row.brought), pathOf(row), money(row.stands), money(row.worst)];
  const entry = [whole(row.entry_delta), percent(row.entry_implied_vol)];
  const why = [row.profit_unknown, row.why_unknown, row.entry_unknown].filter(Boolean).join("; ");
  return { cells: [row.strategy_id, row.opened ?? "–", row.kind ?? "–", row.underlying, whole(row.rolls), ...amounts, price(row.cost_per_share), ...entry, [why, "text"]] };
}

function lineOf(row) {
  return {
    act: () => choose({ campaign: row.campaign_id }),
    cells: [
      row.strategy_id,
      row.closed,
      row.kind ?? "–",
      row.underlying,
      whole(row.days),
      whole(row.rolls),
      row.ended,
      money(row.profit),
      pathOf(row),
      money(row.worst),
      money(row.fees)[0],
      money(row.capital_at_risk)[0],
      percent(row.return_on_risk),
      [row.profit_unknown ?? "", "text"],
    ],
  };
}
