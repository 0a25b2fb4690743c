// What expires soon, what it leaves at the present price, and what may be assigned early.

import { byId, show } from "./elements.js";
import { cents, rounded, whole } from "./format.js";
import { fill, money, openedLines } from "./table.js";

const MOST = 40; // lines of each table, until somebody asks for more
const EXPIRING = ["New York", "strategy", "leg", "qty", "units", "cash", "notes"];
const EARLY = ["strategy", "leg", "qty", "above exercise", "ex-date"];
const MARKS = { is_uncovered: "uncovered", is_pinned: "pinned", is_cash_settled: "settled in cash", is_in_the_morning: "in the morning" };

export function drawAssignments(answer, days, isChosen) {
  const ending = answer.expiries.filter(isChosen);
  const early = answer.early_assignments.filter(isChosen);
  const redraw = () => drawAssignments(answer, days, isChosen);
  fill(byId("ending"), EXPIRING, openedLines("ending", ending, MOST, endingLine, EXPIRING.length, redraw), `Nothing expires within ${days} days.`);
  show(byId("early-title"), early.length ? "May be assigned early:" : "");
  fill(byId("early"), EARLY, openedLines("early", early, MOST, earlyLine, EARLY.length, redraw), "No short option is likely to be assigned early.");

  const unknown = [...answer.not_judged, ...answer.undated].filter(isChosen);
  fill(byId("not-judged"), unknown.length ? ["strategy", "leg", "not judged"] : [], unknown.map((row) => ({ cells: [row.strategy_id, row.leg, [row.reason, "text"]] })));
}

function endingLine(row) {
  const marks = Object.keys(MARKS).filter((name) => row[name]).map((name) => MARKS[name]);
  if (row.missing) marks.push(`${rounded(row.missing, 0)} missing`);
  if (row.reason) marks.push(row.reason);
  return {
    kind: row.is_uncovered || row.is_pinned ? "soon" : "",
    cells: [row.expires_at.slice(0, 16).replace("T", " "), row.strategy_id, row.leg, rounded(row.position, 0), whole(row.units), money(row.cash), [marks.join(", "), "text"]],
  };
}

function earlyLine(row) {
  return {
    kind: "soon",
    cells: [row.strategy_id, row.leg, rounded(row.position, 0), cents(row.extrinsic), row.ex_date?.slice(0, 10) ?? ""],
  };
}
