// What expires, the nearest first.

import { byId } from "./elements.js";
import { figures } from "./figures.js";
import { whole } from "./format.js";
import { SOON_DAYS } from "./columns.js";
import { only } from "./holdings_panel.js";
import { currencyOf } from "./parts.js";
import { fill, money, plainMoney } from "./table.js";

const HEADINGS = ["expiry", "days", "legs", "value", "today", "short ITM"];

export function drawExpiries() {
  fill(byId("expiries-table"), HEADINGS, figures.expiries.map(line));
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
      plainMoney(sums.market_value, sums.unknown.market_value),
      money(sums.today, sums.unknown.today),
      sums.short_in_money + unknown,
    ],
  };
}
