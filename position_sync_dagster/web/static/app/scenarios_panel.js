// What would be gained if prices moved: accounts first, then strategies, the worst first.

import { since } from "./clock.js";
import { NARROW, byId } from "./elements.js";
import { figures } from "./figures.js";
import { clock, duration } from "./format.js";
import { only } from "./holdings_panel.js";
import { currencyOf } from "./parts.js";
import { before, byWorst, fill, money, openedLines } from "./table.js";

const MOST = { account: 2, strategy: 4 }; // the risk page has underlyings too
const OF_NARROW = new Set(["-10 %", "-5 %", "+5 %"]);

export function drawScenarios() {
  const { names, trouble } = figures.scenarios;
  const shown = [...names.keys()].filter((n) => !NARROW.matches || OF_NARROW.has(names[n]));
  const lines = Object.keys(MOST).flatMap((level) => linesOf(level, shown));
  const headings = () => [`${figures.totals.some(before) ? "≈ " : ""}of, at ${clock(figures.scenarios.at).slice(0, 5)}`, ...shown.map((n) => names[n].replace("-", "−"))];
  fill(byId("scenarios"), names.length ? headings() : [], lines, trouble ?? "Not computed yet.");
}

function linesOf(level, shown) {
  const { rows } = figures.scenarios;
  const accounts = new Set(rows.map((row) => row.account).filter(Boolean));
  const worstFirst = byWorst(rows.filter((row) => row.level === level));
  const lineOf = (row) => line(row, accounts, shown);
  return openedLines(`scenarios ${level}`, worstFirst, MOST[level], lineOf, shown.length + 1, drawScenarios);
}

const accountName = (row, accounts) => (accounts.size > 1 ? row.name : "account");

function line(row, accounts, shown) {
  const isAccount = row.level === "account";
  const account = accounts.size > 1 && !isAccount ? ` ${row.account}` : "";
  return {
    kind: isAccount ? "total" : "",
    hint: `computed ${duration(since(figures.scenarios.at))} ago`,
    act: isAccount ? null : () => only(row.level, row.name),
    cells: [
      (isAccount ? accountName(row, accounts) : row.name) + account + currencyOf(row),
      ...shown.map((n) => money(row.profits[n], row.left_out[n], row.of[n])),
    ],
  };
}
