// Where the profit of the newest closed day came from, by strategy; and why net liquidation moved.

import { byId, write } from "./elements.js";
import { fill, money } from "./table.js";

// `market` is what the change of the prices brought: the greeks and the repricing.
const PARTS = ["market", "delta", "gamma", "vega", "theta", "repricing", "trades", "fees", "assignments", "cash", "unexplained"];
const BOOKED = ["change", "profit", "income", "fees", "interest", "accruals", "rates", "owner", "difference"];
const MOST_NAMES = 6;

export function drawClosedDay(answer) {
  const { explained_day: explainedDay, books_day: booksDay } = answer;
  byId("explained").hidden = !explainedDay;
  byId("books").hidden = !booksDay;
  write(byId("explained-title"), `Where the profit of ${explainedDay} came from`);
  const state = answer.books_being_made ? ", which are being made anew" : "";
  write(byId("books-title"), `The books of ${booksDay}${state}`);

  fill(byId("explained-table"), ["strategy", "account", "profit", ...PARTS, "not known"], answer.explained.map(explainedLine));
  fill(byId("books-table"), ["account", "currency", ...BOOKED, "not known"], answer.books.map(booksLine));
}

function explainedLine(row) {
  return {
    kind: row.profit < 0 ? "lost" : "",
    cells: [row.strategy_id, `${row.account} ${row.currency}`, money(row.profit), ...PARTS.map((name) => money(row[name])), brief([row.why_unknown, row.greeks_unknown].filter(Boolean).join("; "))],
  };
}

// Where many legs are not known their names are a hint.
function brief(text) {
  const names = text.split("; ");
  const left = names.length - MOST_NAMES;
  return [left > 0 ? `${names.slice(0, MOST_NAMES).join("; ")} and ${left} more` : text, "text", text];
}

function booksLine(row) {
  return { cells: [row.account, row.currency ?? "–", ...BOOKED.map((name) => money(row[name])), [row.why_unknown ?? "", "text"]] };
}
