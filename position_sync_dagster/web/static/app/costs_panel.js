// What accounts returned, month by month, and what fills cost against the quote before them.

import { byId, show } from "./elements.js";
import { percent, sign, whole } from "./format.js";
import { fill, money, openedLines } from "./table.js";

const RETURNS = ["period", "account", "currency", "days known", "profit", "return", "a year", "deepest fall", "worst day", "best day", "not known"];
const FILLS = ["strategy", "currency", "with a quote", "slippage", "of the spread", "fees", "cost", "fees without a quote", "not known"];
const MOST = 13;

const signed = (part) => [percent(part), sign(part)];

export function drawCosts([{ returns }, fills]) {
  const all = returns.filter(({ period }) => period === "all");
  const periods = [...all, ...returns.slice(all.length).reverse()];
  const redraw = () => drawCosts([{ returns }, fills]);
  const lines = openedLines("returns", periods, MOST, returnLine, RETURNS.length, redraw);
  fill(byId("returns-table"), RETURNS, lines, "No trading day with its books is known.");

  const { groups } = fills;
  fill(byId("costs-table"), FILLS, groups.map(costLine), "No fill is known.");
  show(byId("costs-known"), groups.length ? knownText(groups) : "");
}

function knownText(groups) {
  const sum = (name) => groups.reduce((total, row) => total + row[name], 0);
  return `${whole(sum("known"))} of ${whole(sum("fills"))} fills had a quote right before them: slippage, spread and cost are of these alone.`;
}

function returnLine(row) {
  return {
    kind: row.period === "all" ? "total" : "",
    cells: [
      row.period,
      row.account ?? "all",
      row.currency ?? "–",
      `${whole(row.days_known)} of ${whole(row.days)}`,
      money(row.profit),
      signed(row.time_weighted),
      signed(row.money_weighted),
      percent(row.deepest_fall),
      signed(row.worst_return),
      signed(row.best_return),
      [row.why_unknown?.replace("money_weighted", "a year") ?? "", "text"],
    ],
  };
}

function costLine(row) {
  return {
    cells: [
      row.group ?? "–",
      row.currency,
      `${whole(row.known)} of ${whole(row.fills)}`,
      money(row.slippage)[0],
      percent(row.part_of_spread),
      money(row.fees)[0],
      money(row.cost)[0],
      money(row.fees_without_quote)[0],
      [row.why_unknown ?? "", "text"],
    ],
  };
}
