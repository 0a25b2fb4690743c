// What expires this week, what may be assigned early, as `position-sync expiry` says; then all expiries.

import { SOON_DAYS } from "./columns.js";
import { byId } from "./elements.js";
import { figures } from "./figures.js";
import { amount, rounded, whole } from "./format.js";
import { only, onlySoon } from "./holdings_panel.js";
import { openLegOf } from "./leg_panel.js";
import { currencyOf } from "./parts.js";
import { fill, plainMoney, sumOf } from "./table.js";

const HEADINGS = ["expiry", "days", "legs", "value", "today", "short ITM"];

export function drawExpiries() {
  fill(byId("ending-table"), [], [...expiringLines(), ...assignmentLines()]);
  fill(byId("expiries-table"), HEADINGS, figures.expiries.map(line));
}

function expiringLines() {
  const { expiry, trouble } = figures.scenarios;
  if (!expiry) return [{ cells: [[trouble ?? "Not computed yet.", "text"]] }];
  if (!expiry.expiries.length) return [{ cells: [[`Nothing expires within ${SOON_DAYS} days.`, "text"]] }];
  const lines = expiry.expiries.map((leg) => ({
    kind: leg.is_uncovered ? "hurts" : "soon",
    act: () => openLegOf(leg),
    cells: [leg.leg, [expiringText(leg), "text"]],
  }));
  return [...lines, ...moreLine(expiry.more_expiries, onlySoon)];
}

// The server sends what matters most; the holdings have the others.
function moreLine(count, act) {
  return count ? [{ kind: "more", act, cells: [`… and ${count} more`, ["", "text"]] }] : [];
}

// The moment is one of New York, written with its offset: it is shown as it is there.
function expiringText(leg) {
  const at = `${leg.expires_at.slice(5, 10)} ${leg.expires_at.slice(11, 16)}`;
  const marks = { is_pinned: "pinned", is_uncovered: "uncovered", is_cash_settled: "settled in cash" };
  const texts = Object.keys(marks).filter((name) => leg[name]).map((name) => marks[name]);
  if (leg.reason) texts.push(leg.reason);
  if (leg.units) texts.unshift(`${leg.units > 0 ? "+" : ""}${whole(leg.units)} units, ${amount(leg.cash)} cash`);
  return `${rounded(leg.position, 0)} of ${leg.strategy_id}, ${at}${texts.length ? `: ${texts.join(", ")}` : ": worthless now"}`;
}

function assignmentLines() {
  const { expiry } = figures.scenarios;
  if (!expiry) return [];
  const likely = expiry.early_assignments.map((leg) => ({
    kind: "hurts",
    act: () => openLegOf(leg),
    cells: [leg.leg, [`${rounded(-leg.position, 0)} short of ${leg.strategy_id} may be assigned early: ${amount(leg.extrinsic)} above its exercise`, "text"]],
  }));
  const notes = expiry.not_judged.map((leg) => ({ act: () => openLegOf(leg), cells: [leg.leg, [`is not judged: ${leg.reason}`, "text"]] }));
  const none = { cells: [["No short option is likely to be assigned early.", "text"]] };
  return [
    ...(likely.length ? likely : [none]),
    ...moreLine(expiry.more_early_assignments),
    ...notes,
    ...moreLine(expiry.more_not_judged),
  ];
}

function line(sums) {
  const unknown = sums.short_unknown ? ` + ${sums.short_unknown}?` : "";
  return {
    kind: sums.days <= SOON_DAYS ? "soon" : "",
    act: () => only("expiry", sums.expiry),
    cells: [
      sums.expiry + currencyOf(sums),
      whole(sums.days),
      whole(sums.legs_held),
      plainMoney(sums.market_value, sums.unknown.market_value, sums.of.market_value),
      sumOf(sums, "today"),
      sums.short_in_money + unknown,
    ],
  };
}
