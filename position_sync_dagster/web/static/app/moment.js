// A moment of this day or of a past one: all panels show what was known then, until somebody returns to live.

import { reasonOf, requireAnswer } from "./api.js";
import { now, setClock } from "./clock.js";
import { drawCurves } from "./curves.js";
import { byId, element, listOptions, set, write } from "./elements.js";
import { figures, isPast } from "./figures.js";
import { clock } from "./format.js";
import { drawOrLog } from "./panel.js";

const STILL_MS = 150; // a slider that stays so long has stopped
const AGAIN_MS = 2000; // after an answer that did not come on the way back to live
let chosen = null; // in milliseconds; null: live
let shown = { at: null, day: "" }; // what the panels show
let timer = 0;
let events = []; // when something happened on the day, the first one first
let take = () => {};

// A moment that cannot be read leaves what is shown, and the feed goes on.
export const isLive = () => shown.at === null;

export function openMoment(takeFigures) {
  take = takeFigures;
  byId("moment").addEventListener("input", () => choose(1000 * byId("moment").value));
  byId("moment").addEventListener("keydown", (event) => ["PageUp", "PageDown"].includes(event.key) && stepByKey(event));
  byId("event-before").addEventListener("click", () => step(-1));
  byId("event-after").addEventListener("click", () => step(1));
  byId("live").addEventListener("click", () => choose(null));
  byId("past-day").addEventListener("change", () => chooseDay(byId("past-day").value));
}

export function drawMoment() {
  drawDays();
  if (!isPast() && chosen === null) drawDay();
}

// Only days of which there are values can be chosen; the present one is live.
function drawDays() {
  const days = figures.days.map((day) => [day, day]);
  listOptions(byId("past-day"), [["", "today"], ...days.reverse()]);
}

// The slider goes from the first value of the day to the newest; what changed are its marks.
function drawDay() {
  const slider = byId("moment");
  const first = Math.min(...Object.values(figures.curves).flatMap((points) => points.slice(0, 1)).map(([at]) => Date.parse(at)), figures.time);
  slider.min = Math.ceil(first / 1000);
  slider.max = Math.floor(figures.time / 1000);
  slider.value = slider.max;
  events = figures.changes.map((change) => Date.parse(change.at)).filter((at) => at >= first).sort((a, b) => a - b);
  byId("events").replaceChildren(...events.map((at) => element("option", undefined, { value: String(Math.ceil(at / 1000)) })));
}

function stepByKey(event) {
  event.preventDefault();
  step(event.key === "PageUp" ? 1 : -1);
}

// The figures of an event have it: a whole second later, since a slider has whole seconds.
function step(direction) {
  const at = chosen ?? now();
  const times = events.map((time) => 1000 * Math.ceil(time / 1000 + 1));
  const next = direction > 0 ? times.find((time) => time > at) : times.findLast((time) => time < at);
  if (next) choose(next);
}

// A past day is shown as it was at its end; today is live.
function chooseDay(day) {
  const end = new Date(`${day}T23:59:59`).getTime();
  if (!day || end >= now()) choose(null);
  else {
    chosen = end;
    say(`${day} …`);
    load(end, "&curves=true");
  }
}

// While the slider moves the curves say what each had earned; where it stops all is read.
function choose(at) {
  chosen = at;
  clearTimeout(timer);
  if (at === null) byId("past-day").value = "";
  else {
    byId("moment").value = Math.floor(at / 1000);
    say(`${clock(at)} …`);
    drawCurves(at);
  }
  timer = setTimeout(load, at === null ? 0 : STILL_MS, at);
}

async function load(at, more = "") {
  const query = at === null ? "after=0" : `at=${new Date(at).toISOString()}${more}`;
  try {
    const answer = await fetch(`/money/data?${query}`);
    const message = await answer.json();
    if (chosen !== at) return;
    requireAnswer(answer, message);
    setClock(answer);
    const isOlder = at === null && isLive(); // the feed has newer figures
    frame(at);
    if (isOlder) return;
    drawOrLog(() => {
      take(message);
      if (more) drawDay();
    });
  } catch (error) {
    if (chosen === at) refuse(error, at, more);
  }
}

// That it is live is seen by the button, and heard by who does not see it.
function say(text) {
  write(byId("moment-text"), text);
  set(byId("moment-text"), "class", text === "live" ? "unseen" : "");
}

function refuse(error, at, more) {
  say(reasonOf(error));
  const again = error.retryMs ?? (at === null ? AGAIN_MS : 0);
  if (again) timer = setTimeout(load, again, at, more);
  else {
    chosen = shown.at;
    byId("past-day").value = shown.day;
    if (chosen !== null) byId("moment").value = Math.floor(chosen / 1000);
  }
}

function frame(at) {
  const text = at === null ? "live" : ["as of", byId("past-day").value, clock(at)].filter(Boolean).join(" ");
  document.body.classList.toggle("past", at !== null);
  document.body.style.setProperty("--as-of", JSON.stringify(` ${text}`));
  say(text);
  set(byId("live"), "aria-pressed", String(at === null));
  shown = { at, day: byId("past-day").value };
}
