// The risk page: it asks `/api/v1` for what is chosen, and again while somebody looks.

import { ApiError, followHeader, getJson, pause, troubleOf } from "./api.js";
import { drawAssignments } from "./assignments_panel.js";
import { since } from "./clock.js";
import { quoted, showCommand } from "./commands.js";
import { drawClosedDay } from "./closed_day_panel.js";
import { byId, set, write } from "./elements.js";
import { figures } from "./figures.js";
import { clock, duration } from "./format.js";
import { drawHeader } from "./header.js";
import { SPOTS, VOLS, drawMatrix } from "./matrix_panel.js";
import { chosenLabel, drawPayoff, openPayoff } from "./payoff_panel.js";
import { drawRecorded } from "./recorded_panel.js";
import { choice, choose, chosen, chosenName, listNames, onChoice, openChoice, showChoice } from "./risk_choice.js";
import { keepScrollable } from "./scrolling.js";
import { openSearch } from "./search.js";
import { drawTrades, hasTrades, listStrategies, openTrades, showTradesError, tradesOfChoice } from "./trades_panel.js";

const EVERY_MS = 10000; // the server prices a book anew at most every 5 s
const SHARE = 12; // of a large book an answer takes long: it is asked for so much more seldom
const RECORDED_MS = 60000;
const CLOSED_DAY_MS = 600000;
const OLD_S = 60;
const SETTLE_MS = 120; // a slider is moved in steps: the last one is asked for
const SOON_DAYS = 7;
const MOST_DAYS = 365;

let pricedAt = null;
let trouble = null;
let asked = 0;
let recordedAt = -RECORDED_MS;
let closedDayAt = -CLOSED_DAY_MS;

// --- What is asked, and drawn ------------------------------------------------------------------------

async function drawChosen() {
  const number = ++asked;
  const day = { days: choice.days, vol: choice.vol };
  const grid = { spot: SPOTS.join(","), vol: choiceOfVols(), days: choice.days, level: "account" };
  const [before, matrix] = await Promise.all([getJson("curve", { ...chosen(), ...day }), getJson("what-if", { ...chosen(), ...grid })]);
  const after = hasTrades() ? await afterTrades(day) : null;
  if (number !== asked) return; // something else was chosen since

  pricedAt = before.at;
  showDays(before.curves);
  drawPayoff(before, after);
  drawMatrix(matrix.rows.map((row) => ({ ...row, vol: row.vol - choice.vol })));
}

// The rows of the matrix are around the chosen volatility.
const choiceOfVols = () => VOLS.map((vol) => vol + choice.vol).join(",");

async function afterTrades(day) {
  try {
    const [after] = await Promise.all([getJson("curve", { ...tradesOfChoice(), ...day }), drawTrades()]);
    return after;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    showTradesError(error.message);
    return null;
  }
}

async function drawWhole() {
  drawAssignments(await getJson("expiry", { days: SOON_DAYS }), SOON_DAYS, isChosen);
  if (performance.now() - recordedAt >= RECORDED_MS) {
    const recorded = await getJson("scenarios");
    drawRecorded(recorded);
    listStrategies([...new Set(recorded.rows.filter((row) => row.level === "strategy").map((row) => row.name))]);
    recordedAt = performance.now();
  }
  if (performance.now() - closedDayAt >= CLOSED_DAY_MS) {
    drawClosedDay(await getJson("closed-day"));
    closedDayAt = performance.now();
  }
}

const OWNERS = { strategy: "strategy_id", underlying: "symbol", account: "account" };
const isChosen = (row) => !choice.scope || row[OWNERS[choice.scope]] === choice.name;

async function attempt(act) {
  trouble = await troubleOf(act);
  drawAges();
}

// --- The fields --------------------------------------------------------------------------------------

function openSliders() {
  for (const name of ["days", "vol"]) {
    byId(name).addEventListener("input", (event) => choose({ [name]: Number(event.target.value) }));
  }
}

function showDays(curves) {
  const moments = curves.map((curve) => curve.last_expiry).filter(Boolean).map(Date.parse);
  const last = Math.ceil((Math.max(...moments, 0) - Date.now()) / 86400000);
  set(byId("days"), "max", String(Math.min(MOST_DAYS, Math.max(30, last))));
}

function showFields() {
  showChoice();
  byId("days").value = choice.days;
  byId("vol").value = choice.vol;
  write(byId("chosen-day"), chosenLabel());
  write(byId("payoff-title"), `Profit over the price: ${chosenName()}`);
  const scope = choice.scope && `--${choice.scope} ${quoted(choice.name)}`;
  showCommand(byId("payoff-command"), "curve", scope, choice.days && `--days ${choice.days}`, choice.vol && `--vol ${choice.vol}`);
}

// --- Ages --------------------------------------------------------------------------------------------

function drawAges() {
  const age = since(pricedAt);
  write(byId("computed"), pricedAt ? `priced ${duration(age)} ago` : "");
  const old = age > OLD_S ? [`These curves were computed at ${clock(pricedAt)}, ${duration(age)} ago.`] : [];
  if (figures.at || trouble) drawHeader([...old, ...(trouble ? [trouble] : [])]);
}

// --- The beginning -----------------------------------------------------------------------------------

let waiting = null;
onChoice(() => {
  showFields();
  clearTimeout(waiting);
  waiting = setTimeout(() => attempt(() => Promise.all([drawChosen(), drawWhole(), hasTrades() ? null : drawTrades()])), SETTLE_MS);
});

async function follow() {
  for (;;) {
    const began = performance.now();
    if (!document.hidden) await attempt(() => Promise.all([drawChosen(), drawWhole(), listNames()]));
    await pause(Math.max(EVERY_MS, SHARE * (performance.now() - began)));
  }
}

openSearch();
openPayoff();
openSliders();
openTrades();
showFields();
setInterval(() => {
  drawAges();
  keepScrollable();
}, 1000);
followHeader();
openChoice().catch((error) => console.warn(String(error))).then(follow);
