// A day of the calendar: its trades, and the campaigns that ended on it; a line opens one.

import { byId, write } from "./elements.js";
import { cents, clock, price, upTo, whole } from "./format.js";
import { choice, choose } from "./results_choice.js";
import { fill, moneyInCents, openedLines } from "./table.js";

const TRADES = ["time", "strategy", "leg", "qty", "price", "fee", "what", "not known"];
const ENDED = ["strategy", "kind", "underlying", "days", "ended", "profit"];
const MOST = 20;

export function drawDay([{ fills }, { campaigns }]) {
  const { day } = choice;
  const trades = fills.filter((trade) => trade.day === day);
  const ended = campaigns.filter((campaign) => campaign.closed === day);
  write(byId("day-title"), `${day}: ${whole(trades.length)} trades, ${whole(ended.length)} campaigns ended`);
  const lines = openedLines(`day ${day}`, trades, MOST, tradeLine, TRADES.length, () => drawDay([{ fills }, { campaigns }]));
  fill(byId("day-trades"), TRADES, lines, "No trade is known.");
  fill(byId("day-campaigns"), ENDED, ended.map(campaignLine), "No campaign ended.");
}

function tradeLine(trade) {
  const why = [trade.why_unknown ?? "", "text"];
  return { cells: [trade.at ? clock(trade.at) : "–", trade.strategy, trade.contract, upTo(trade.quantity, 4), price(trade.price), cents(trade.fee), trade.opens ? "opens" : "closes", why] };
}

function campaignLine(row) {
  return {
    act: () => choose({ campaign: row.campaign_id }),
    cells: [row.strategy_id, row.kind ?? "–", row.underlying, whole(row.days), row.ended, moneyInCents(row.profit)],
  };
}
