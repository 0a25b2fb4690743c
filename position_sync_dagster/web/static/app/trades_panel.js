// What if I do this: trades that somebody thinks of, closes and rolls; the book before and after. Nothing is sent.

import { quoted, showCommand } from "./commands.js";
import { byId, listOptions, write } from "./elements.js";
import { isUnknown, upTo, whole } from "./format.js";
import { choose, chosen } from "./risk_choice.js";
import { fill, money, plainMoney } from "./table.js";

const MOVES = "-10,-5,0,5,10";
const HEADINGS = ["strategy", "account", "move", "profit before", "after", "$ delta before", "after", "theta before", "after", "realised"];

export function openTrades() {
  byId("trades-form").addEventListener("submit", (event) => {
    event.preventDefault();
    choose({ trades: readForm() });
  });
  byId("trades-form").addEventListener("reset", () => choose({ trades: {} }));
}

function readForm() {
  const field = (name) => byId(name).value.trim();
  const lines = field("trade").split("\n").map((line) => line.trim()).filter(Boolean);
  const trades = {};
  if (lines.length) trades.trade = lines.join(",");
  if (field("close")) trades.close = field("close");
  if (field("roll")) trades.roll = `${field("roll")}:${field("roll-expiry")}`;
  return trades;
}

// What is asked about trades, in a strategy or an account.
export function tradesQuestion(choice) {
  const scope = choice.scope === "underlying" ? {} : chosen(choice);
  return { ...choice.trades, ...scope, spot: MOVES, level: "strategy" };
}

// Draw what trades change; null: there are none.
export function drawTrades(answer, question) {
  byId("compared").hidden = !answer;
  byId("trades-command").hidden = !answer;
  if (!answer) return write(byId("trades-notes"), "");

  showCommand(byId("trades-command"), ...wordsOf(question), `--spot=${MOVES}`);
  const differing = answer.rows.filter((row) => JSON.stringify(row.before) !== JSON.stringify(row.after));
  fill(byId("compared"), HEADINGS, differing.map(lineOf));
  write(byId("trades-notes"), [...answer.notes, ...warningsOf(differing)].join("\n"));
}

// The command that says the same.
function wordsOf({ trade, close, roll, strategy, account }) {
  const [rolled, expiry] = roll?.split(/:(?=[^:]*$)/) ?? [];
  return [
    "what-if",
    ...(trade?.split(",") ?? []).map((text) => `--trade ${quoted(text)}`),
    close && `--close ${quoted(close)}`,
    roll && `--roll ${quoted(rolled)} ${quoted(expiry)}`,
    strategy && `--strategy ${quoted(strategy)}`,
    account && `--account ${quoted(account)}`,
  ];
}

function lineOf(row) {
  const before = row.before ?? {};
  const after = row.after ?? {};
  const greek = (side, name) => {
    const of = side.greeks_of?.[name];
    return plainMoney(side[name], of && of - side.greeks_known[name], of);
  };
  const both = (name) => [greek(before, name), greek(after, name)];
  return {
    cells: [
      row.name ?? "–",
      `${row.account} ${row.currency ?? ""}`,
      `${row.spot > 0 ? "+" : ""}${upTo(row.spot, 1)} %`,
      money(before.profit, before.left_out, before.of),
      money(after.profit, after.left_out, after.of),
      ...both("dollar_delta"),
      ...both("theta"),
      money(after.realised),
    ],
  };
}

// The payoffs, what is uncovered and the broken limits after the trades, each once.
function warningsOf(rows) {
  const texts = new Set();
  for (const { after } of rows) {
    for (const payoff of after?.payoffs ?? []) texts.add(payoffText(payoff));
    for (const leg of after?.uncovered ?? []) texts.add(`${leg.strategy_id}: ${leg.leg} would miss ${whole(leg.missing)}`);
    for (const text of after?.limits_broken ?? []) texts.add(text);
  }
  return [...texts];
}

function payoffText(payoff) {
  const bound = (value) => (isUnknown(value) ? (payoff.break_evens ? "unbounded" : "not known") : whole(value));
  return `${payoff.strategy} ${payoff.underlying} at expiry: at best ${bound(payoff.greatest_profit)}, at worst ${bound(payoff.greatest_loss)}`;
}

// The strategies that can be closed or rolled; the fields keep what was chosen.
export function listStrategies(names) {
  for (const id of ["close", "roll"]) listOptions(byId(id), ["", ...names].map((name) => [name, name]));
}
