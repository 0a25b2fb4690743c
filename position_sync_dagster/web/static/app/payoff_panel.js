// Profit and greeks over the price: now, on the chosen day and volatility, and at the next expiry.

import { Charts } from "./chart.js";
import { byId, element, facts, fit, write } from "./elements.js";
import { isUnknown, local, percent, rounded, sign, whole } from "./format.js";
import { SOON_DAYS } from "./columns.js";
import { quoted, showCommand } from "./commands.js";

const OF_MODEL = "by our model: a lognormal price around the forward, with the volatility nearest to the money";
const DAY_MS = 86400000;
const LATER_DAYS = 21;
const charts = new Charts();
let newest = null; // the answer before the trades, with the day and volatility that it is of
let drawGreeks = () => {};
let shown = "first"; // the key of the curve that is drawn; only this one is asked for, at first one that can be drawn
let step = () => {};

export const shownCurve = () => shown;

// `ask` asks for the curve that is shown.
export function openPayoff(ask) {
  for (const [id, by] of [["curve-before", -1], ["curve-after", 1]]) {
    byId(id).addEventListener("click", () => {
      step(by);
      ask();
    });
  }
  byId("greek").addEventListener("change", () => drawGreeks());
}

// Draw one of the curves of what was asked for, and in it the one after the trades.
export function drawPayoff(before, after, asked) {
  const { scope, name } = asked;
  const { days, vol } = before;
  newest = before;
  write(byId("payoff-title"), `Profit over the price: ${name ?? "everything"}`);
  showCommand(byId("payoff-command"), "what-if", scope && `--${scope} ${quoted(name)}`, days && `--days ${days}`, vol && `--vol ${vol}`);

  const { curves, keys } = before.curves.length ? before : (after ?? before);
  const [drawn] = curves.map(keyOf);
  if (curves.length === 1 && curves[0].chosen) shown = drawn; // while others become known it stays
  let place = keys.indexOf(drawn);
  step = (by) => {
    place = (place + by + keys.length) % keys.length;
    shown = keys[place];
  };
  byId("steps").hidden = keys.length < 2;
  write(byId("curve-place"), `${place + 1} of ${keys.length}`);
  write(byId("payoff-none"), keys.length ? "" : "Nothing is held of it.");

  charts.keep(curves.flatMap((curve) => [`profit ${keyOf(curve)}`, `greek ${keyOf(curve)}`]));
  const afterOf = (curve) => after?.curves?.find((other) => keyOf(other) === keyOf(curve));
  drawEach("payoffs", curves, (box, curve) => drawProfit(box, curve, afterOf(curve)));
  drawGreeks = () => drawEach("greek-charts", curves, (box, curve) => drawGreek(box, curve, afterOf(curve)));
  drawGreeks();
}

const keyOf = (curve) => [curve.account, curve.currency, curve.underlying].join("|");
const titleOf = (curve) => `${curve.underlying} ${curve.currency} ${curve.account}`;

function drawEach(name, curves, drawOne) {
  fit(byId(name), curves.length, "article").forEach((box, n) => drawOne(box, curves[n]));
}

// --- The profit ------------------------------------------------------------------------------------

function drawProfit(box, curve, after) {
  const { days, vol } = newest;
  const [title, list, remark] = headOf(box);
  write(title, titleOf(curve));
  facts(list, factsOf(curve));
  write(remark, remarks(curve).join("\n"));

  const described = {
    name: `Profit over the price: ${titleOf(curve)}`,
    x: scaleOf(curve),
    unit: `profit, ${curve.currency}`,
    lines: [
      { label: `at expiry${curve.at_expiry ? ` ${dayOf(curve.next_expiry)}` : ""}`, values: curve.at_expiry, look: "strong" },
      { label: chosenLabel(newest), values: curve.chosen, look: "chosen" },
      { label: "now", values: days || vol ? curve.now : null, look: "faint" },
      { label: "at expiry after the trades", values: aligned(curve, after, "at_expiry"), look: "after" },
      { label: "chosen day after the trades", values: curve.at_expiry ? null : aligned(curve, after, "chosen"), look: "after" },
    ].filter((line) => line.values),
    marks: marksOf(curve),
    height: byId("market").hidden ? 480 : 300, // as high as what stands beside it
  };
  charts.draw(box, `profit ${keyOf(curve)}`, described);
}

function headOf(box) {
  if (!box.firstElementChild) box.append(element("h3"), element("dl", undefined, { class: "facts" }), element("p", undefined, { class: "remark" }));
  return box.children;
}

function scaleOf(curve) {
  const move = (n) => `${curve.moves[n] >= 0 ? "+" : ""}${rounded(curve.moves[n], 1)} %`;
  return { label: `price of ${curve.underlying}`, values: curve.prices, format: (value) => rounded(value, 2), axis: short, hint: move };
}

const short = (value) => rounded(value, Number.isInteger(value) ? 0 : 1);

function marksOf(curve) {
  const evens = (curve.break_evens ?? []).map((price) => ({ x: price, label: `break-even ${rounded(price, 2)}` }));
  return [{ x: curve.spot, label: `now ${rounded(curve.spot, 2)}`, colour: "--link" }, ...evens];
}

export function chosenLabel({ days, vol, closed_days: closed }) {
  const points = vol ? `, volatility ${vol > 0 ? "+" : ""}${rounded(vol, 0)} points` : "";
  return days ? `in ${days} days${closed?.length ? ", no trading day" : ""}${points}` : `now${points}`;
}

const dayOf = (at) => (at ? at.slice(0, 10) : "");

// The numbers of the curve after the trades at the prices of the one before: between its own.
function aligned(curve, after, name) {
  if (!after?.[name] || !curve.prices) return null;
  return curve.prices.map((price) => between(after.prices, after[name], price));
}

function between(places, values, place) {
  const high = places.findIndex((candidate) => candidate >= place);
  if (high < 0 || (high === 0 && places[0] !== place)) return null;
  if (places[high] === place) return values[high];
  const part = (place - places[high - 1]) / (places[high] - places[high - 1]);
  return values[high - 1] + part * (values[high] - values[high - 1]);
}

// --- The facts -------------------------------------------------------------------------------------

function factsOf(curve) {
  const legs = ["legs", curve.legs.length > 6 ? `${curve.legs.length}` : local(curve.legs.join(", ")), "wrap"];
  return [
    expiryFact(curve),
    ["break-even", evensText(curve.break_evens)],
    ["greatest profit", boundText(curve, curve.greatest_profit), curve.greatest_profit < 0 ? "down" : ""],
    lossFact(curve),
    ["of it reached", percent(curve.reached), sign(curve.reached), "the profit now, as a part of the greatest profit"],
    ["probability of profit", curve.probability_of_profit > 0.9995 ? "> 99.9 %" : percent(curve.probability_of_profit), "", OF_MODEL],
    ["expected value", whole(curve.expected_value), sign(curve.expected_value), OF_MODEL],
    ["expected move", isUnknown(curve.expected_move) ? "not known" : `±${rounded(curve.expected_move, 1)}`, "", `one standard deviation until the next expiry, ${OF_MODEL}`],
    legs,
  ];
}

// Days of the calendar of the exchange, as in the book; a week and three weeks before the end are marked.
function expiryFact({ next_expiry: at }) {
  if (!at) return ["next expiry", "none"];
  const today = new Date().toLocaleDateString("sv-SE", { timeZone: "America/New_York" });
  const days = Math.max(0, (Date.parse(dayOf(at)) - Date.parse(today)) / DAY_MS);
  return ["next expiry", `${dayOf(at)}, ${days} d`, days <= SOON_DAYS ? "down" : days <= LATER_DAYS ? "soon" : ""];
}

function evensText(evens) {
  if (isUnknown(evens)) return "not known";
  return evens.length ? evens.map((price) => rounded(price, 2)).join(", ") : "none";
}

function boundText(curve, bound) {
  if (!isUnknown(bound)) return whole(bound);
  return isUnknown(curve.break_evens) ? "not known" : "unbounded";
}

// The lowest profit is a loss only below zero.
function lossFact(curve) {
  const lowest = curve.greatest_loss;
  if (isUnknown(lowest)) return ["greatest loss", boundText(curve, lowest), isUnknown(curve.break_evens) ? "" : "down"];
  return lowest < 0 ? ["greatest loss", whole(lowest), "down"] : ["no loss at expiry: at least", whole(lowest), "up"];
}

function remarks(curve) {
  const left = curve.left_out.map((leg) => `${leg.leg} (${leg.strategy}): ${leg.reason}`);
  const effect = "Not drawn, since legs cannot be priced:";
  const texts = [curve.why, curve.note].filter(Boolean).map((text) => `${text[0].toUpperCase()}${text.slice(1)}.`);
  if (isPastExpiry(curve)) texts.push("On the chosen day the next expiry is past: what ended is worth its exercise.");
  return [...texts, ...(left.length ? [effect, ...left] : [])];
}

function isPastExpiry(curve) {
  const { days } = newest;
  if (!curve.next_expiry || !days) return false;
  return Date.now() + 86400000 * days > Date.parse(curve.next_expiry);
}

// --- The greeks ------------------------------------------------------------------------------------

function drawGreek(box, curve, after) {
  const { value: greek, selectedOptions: [{ text: label }] } = byId("greek");
  const described = {
    name: `${label}, ${chosenLabel(newest)}: ${titleOf(curve)}`,
    x: scaleOf(curve),
    unit: label,
    lines: [
      { label: chosenLabel(newest), values: curve[greek], look: "chosen" },
      { label: "after the trades", values: aligned(curve, after, greek), look: "after" },
    ].filter((line) => line.values),
    marks: marksOf(curve).slice(0, 1),
    height: byId("market").hidden ? 200 : 400, // beside two pictures, or one
  };
  if (!box.firstElementChild) box.append(element("h3"), element("p", undefined, { class: "remark" }));
  write(box.children[0], titleOf(curve));
  write(box.children[1], described.lines.length ? "" : "Not known.");
  charts.draw(box, `greek ${keyOf(curve)}`, described);
}
