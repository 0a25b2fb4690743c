// The panel of strategies: profit, value and greeks of each, and of all.

import { byId, show } from "./elements.js";
import { figures, older } from "./figures.js";
import { DASH, amount, duration, sign } from "./format.js";
import { only } from "./holdings_panel.js";
import { currencyOf } from "./parts.js";
import { endLines, fill, money, plainMoney, sumOf } from "./table.js";

const HEADINGS = ["strategy", "today", "unrealised", "realised", "campaign", "value", "legs", "oldest"];
export const byToday = (a, b) => (a.today ?? 0) - (b.today ?? 0);

export function drawStrategies() {
  const ordered = [...figures.strategies].sort(byToday);
  const accounts = new Set(ordered.map((sums) => sums.account).filter(Boolean));
  const most = Math.max(1, ...ordered.map((sums) => Math.abs(sums.today ?? 0)));
  const lineOf = (sums) => strategyLine(sums, accounts, most);
  fill(byId("strategies-table"), HEADINGS, [
    ...endLines("strategies", ordered, lineOf, HEADINGS.length, drawStrategies),
    ...figures.totals.map(totalLine),
    ...figures.accounts.filter(hasClosed).map(closedLine),
  ]);
  show(byId("missing"), figures.missing.join("\n"));
}

function strategyLine(sums, accounts, most) {
  const account = accounts.size > 1 && sums.account ? ` ${sums.account}` : "";
  return {
    hint: sums.note,
    act: () => only("strategy", sums.strategy),
    share: Math.abs(sums.today ?? 0) / most,
    cells: cellsOf(sums, sums.strategy + account + currencyOf(sums), `name ${sums.today < 0 ? "loss" : "gain"}`),
  };
}

function totalLine(sums) {
  const account = sums.account ? ` ${sums.account}` : "";
  return { kind: "total", hint: sums.note, cells: cellsOf(sums, sums.total + account + currencyOf(sums), "") };
}

function cellsOf(sums, name, style) {
  const legs = `${sums.legs_held}/${sums.legs}${sums.legs_closed ? `, ${sums.legs_closed} closed` : ""}`;
  return [
    [name, style],
    sumOf(sums, "today"),
    sumOf(sums, "unrealized"),
    money(sums.realised),
    campaign(sums.campaign),
    plainMoney(sums.market_value, sums.unknown.market_value, sums.of.market_value),
    [legs, "", sums.closed],
    duration(older(sums.age_s)) + (sums.delayed ? " delayed" : ""),
  ];
}

// What a strategy has earned since its first leg, through rolls and assignments.
function campaign(sums) {
  if (!sums) return "";
  const since = sums.since?.slice(0, 10) ?? DASH;
  const parts = `realised ${amount(sums.realised)}, open ${amount(sums.open)}, fees ${amount(sums.fees)}`;
  return [amount(sums.profit), sign(sums.profit), `since ${since}: ${parts}`];
}

const closedOf = (account) => figures.closed_today.filter((leg) => leg.account === account.account);
const hasClosed = (account) => closedOf(account).length > 0;

function closedLine(account) {
  const name = figures.accounts.length > 1 ? ` ${account.account}` : "";
  const { closed, closed_unknown: unknown } = account.today;
  return {
    kind: "total",
    hint: closedOf(account).map((leg) => `${leg.name}  ${amount(leg.today)}`).join("\n"),
    cells: [`closed today${name}`, money(closed, unknown), "", money(account.realised_today), "", "", "", ""],
  };
}
