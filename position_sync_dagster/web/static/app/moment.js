// A past moment of the day: all panels show what was known then, until somebody returns to live.

import { now, setClock } from "./clock.js";
import { byId, element } from "./elements.js";
import { figures, isPast } from "./figures.js";
import { clock } from "./format.js";
import { money } from "./table.js";

const STILL_MS = 150; // a slider that stays so long has stopped
let chosen = null; // in milliseconds; null: live
let timer = 0;
let events = []; // when something happened on the live day, the first one first
let take = () => {};

export const isLive = () => chosen === null;

export function openMoment(takeFigures) {
  take = takeFigures;
  byId("moment").addEventListener("input", () => choose(1000 * byId("moment").value));
  byId("moment").addEventListener("keydown", (event) => stepBy({ PageUp: 1, PageDown: -1 }[event.key], event));
  byId("event-before").addEventListener("click", () => step(-1));
  byId("event-after").addEventListener("click", () => step(1));
  byId("live").addEventListener("click", () => choose(null));
}

// The slider goes from the first value of the day to now; trades, closes and outages are its marks.
export function drawMoment() {
  if (isPast() || !isLive()) return;
  const slider = byId("moment");
  const first = Math.min(...figures.curves.flatMap((curve) => curve.points.slice(0, 1)).map(([at]) => Date.parse(at)), figures.time);
  slider.min = Math.ceil(first / 1000);
  slider.max = Math.floor(figures.time / 1000);
  slider.value = slider.max;
  events = figures.changes.map((change) => Date.parse(change.at)).filter((at) => at >= first).sort((a, b) => a - b);
  byId("events").replaceChildren(...events.map((at) => element("option", undefined, { value: String(Math.ceil(at / 1000)) })));
}

function stepBy(direction, event) {
  if (!direction) return;
  event.preventDefault();
  step(direction);
}

// The figures of an event have it: a whole second later, since a slider has whole seconds.
function step(direction) {
  const at = chosen ?? now();
  const times = events.map((time) => 1000 * Math.ceil(time / 1000 + 1));
  const next = direction > 0 ? times.find((time) => time > at) : times.findLast((time) => time < at);
  if (next) choose(next);
}

// While the slider moves the curves say what each account had earned; where it stops all is read.
function choose(at) {
  chosen = at;
  clearTimeout(timer);
  if (at !== null) {
    byId("moment").value = Math.floor(at / 1000);
    byId("moment-text").textContent = `${clock(at)} ${earned(at)} …`;
  }
  timer = setTimeout(load, at === null ? 0 : STILL_MS, at);
}

function earned(at) {
  const accounts = figures.curves.filter((curve) => curve.is_account);
  return accounts.map(({ points }) => money(points.findLast(([time]) => Date.parse(time) <= at)?.[1] ?? null)[0]).join(" ");
}

async function load(at) {
  const query = at === null ? "after=0" : `at=${new Date(at).toISOString()}`;
  try {
    const answer = await fetch(`/money/data?${query}`);
    const message = await answer.json();
    if (chosen !== at) return;
    if (answer.status !== 200) throw new Error(message.detail);
    setClock(answer);
    frame(at);
    take(message);
  } catch (error) {
    if (chosen === at) byId("moment-text").textContent = error.message;
  }
}

function frame(at) {
  const text = at === null ? "live" : `as of ${clock(at)}`;
  document.body.classList.toggle("past", at !== null);
  document.body.style.setProperty("--as-of", JSON.stringify(` ${text}`));
  byId("moment-text").textContent = text;
  byId("live").hidden = at === null;
}
