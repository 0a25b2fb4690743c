// One campaign that is over: what it brought, its fills and rolls.

import { quoted, showCommand } from "./commands.js";
import { byId, facts, write } from "./elements.js";
import { cents, percent, price, rounded, sign, whole } from "./format.js";
import { fill, moneyInCents } from "./table.js";

const FILLS = ["day", "leg", "what", "qty", "price", "cash", "fee", "not known"];

export function drawCampaign(found) {
  showCommand(byId("campaign-command"), "campaign", quoted(found.campaigns[0].campaign_id));
  write(byId("campaign-title"), `${found.campaigns[0].strategy_id}: ${found.campaigns[0].contracts}`);
  facts(byId("campaign-facts"), found.campaigns.flatMap(factsOf));
  const reasons = found.campaigns.flatMap((row) => [row.why_unknown, row.entry_unknown]);
  write(byId("campaign-why"), reasons.filter(Boolean).join("\n"));
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
    ["return / of the greatest profit", `${percent(row.return_on_risk)} / ${percent(row.profit_reached)}`],
    ["worst / best day's end", `${cents(row.worst)} / ${cents(row.best)}`],
    ["cost per share", price(row.cost_per_share)],
    ["entry delta / IV / underlying", `${rounded(row.entry_delta, 1)} / ${percent(row.entry_implied_vol)} / ${price(row.entry_underlying_price)}`],
  ];
}

function fillLine(row) {
  return { cells: [row.day, row.contract, row.kind.toLowerCase(), rounded(row.quantity, 0), price(row.price), moneyInCents(row.cash), cents(row.fee), [row.unknown ?? "", "text"]] };
}

const rollText = (roll) => `Rolled on ${roll.at.slice(0, 10)}: ${roll.closed.join(", ")} to ${roll.opened.join(", ")}.`;
