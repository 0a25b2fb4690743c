// What would be gained if prices moved: accounts first, then strategies and underlyings, the worst first.

import { since } from "./clock.js";
import { byId } from "./elements.js";
import { figures } from "./figures.js";
import { duration } from "./format.js";
import { only } from "./holdings_panel.js";
import { currencyOf } from "./parts.js";
import { byWorst, endLines, fill, money } from "./table.js";

const LEVELS = ["account", "strategy", "underlying"];

export function drawScenarios() {
  const { names, trouble } = figures.scenarios;
  const lines = LEVELS.flatMap((level) => linesOf(level, names.length + 1));
  const none = { cells: [[trouble ?? "Not computed yet.", "text"]] };
  fill(byId("scenarios"), names.length ? ["name", ...names] : [], lines.length ? lines : [none]);
}

function linesOf(level, columns) {
  const { rows } = figures.scenarios;
  const accounts = new Set(rows.map((row) => row.account).filter(Boolean));
  const worstFirst = byWorst(rows.filter((row) => row.level === level));
  return endLines(`scenarios ${level}`, worstFirst, (row) => lineOf(row, accounts), columns, drawScenarios);
}

const accountName = (row, accounts) => (accounts.size > 1 ? row.name : "account");

function lineOf(row, accounts) {
  const isAccount = row.level === "account";
  const account = accounts.size > 1 && !isAccount ? ` ${row.account}` : "";
  return {
    kind: isAccount ? "total" : "",
    hint: `computed ${duration(since(figures.scenarios.at))} ago`,
    act: isAccount ? null : () => only(row.level, row.name),
    cells: [
      (isAccount ? accountName(row, accounts) : row.name) + account + currencyOf(row),
      ...row.profits.map((value, n) => money(value, row.left_out[n], row.of[n])),
    ],
  };
}
