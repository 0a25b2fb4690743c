// The header of every page: accounts, the state of logins, how old all is; and what needs attention.

import { since } from "./clock.js";
import { withCommands } from "./commands.js";
import { byId, element, facts, show, write } from "./elements.js";
import { areLost, figures, isPast, older } from "./figures.js";
import { DASH, cents, clock, duration, isUnknown, local, moment, percent, sign, whole } from "./format.js";
import { drawTrend } from "./plot.js";
import { before, beforeHint, moneyInCents, sumOf } from "./table.js";

const LIVE = "LIVE";
const LITTLE_CUSHION = 0.1;
const PLACES = ["money.hints", "money.lines"]; // "never": hints, and that lines are few, are dismissed for good
const title = document.title;

// Draw the header, and grey the page while its values are from before; return whether there are figures.
export function drawHeader(notices = []) {
  if (!figures.at) {
    show(byId("notice"), figures.trouble ?? "Reading the tables …");
    return false;
  }
  const blind = isPast() ? [] : figures.gateways.filter((login) => login.state !== LIVE);
  const areAllBlind = blind.length === figures.gateways.length;
  document.body.classList.toggle("aged", areLost() || Boolean(figures.trouble) || areAllBlind);

  const hints = figures.hints ?? [];
  const attention = figures.attention.filter((text) => !hints.includes(text));
  const missing = figures.without_line ? [figures.without_line] : [];
  say(byId("alert"), [...alerts(blind), ...(areRefused() ? missing : [])], areRefused() ? reasons() : []);
  drawHints(hints, areRefused() ? [] : missing);
  drawNotice([...attention, ...notices]);
  facts(byId("numbers"), [...figures.accounts.flatMap(numbersOf), ...stateNumbers(blind), ...leanNumbers()]);
  drawTrends();
  facts(byId("accounts"), figures.accounts.flatMap(accountFacts));
  facts(byId("state"), stateFacts());
  write(byId("clock"), moment(figures.time));
  document.title = tabTitle();
  return true;
}

// That nothing is wrong is said too: an empty line says nothing.
function drawNotice(texts) {
  const isCalm = !texts.length && byId("alert").hidden && byId("hints").hidden;
  const calm = isPast() ? `PAST, ${moment(figures.time)}: what the tables had then. Logins, limits and lines of then are not kept.` : `Nothing is broken: all logins are connected, and no limit is ${figures.limits.length ? "broken" : "set"}.`;
  byId("notice").classList.toggle("calm", isCalm);
  say(byId("notice"), isCalm ? [calm] : texts);
}

// Texts change rarely, so that a screen reader says each once, and a command stays under the pointer.
// What one need not read at once is folded.
function say(box, texts, folded = []) {
  const text = local(texts.join("\n"));
  const details = local(folded.join("\n"));
  box.hidden = text === "";
  if (box.dataset.text === text + details) return;

  const fold = element("details");
  fold.append(element("summary", "details"), details);
  fold.open = box.querySelector("details")?.open ?? false;
  box.dataset.text = text + details;
  box.replaceChildren(...withCommands(text), ...(details ? [fold] : []));
}

// --- What hurts, the worst first -----------------------------------------------------------------

function alerts(blind) {
  const texts = figures.limits.filter((limit) => limit.state === "BROKEN").map((limit) => `Limit broken: ${limit.text}`);
  if (areLost()) texts.push(`No new figures for ${duration(since(figures.time))}: every value is from ${clock(figures.time)} or before.`);
  texts.push(...blind.map(blindText));
  if (figures.trouble) texts.push(figures.trouble);
  return texts;
}

// More legs than lines are no trouble, since the queue values them; lines that a gateway refuses are.
const areRefused = () => Boolean(figures.without_line) && figures.gateways.some((login) => login.state === LIVE && login.reason);

// All that logins say, without what is said already.
function reasons() {
  const texts = figures.gateways.flatMap((login) => (login.state === LIVE && login.reason ? login.reason.split("; ") : []));
  return texts.filter((text) => !figures.without_line.includes(text));
}

function blindText(login) {
  const at = login.blind_since;
  const time = at ? ` since ${clock(at)} (${duration(since(at))})` : "";
  const reason = login.reason ? ` ${login.reason}` : "";
  return `${login.gateway_id} is ${login.state ?? "not connected yet"}${time}: its values are from before.${reason}`;
}

function drawHints(...kinds) {
  const shown = [0, 1].filter((n) => kinds[n].length && localStorage.getItem(PLACES[n]) !== "never");
  byId("hints").hidden = !shown.length;
  say(byId("hint"), shown.flatMap((n) => kinds[n]));
  byId("dismiss").onclick = () => {
    for (const n of shown) localStorage.setItem(PLACES[n], "never");
    drawHints(...kinds);
  };
}

export const showHintsAgain = () => PLACES.forEach((place) => localStorage.removeItem(place));

// --- Facts ---------------------------------------------------------------------------------------

// Of the six numbers those of an account: today with what it is made of, net liquidation, margin.
function numbersOf(account) {
  const { today } = account;
  const [name, values, profits] = wordsOf(account);
  const part = isUnknown(account.net_liquidation) || isUnknown(account.initial_margin) ? null : account.initial_margin / account.net_liquidation;
  const isTight = !isUnknown(account.cushion) && account.cushion < LITTLE_CUSHION;
  return [
    [`${name}today ${account.currency ?? ""}`, cents(today.account), `large today ${sign(today.account)}`, [profits + movedHint(account), beforeHint(account)].filter(Boolean).join("; "), bridgeOf(account)],
    [`${name}net liquidation`, whole(account.net_liquidation), "large", values, `available ${whole(account.available_funds)}`],
    [`${name}margin used`, percent(part), `large margin ${isTight ? "down" : ""}`, values, `${whole(account.initial_margin)}, cushion ${percent(account.cushion)}`],
  ];
}

// What stands before its numbers where there are several, and when they were received.
function wordsOf({ account, age_s: age, today }) {
  const name = figures.accounts.length > 1 ? `${account} ` : "";
  const received = (seconds) => `received ${duration(older(seconds))} ago`;
  return [name, received(age), `the account's own number, ${received(today.age_s)}`];
}

function bridgeOf({ today: { open, closed, cash, unexplained }, not_kept }) {
  const mark = before({ not_kept });
  return `= open ${mark}${cents(open)} + closed ${cents(closed)} + fees and cash ${cents(cash)} + not explained ${mark}${cents(unexplained)}`;
}

// The parts are of this look, the account's own number is some seconds older.
const movedHint = ({ moved, moved_since: at }) => (moved ? `; ${cents(moved)} of what is not explained is what moved since ${clock(at)}` : "");

function stateNumbers(blind) {
  if (isPast()) return ["current legs", "gateway"].map((label) => [label, DASH, "large state", "", "not kept"]);
  const states = figures.gateways.map((login) => login.state ?? "none");
  const times = figures.gateways.map((login) => `for ${duration(since(login.since))}`);
  const lines = figures.lines ? [`${figures.lines.split(" (")[0]} lines`] : [];
  const names = figures.gateways.map((login) => login.gateway_id).join(", ");
  const isStale = figures.current !== figures.held;
  return [
    ["current legs", `${figures.current} of ${figures.held}`, `large state ${isStale ? "down" : ""}`, "", `oldest price ${duration(older(figures.oldest_age_s))}`],
    ["gateway", [...new Set(states)].join(", "), `large state ${blind.length ? "down" : "up"}`, names, [...new Set(times), ...lines].join(", ")],
  ];
}

// Which way the book leans, and what a day brings it.
function leanNumbers() {
  const totals = figures.totals.filter((sums) => !sums.account);
  return totals.map((sums) => {
    const [delta, theta, vega] = ["dollar_delta", "theta", "vega"].map((name) => sumOf(sums, name));
    const greeks = theta[0] === vega[0] ? `theta and vega ${theta[0]}` : `theta ${theta[0]}, vega ${vega[0]}`;
    const isKnown = !isUnknown(sums.dollar_delta); // else all says for how many, in one line
    const note = isKnown ? greeks : `${delta[0]}; ${greeks.replace("known for ", "")}`;
    return [`$ delta ${sums.currency ?? ""}`, isKnown ? delta[0] : DASH, "large lean", [delta[2], "theta a day, vega a point of volatility"].filter(Boolean).join("; "), note];
  });
}

// The margin over the day, beside its number; on pages without a feed there is none.
function drawTrends() {
  const boxes = document.querySelectorAll("#numbers .margin");
  figures.accounts.forEach(({ account }, n) => {
    const points = (figures.margins?.[account] ?? []).map(([at, value]) => [Date.parse(at), value]);
    drawTrend(boxes[n], points, "margin of the day");
  });
}

function accountFacts(account) {
  const { today } = account;
  const [name, values, profits] = wordsOf(account);
  return [
    profitFact(`${name}open`, today.open, today.reasons.open, today.open_unknown),
    profitFact("closed today", today.closed, today.reasons.closed, today.closed_unknown),
    profitFact("fees and cash", today.cash, today.reasons.cash),
    profitFact("not explained", today.unexplained, today.reasons.unexplained + movedHint(account)),
    profitFact("unrealised", account.unrealised, profits),
    profitFact("realised today", account.realised_today, profits),
    profitFact("total", account.total, "unrealised and realised today"),
    ["excess liquidity", cents(account.excess_liquidity), "", values],
    ["maintenance margin", cents(account.maintenance_margin), "", values],
  ];
}

function profitFact(label, value, hint, unknown) {
  const [text, style, partial] = moneyInCents(value, unknown);
  return [label, text, style, [partial, hint].filter(Boolean).join("; ")];
}

function stateFacts() {
  const newest = figures.changes[0];
  return [
    ["lines", figures.lines ?? DASH],
    [figures.mode ?? "mode", clock(figures.time), "", "the moment of these figures"],
    ["last change", newest ? `${clock(newest.at)} ${local(newest.text)}` : DASH, "wide", newest?.text],
  ];
}

// --- The title of the tab ------------------------------------------------------------------------

// The number and the state come first: a tab shows little more.
function tabTitle() {
  const profits = figures.accounts.map((account) => cents(account.today.account));
  return `${profits.join(" ")} · ${worstState()} · ${title}`;
}

function worstState() {
  if (isPast()) return `AS OF ${clock(figures.time)}`;
  if (areLost() || figures.trouble) return "NO FIGURES";
  const away = figures.gateways.find((login) => login.state !== LIVE);
  if (away) return away.state ?? "NOT CONNECTED";
  if (figures.limits.some((limit) => limit.state === "BROKEN")) return "LIMIT";
  return areRefused() ? "LINES MISSING" : LIVE;
}
