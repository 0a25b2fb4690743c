// The risk page: it asks `/api/v1` for what is chosen, and again while somebody looks.

import { ApiError, follow, followHeader } from "./api.js";
import { drawAssignments } from "./assignments_panel.js";
import { since } from "./clock.js";
import { drawClosedDay } from "./closed_day_panel.js";
import { byId, set, write } from "./elements.js";
import { clock, duration } from "./format.js";
import { drawHeader } from "./header.js";
import { closeMarket, drawMarket, isOfMarket, readMarket } from "./market_panel.js";
import { SPOTS, VOLS, drawMatrix } from "./matrix_panel.js";
import { Panel } from "./panel.js";
import { chosenLabel, drawPayoff, openPayoff, shownCurve } from "./payoff_panel.js";
import { drawRecorded } from "./recorded_panel.js";
import { choice, choose, chosen, hasTrades, listNames, onChoice, openChoice, showChoice } from "./risk_choice.js";
import { keepScrollable } from "./scrolling.js";
import { openSearch } from "./search.js";
import { drawTrades, listStrategies, openTrades, tradesQuestion } from "./trades_panel.js";

const EVERY_MS = 10000; // the server prices a book anew at most every 5 s
const SHARE = 16; // of a large book an answer takes long: it is asked for so much more seldom
const RECORDED_MS = 60000; // and the names of what can be chosen
const CLOSED_DAY_MS = 600000;
const OLD_S = 60;
const SETTLE_MS = 120; // a slider is moved in steps: the curve follows each, the others the last one
const SOON_DAYS = 7;
const MOST_DAYS = 365;

const payoffs = new Panel("payoff", "greeks");
const market = new Panel("market");
const matrix = new Panel("matrix");
const trades = new Panel("what-if");
const assignments = new Panel("assignments");
const recorded = new Panel("recorded");
const closedDay = new Panel("explained", "books");
let pricedAt = null;

// --- What is asked, and drawn ------------------------------------------------------------------------

// All that depends on the choice; of `isDue` what it names.
function ask(isDue = () => true) {
  const asked = { ...choice };
  const asks = [[market, askMarket], [payoffs, askCurves], [matrix, askMatrix], [trades, askTrades], [assignments, askAssignments]];
  return Promise.all([
    ...asks.map(([panel, askOne]) => isDue(panel) && askOne(asked)),
    recorded.isOlderThan(RECORDED_MS) && recorded.show({}, (get) => get("scenarios"), drawScenarios),
    closedDay.isOlderThan(CLOSED_DAY_MS) && closedDay.show({}, (get) => get("closed-day"), drawClosedDay),
  ]);
}

// Only what somebody can see is asked for again, and what has no answer; the page says how old its curves are.
const askAgain = () => ask((panel) => panel === payoffs || panel.isSeen() || panel.isOlderThan(Infinity));
const askReturned = () => ask((panel) => panel.isSeen() && panel.isOlderThan(EVERY_MS));

function askTrades(asked) {
  const question = hasTrades(asked) ? tradesQuestion(asked) : null;
  return trades.show(question, (get) => question && get("what-if", question).catch(withoutTrades), (answer) => drawTrades(answer, question));
}

function askAssignments(asked) {
  return assignments.show(chosen(asked), (get) => get("expiry", { days: SOON_DAYS }), (answer) => drawAssignments(answer, SOON_DAYS, isOf(asked)));
}

function askCurves(asked) {
  const only = shownCurve();
  return payoffs.show({ ...asked, only }, (get) => readCurves(get, asked, only), ([before, after]) => drawCurves(before, after, asked));
}

// The account comes first; what is chosen of it has its own price.
function askMarket(asked) {
  byId("market").hidden = !isOfMarket(asked);
  if (!isOfMarket(asked)) return closeMarket();
  return market.show(asked, (get) => readMarket(get, asked, refused), (answers) => drawMarket(answers, asked));
}

// While a slider is dragged, one question follows the other: none is given up for the next one.
let isMoved = false;
let isFollowing = false;
async function followSlider() {
  isMoved = true;
  if (isFollowing) return;
  isFollowing = true;
  while (isMoved) {
    isMoved = false;
    await askCurves({ ...choice });
  }
  isFollowing = false;
}

// The curves before and after the trades. What is wrong with these stands beside their form.
function readCurves(get, { days, vol, ...asked }, only) {
  const before = get("curve", { ...chosen(asked), days, vol, only });
  const after = hasTrades(asked) && get("curve", { ...asked.trades, ...chosen(asked), days, vol, only }).catch(refused);
  return Promise.all([before, after]);
}

function refused(error) {
  if (!(error instanceof ApiError)) throw error;
  return null;
}

// Below a trade that is refused stands nothing of the one before.
function withoutTrades(error) {
  if (error instanceof ApiError) drawTrades(null);
  throw error;
}

function drawCurves(before, after, asked) {
  pricedAt = before.at;
  showDays(before.last_expiry);
  drawPayoff(before, after, asked);
}

// The rows of the matrix are around the chosen volatility.
function askMatrix({ days, vol, ...asked }) {
  const vols = VOLS.map((points) => vol + points);
  const question = { ...chosen(asked), spot: SPOTS.join(","), vol: vols.join(","), days, level: "account" };
  const draw = (answer) => drawMatrix(answer.rows.map((row) => ({ ...row, vol: row.vol - vol })), asked.name);
  return matrix.show(question, (get) => get("what-if", question), draw);
}

function drawScenarios(answer) {
  drawRecorded(answer);
  listStrategies([...new Set(answer.rows.filter((row) => row.level === "strategy").map((row) => row.name))]);
}

const OWNERS = { strategy: "strategy_id", underlying: "symbol", account: "account" };
const isOf = ({ scope, name }) => (row) => !scope || row[OWNERS[scope]] === name;

// --- The fields --------------------------------------------------------------------------------------

function openSliders() {
  for (const name of ["days", "vol"]) byId(name).addEventListener("input", () => choose({ [name]: byId(name).valueAsNumber }));
}

function showDays(expiry) {
  const last = expiry ? Math.ceil((Date.parse(expiry) - Date.now()) / 86400000) : 0;
  set(byId("days"), "max", String(Math.min(MOST_DAYS, Math.max(30, last))));
}

function showFields() {
  showChoice();
  byId("days").value = choice.days;
  byId("vol").value = choice.vol;
  write(byId("chosen-day"), chosenLabel(choice));
}

// --- Ages --------------------------------------------------------------------------------------------

function drawAges() {
  const age = since(pricedAt);
  write(byId("computed"), pricedAt ? `priced ${duration(age)} ago` : "");
  drawHeader(age > OLD_S ? [`These curves were computed at ${clock(pricedAt)}, ${duration(age)} ago.`] : []);
}

// --- The beginning -----------------------------------------------------------------------------------

let waiting, scrolled; // their timers
onChoice(({ days, vol }) => {
  showFields();
  clearTimeout(waiting);
  if (days === undefined && vol === undefined) return ask();
  followSlider();
  waiting = setTimeout(ask, SETTLE_MS);
});

openSearch();
openPayoff(() => askCurves({ ...choice }));
openSliders();
openTrades();
showFields();
setInterval(() => {
  drawAges();
  keepScrollable();
}, 1000);
followHeader();
openChoice();
follow(askAgain, EVERY_MS, SHARE);
follow(listNames, RECORDED_MS);
addEventListener("scroll", () => {
  clearTimeout(scrolled);
  scrolled = setTimeout(askReturned, SETTLE_MS);
});
