// The account in one picture: what it would gain if the whole market moved, each underlying by the same
// percent, and by its beta where betas are known; now, on the chosen day, and after the trades.

import { Charts } from "./chart.js";
import { byId, element, fit, write } from "./elements.js";
import { upTo } from "./format.js";
import { chosenLabel } from "./payoff_panel.js";
import { chosen, hasTrades } from "./risk_choice.js";

const STEP = 1.25;
const MOST = 20; // percent
const MOVES = Array.from({ length: (2 * MOST) / STEP + 1 }, (_, n) => n * STEP - MOST);
const charts = new Charts();
let haveBetas = true; // until an answer says otherwise

export const isOfMarket = ({ scope }) => !scope || scope === "account";

// Read the profits at each move, one after the other: what other panels ask has its turn between them. A
// trade that is wrong is said beside its form.
export async function readMarket(get, { days, vol, ...asked }, refused) {
  const now = { ...chosen(asked), spot: MOVES.join(","), level: "account" };
  const later = { ...now, days, vol };
  return [
    await get("what-if", now),
    (days || vol) && (await get("what-if", later)),
    haveBetas && (await get("what-if", { ...later, by_beta: true })),
    hasTrades(asked) && (await get("what-if", { ...asked.trades, ...later }).catch(refused)),
  ];
}

export function drawMarket([now, later, byBeta, after], asked) {
  haveBetas &&= byBeta.rows.some((row) => row.spot && row.profit !== null);
  const keys = [...new Set(now.rows.map(keyOf))];
  charts.keep(keys);
  write(byId("market-none"), keys.length ? "" : "Nothing is held of it.");
  fit(byId("markets"), keys.length, "article").forEach((box, n) => {
    const profits = (answer) => answer && profitsOf(answer.rows, keys[n]);
    const label = chosenLabel(asked);
    const lines = [
      { label: later ? `${label}, all by the same percent` : "all by the same percent", values: profits(later || now), look: "strong" },
      { label: "each by its beta", values: haveBetas && profits(byBeta), look: "chosen" },
      { label: "now", values: later && profits(now), look: "faint" },
      { label: "after the trades", values: profits(after), look: "after" },
    ];
    drawOne(box, keys[n], lines, now.rows.find((row) => keyOf(row) === keys[n]));
  });
}

export const closeMarket = () => charts.keep([]);

const keyOf = (row) => `${row.account} ${row.currency}`;

function profitsOf(rows, key) {
  const profitAt = new Map(rows.filter((row) => keyOf(row) === key).map((row) => [row.spot, row.profit]));
  const profits = MOVES.map((move) => profitAt.get(move) ?? null);
  return profits.some((profit) => profit !== null) && profits;
}

function drawOne(box, key, lines, row) {
  if (!box.firstElementChild) box.append(element("h3"), element("p", undefined, { class: "remark" }));
  write(box.children[0], key);
  const isKnown = lines.some((line) => line.values);
  const left = row.left_out ? `${row.left_out} of ${row.of} legs cannot be priced and are left out.` : "";
  write(box.children[1], isKnown ? left : `Not known: ${left}`);
  charts.draw(box, key, {
    name: `Profit over a move of the market: ${key}`,
    x: { label: "move of the market", values: MOVES, format: moved, axis: moved },
    unit: `change of the profit, ${row.currency}`,
    lines: lines.filter((line) => line.values),
    marks: [{ x: 0, label: "now", colour: "--link" }],
    height: 300,
  });
}

const moved = (percent) => `${percent > 0 ? "+" : ""}${upTo(percent, 2)} %`;
