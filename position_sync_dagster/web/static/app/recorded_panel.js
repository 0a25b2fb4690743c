// The recorded scenarios of accounts, strategies and underlyings, the worst first; a line chooses what is drawn.

import { byId, write } from "./elements.js";
import { choose } from "./risk_choice.js";
import { byWorst, fill, money, openedLines } from "./table.js";

const LEVELS = ["account", "strategy", "underlying"];
let newest = null;

export function drawRecorded(answer) {
  newest = answer ?? newest;
  const { names, rows, left_out: left } = newest;
  const lines = LEVELS.flatMap((level) => linesOf(level, rows, names.length + 2));
  fill(byId("recorded-table"), ["of", "account", ...names.map((name) => name.replace("+0 %, ", "").replaceAll("-", "−"))], lines);
  write(byId("recorded-left"), left.map((reason) => `* ${reason.legs} left out: ${reason.reason}`).join("\n"));
}

function linesOf(level, rows, columns) {
  const worstFirst = byWorst(rows.filter((row) => row.level === level));
  return openedLines(`recorded ${level}`, worstFirst, 16, lineOf, columns, () => drawRecorded());
}

function lineOf(row) {
  return {
    kind: row.level === "account" ? "total" : "",
    act: row.name ? () => choose({ scope: row.level, name: row.name }) : null,
    cells: [row.name ?? "–", `${row.account} ${row.currency}`, ...row.profits.map((value, n) => money(value, row.left_out[n], row.of[n]))],
  };
}
