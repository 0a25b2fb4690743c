// One campaign that is over: what it brought, how it stood at each close, its legs, fills and rolls.

import { Chart } from "./chart.js";
import { quoted, showCommand } from "./commands.js";
import { byId, facts, write } from "./elements.js";
import { cents, isUnknown, percent, rounded, sign, whole } from "./format.js";
import { timeScale } from "./realised_panel.js";
import { choose } from "./results_choice.js";
import { fill, moneyInCents } from "./table.js";

const LEGS = ["leg", "from", "until", "qty", "profit", "fees"];
const FILLS = ["day", "leg", "what", "qty", "price", "cash", "fee", "not known"];
let chart = null;

export function openCampaign() {
  byId("close-campaign").addEventListener("click", () => choose({ campaign: null }));
}

export function drawCampaign(found) {
  showCommand(byId("campaign-command"), "campaign", quoted(found.campaigns[0].campaign_id));
  write(byId("campaign-title"), `${found.campaigns[0].strategy_id}: ${found.campaigns[0].contracts}`);
  facts(byId("campaign-facts"), found.campaigns.flatMap(factsOf));
  write(byId("campaign-why"), found.campaigns.map((row) => row.why_unknown ?? "").filter(Boolean).join("\n"));
  drawStanding(found);
  fill(byId("campaign-legs"), LEGS, found.legs.map(legLine));
  fill(byId("campaign-fills"), FILLS, found.fills.map(fillLine));
  write(byId("campaign-rolls"), found.rolls.map(rollText).join("\n"));
}

function factsOf(row) {
  return [
    ["profit", cents(row.profit), `large ${sign(row.profit)}`],
    ["currency", row.currency ?? "–"],
    ["opened", row.opened ?? "–"],
    ["closed", `${row.closed}, ${row.ended}`],
    ["days", whole(row.days)],
    ["kind", row.kind ?? "–"],
    ["fees", cents(row.fees)],
    ["premium received / paid", `${cents(row.premium_received)} / ${cents(row.premium_paid)}`],
    ["capital at risk", cents(row.capital_at_risk)],
    ["return", percent(row.return_on_risk)],
    ["per year", percent(row.return_per_year)],
    ["worst / best", `${cents(row.worst)} / ${cents(row.best)}`],
    ["at half its life", cents(row.profit_at_half)],
  ];
}

function drawStanding(found) {
  const { currency } = found.campaigns[0];
  const isRecorded = (value) => !isUnknown(value.profit) || !isUnknown(value.value);
  const ofCurrency = found.values.filter((value) => value.currency === currency);
  const values = ofCurrency.some(isRecorded) ? ofCurrency : [];
  byId("campaign-chart").hidden = !values.length;
  if (!values.length) return;

  chart ??= new Chart(byId("campaign-chart"));
  chart.draw({
    name: "How the campaign stood at each close",
    x: timeScale(values.map((value) => value.day)),
    unit: currency ?? "",
    lines: [
      { label: "profit", values: values.map((value) => value.profit), look: "strong" },
      { label: "value of what it held", values: values.map((value) => value.value), look: "faint" },
    ],
    height: 220,
  });
}

function legLine(leg) {
  return { cells: [leg.contract, leg.opened, leg.closed, rounded(leg.quantity, 0), moneyInCents(leg.profit), cents(leg.fees)] };
}

function fillLine(row) {
  const price = isUnknown(row.price) ? "–" : rounded(row.price, 2);
  return { cells: [row.day, row.contract, row.kind.toLowerCase(), rounded(row.quantity, 0), price, moneyInCents(row.cash), cents(row.fee), [row.unknown ?? "", "text"]] };
}

const rollText = (roll) => `Rolled on ${roll.at.slice(0, 10)}: ${roll.closed.join(", ")} to ${roll.opened.join(", ")}.`;
