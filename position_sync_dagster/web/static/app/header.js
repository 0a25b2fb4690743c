// The header of every page: accounts, the state of logins, how old all is; and what needs attention.

import { since } from "./clock.js";
import { withCommands } from "./commands.js";
import { byId, button, element, facts, show } from "./elements.js";
import { areLost, figures, older } from "./figures.js";
import { DASH, amount, clock, duration, isUnknown, local, percent } from "./format.js";
import { money } from "./table.js";

const LIVE = "LIVE";
const LITTLE_CUSHION = 0.1;
const HINTS = "money.hints"; // "never": hints are dismissed for good
const title = document.title;

// Draw the header, and grey the page while its values are from before; return whether there are figures.
export function drawHeader(notices = []) {
  if (!figures.at) {
    show(byId("notice"), figures.trouble ?? "Reading the tables …");
    return false;
  }
  const blind = figures.gateways.filter((login) => login.state !== LIVE);
  const areAllBlind = blind.length === figures.gateways.length;
  document.body.classList.toggle("aged", areLost() || Boolean(figures.trouble) || areAllBlind);

  const hints = figures.hints ?? [];
  const attention = figures.attention.filter((text) => !hints.includes(text));
  const missing = figures.without_line ? [figures.without_line] : [];
  say(byId("alert"), [...alerts(blind), ...(areRefused() ? missing : [])], areRefused() ? reasons() : []);
  say(byId("notice"), [...attention, ...(areRefused() ? [] : missing), ...notices]);
  drawHints(hints);
  facts(byId("accounts"), figures.accounts.flatMap(accountFacts));
  facts(byId("state"), stateFacts(blind));
  document.title = tabTitle();
  return true;
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

function drawHints(hints) {
  const box = byId("hints");
  box.hidden = !hints.length || localStorage.getItem(HINTS) === "never";
  if (box.hidden || box.dataset.text === hints.join("\n")) return;

  box.dataset.text = hints.join("\n");
  const dismiss = () => {
    localStorage.setItem(HINTS, "never");
    drawHints(hints);
  };
  const text = element("span");
  text.append(...withCommands(box.dataset.text));
  box.replaceChildren(text, button("Do not show again", dismiss));
}

export const showHintsAgain = () => localStorage.removeItem(HINTS);

// --- Facts ---------------------------------------------------------------------------------------

function accountFacts(account) {
  const { today } = account;
  const name = figures.accounts.length > 1 ? `${account.account} ` : "";
  const currency = account.currency ? ` ${account.currency}` : "";
  const values = `received ${duration(older(account.age_s))} ago`;
  const profits = `the account's own number, received ${duration(older(today.age_s))} ago`;
  const margins = `${amount(account.initial_margin)} / ${amount(account.maintenance_margin)}`;
  const isTight = !isUnknown(account.cushion) && account.cushion < LITTLE_CUSHION;
  return [
    profitFact(`${name}today${currency}`, today.account, "large", profits),
    [`${name}net liquidation`, amount(account.net_liquidation), "large", values],
    profitFact("open", today.open, "", today.reasons.open, today.open_unknown),
    profitFact("closed today", today.closed, "", today.reasons.closed, today.closed_unknown),
    profitFact("fees and cash", today.cash, "", today.reasons.cash),
    profitFact("not explained", today.unexplained, "", today.reasons.unexplained),
    profitFact("unrealised", account.unrealised, "", profits),
    profitFact("realised today", account.realised_today, "", profits),
    profitFact("total", account.total, "", "unrealised and realised today"),
    ["available", amount(account.available_funds), "", values],
    ["excess liquidity", amount(account.excess_liquidity), "", values],
    ["margin initial / maintenance", margins, "", values],
    ["cushion", percent(account.cushion), isTight ? "down" : "", values],
  ];
}

function profitFact(label, value, size, hint, unknown) {
  const [text, style, partial] = money(value, unknown);
  return [label, text, `${size} ${style}`.trim(), [partial, hint].filter(Boolean).join("; ")];
}

function stateFacts(blind) {
  const states = figures.gateways.map((login) => `${login.state ?? "none"} ${duration(since(login.since))}`);
  const names = figures.gateways.map((login) => login.gateway_id).join(", ");
  const areAllCurrent = figures.current === figures.held;
  const newest = figures.changes[0];
  return [
    ["gateway", states.join(", "), blind.length ? "down" : "up", names],
    ["current legs", `${figures.current} of ${figures.held}`, areAllCurrent ? "" : "down"],
    ["oldest price", duration(older(figures.oldest_age_s))],
    ["lines", figures.lines ?? DASH],
    [figures.mode ?? "mode", clock(figures.time), "", "the moment of these figures"],
    ["last change", newest ? `${clock(newest.at)} ${local(newest.text)}` : DASH, "wide", newest?.text],
  ];
}

// --- The title of the tab ------------------------------------------------------------------------

// The number and the state come first: a tab shows little more.
function tabTitle() {
  const profits = figures.accounts.map((account) => amount(account.today.account));
  return `${profits.join(" ")} · ${worstState()} · ${title}`;
}

function worstState() {
  if (areLost() || figures.trouble) return "NO FIGURES";
  const away = figures.gateways.find((login) => login.state !== LIVE);
  if (away) return away.state ?? "NOT CONNECTED";
  if (figures.limits.some((limit) => limit.state === "BROKEN")) return "LIMIT";
  return areRefused() ? "LINES MISSING" : LIVE;
}
