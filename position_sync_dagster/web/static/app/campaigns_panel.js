// The campaigns that are over, the newest first; a line opens one.

import { byId } from "./elements.js";
import { percent, whole } from "./format.js";
import { choose } from "./results_choice.js";
import { openedLines, fill, money } from "./table.js";

const HEADINGS = ["strategy", "closed", "kind", "underlying", "days", "rolls", "ended", "profit", "fees", "at risk", "return", "not known"];

export function drawCampaigns(campaigns) {
  const newest = [...campaigns].reverse();
  const shown = openedLines("campaigns", newest, 16, lineOf, HEADINGS.length, () => drawCampaigns(campaigns));
  fill(byId("campaigns-table"), HEADINGS, shown, "None.");
}

function lineOf(row) {
  return {
    act: () => choose({ campaign: row.campaign_id }),
    cells: [
      row.strategy_id,
      row.closed,
      row.kind ?? "–",
      row.underlying,
      whole(row.days),
      whole(row.rolls),
      row.ended,
      money(row.profit),
      money(row.fees)[0],
      money(row.capital_at_risk)[0],
      percent(row.return_on_risk),
      [row.profit_unknown ?? "", "text"],
    ],
  };
}
