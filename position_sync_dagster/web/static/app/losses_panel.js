// What today cost: the strategies that lost most; without strategies the legs. Behind it, why: the
// parts of the profit as `position-sync why` says them.

import { byId, write } from "./elements.js";
import { figures } from "./figures.js";
import { cents, clock, isUnknown } from "./format.js";
import { only } from "./holdings_panel.js";
import { openLeg } from "./leg_panel.js";
import { accountOf, areSeveralCurrencies, currencyOf, parts } from "./parts.js";
import { fill, money, moneyInCents, sumOf } from "./table.js";

const MOST = 3;
const PARTS = ["delta", "gamma", "vega", "theta", "repricing", "trades", "fees", "assignments", "cash", "unexplained"];
const ROUNDING = 0.005;
let drawn = null; // the explanation in the table

export function drawLosses() {
  const names = new Set(figures.strategies.map((sums) => sums.strategy));
  const lines = names.size > 1 ? strategyLosses() : legLosses();
  const isExplained = lines.some((line) => line.cells[2]);
  for (const line of lines) line.cells.splice(isExplained ? 3 : 2, 1); // there is room for one of the two
  const last = isExplained ? `mostly, at ${clock(figures.why.at).slice(0, 5)}` : "unrealised";
  fill(byId("losses-table"), ["largest losses", "today", last], lines, "Nothing has lost today.");
}

// The rows that lost most, the worst first: what is open, and beside it each leg that closed today.
function largestLosses(rows, lineOf, column) {
  const open = rows.map((row) => [row[column], row, lineOf]);
  const closed = figures.closed_today.map((leg) => [leg.today, leg, closedLine]);
  const losses = [...open, ...closed].filter(([today]) => today < 0).sort(([a], [b]) => a - b);
  return losses.slice(0, MOST).map(([, row, line]) => line(row));
}

const strategyLosses = () => largestLosses(figures.strategies, strategyLine, "today");
const strategyLine = (sums) => ({
  act: () => only("strategy", sums.strategy),
  cells: [sums.strategy + accountOf(sums) + currencyOf(sums), sumOf(sums, "today"), largestLoss(sums), sumOf(sums, "unrealized")],
});

const legLosses = () => largestLosses([...parts.values()], legLine, "daily_pnl");
const legLine = (part) => ({ act: () => openLeg(part), cells: [part.name + accountOf(part), money(part.daily_pnl), "", money(part.unrealized_pnl)] });
const closedLine = (leg) => ({ act: () => openLeg(leg), cells: [`${leg.name} closed${accountOf(leg)}${currencyOf(leg)}`, money(leg.today), "", ""] });

// The largest of the parts that lost, at the moment at which the profit was explained; else empty.
function largestLoss({ strategy, currency }) {
  const rows = figures.why.rows.filter((row) => row.strategy === strategy && row.currency === currency);
  const sums = PARTS.map((name) => [name, rows.reduce((sum, row) => sum + row[name], 0)]);
  const [largest] = sums.filter(([, sum]) => sum < -ROUNDING).sort(([, a], [, b]) => a - b);
  if (!largest) return "";
  const others = rows.reduce((sum, row) => sum + row.profit, 0) - largest[1];
  return `${largest[0]} ${money(largest[1])[0]}, other ${others > 0 ? "+" : ""}${money(others)[0]}`;
}

// --- Why -----------------------------------------------------------------------------------------

export function openWhy() {
  byId("why-open").addEventListener("click", () => {
    byId("why").showModal();
    drawWhy();
  });
}

export function drawWhy() {
  const { why } = figures;
  if (!why || (why === drawn && !byId("why").open)) return;
  drawn = why;
  const totals = why.totals.filter((sums) => !sums.account);
  const lines = why.rows.length ? [...totals.map(totalLine), ...why.rows.map(whyLine)] : [];
  const none = why.trouble ?? (why.at ? "No profit of today is known." : "Not computed yet.");
  fill(byId("why-table"), ["strategy", "profit", "closed today", ...PARTS, "not known because"], lines, none);
  write(byId("why-at"), [why.at ? `Computed at ${clock(why.at)}.` : "", ...totals.map(movedSince)].filter(Boolean).join(" "));
}

function whyLine(row) {
  return {
    hint: row.why_unknown,
    cells: [
      `${row.strategy} ${row.account}${currencyOf(row)}`,
      moneyInCents(row.profit, row.left_out, row.of),
      ...["closed", ...PARTS].map((name) => moneyInCents(row[name])),
      [row.why_unknown ?? "", "text reason"],
    ],
  };
}

// What is open is the sum of the header at that moment; a part has what is known of it.
function totalLine(sums) {
  const rows = figures.why.rows.filter((row) => row.currency === sums.currency);
  const knownOf = (name) => rows.filter((row) => !isUnknown(row[name]));
  const added = (name) => knownOf(name).reduce((sum, row) => sum + row[name], 0);
  const cellOf = (name) => moneyInCents(added(name), rows.length - knownOf(name).length);
  const inNoPart = sums.today - PARTS.reduce((sum, name) => sum + added(name), 0);
  const note = isUnknown(sums.today) || Math.abs(inNoPart) < ROUNDING ? "" : `${cents(inNoPart)} is in no part`;
  const profit = moneyInCents(sums.today, sums.unknown.today, sums.of.today);
  return { kind: "total", cells: [`total${currencyOf(sums)}`, profit, ...["closed", ...PARTS].map(cellOf), [note, "text reason"]] };
}

// What is open has moved on since then, in the header and the book alike.
function movedSince({ currency, today }) {
  const live = figures.totals.find((sums) => !sums.account && sums.currency === currency)?.today;
  if (isUnknown(live) || isUnknown(today) || figures.at === figures.why.at) return "";
  return `What is open has ${cents(live)}${areSeveralCurrencies() ? ` ${currency}` : ""} at ${clock(figures.time)}, ${cents(live - today)} since then.`;
}
