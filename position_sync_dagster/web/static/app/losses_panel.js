// What today cost: the strategies that lost most; without strategies the legs. Behind it, why: the
// parts of the profit as `position-sync why` says them.

import { pause } from "./api.js";
import { byId, write } from "./elements.js";
import { figures } from "./figures.js";
import { clock } from "./format.js";
import { only } from "./holdings_panel.js";
import { openLeg } from "./leg_panel.js";
import { Panel } from "./panel.js";
import { currencyOf, parts } from "./parts.js";
import { fill, money, moneyInCents, sumOf } from "./table.js";

const MOST = 3;
const PARTS = ["delta", "gamma", "vega", "theta", "repricing", "trades", "fees", "assignments", "cash", "unexplained"];
const WHY_EVERY_MS = 60000;
const whyPanel = new Panel("why");
let why = { rows: [], at: null };

export function drawLosses() {
  const names = new Set(figures.strategies.map((sums) => sums.strategy));
  const lines = names.size > 1 ? strategyLosses() : legLosses();
  const none = { cells: [["Nothing has lost today.", "text"]] };
  const isExplained = lines.some((line) => line.cells[2]);
  for (const line of lines) line.cells.splice(isExplained ? 3 : 2, 1); // there is room for one of the two
  const last = isExplained ? `mostly, at ${clock(why.at).slice(0, 5)}` : "unrealised";
  fill(byId("losses-table"), ["largest losses", "today", last], lines.length ? lines : [none]);
}

// The rows that lost most by a column, the worst first.
function largestLosses(rows, column) {
  const losses = rows.filter((row) => row[column] < 0);
  return losses.sort((a, b) => a[column] - b[column]).slice(0, MOST);
}

function strategyLosses() {
  return largestLosses(figures.strategies, "today").map((sums) => ({
    act: () => only("strategy", sums.strategy),
    cells: [
      sums.strategy + currencyOf(sums),
      sumOf(sums, "today"),
      largestPart(sums),
      sumOf(sums, "unrealized"),
    ],
  }));
}

function legLosses() {
  return largestLosses([...parts.values()], "daily_pnl").map((part) => ({
    act: () => openLeg(part),
    cells: [part.name, money(part.daily_pnl), "", money(part.unrealized_pnl)],
  }));
}

// The largest part of a profit, beside the profit of the moment at which it was explained; else empty.
function largestPart({ strategy, currency }) {
  const row = why.rows.find((explained) => explained.strategy === strategy && explained.currency === currency);
  const names = PARTS.filter((name) => row && row[name] * row.profit > 0);
  if (!names.length) return "";
  const largest = names.reduce((a, b) => (Math.abs(row[b]) > Math.abs(row[a]) ? b : a));
  return `${largest} ${money(row[largest])[0]} of ${money(row.profit)[0]}`;
}

// --- Why -----------------------------------------------------------------------------------------

export function openWhy() {
  byId("why-open").addEventListener("click", () => byId("why").showModal());
  byId("why-close").addEventListener("click", () => byId("why").close());
  followWhy();
}

async function followWhy() {
  for (;;) {
    if (!document.hidden) await whyPanel.show({}, (get) => get("why"), drawWhy);
    await pause(WHY_EVERY_MS);
  }
}

function drawWhy(answer) {
  why = answer;
  const lines = why.rows.map((row) => ({
    hint: row.why_unknown,
    cells: [
      `${row.strategy} ${row.account}${currencyOf(row)}`,
      moneyInCents(row.profit, row.left_out, row.of),
      ...PARTS.map((name) => moneyInCents(row[name])),
      [row.why_unknown ?? "", "text"],
    ],
  }));
  const none = { cells: [["No profit of today is known.", "text"]] };
  fill(byId("why-table"), ["strategy", "profit", ...PARTS, "not known because"], lines.length ? lines : [none]);
  write(byId("why-at"), `Computed at ${clock(why.at)}.`);
}
