// The profit of each day of a month, or what was realised on it; a click opens a day.

import { byId, element, fit, set, write } from "./elements.js";
import { cents, isUnknown, sign, whole } from "./format.js";
import { choose, ofCurrency } from "./results_choice.js";

const DAY_MS = 86400000;
const WEEKDAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const STRONGEST = 25; // percent of the colour of the day with the largest amount
const COLUMNS = { profit: "profit of the day", realised: "realised by campaigns" };

let days = [];
let month = null; // such as "2026-10"

export function openCalendar() {
  byId("of-day").addEventListener("change", draw);
  byId("earlier").addEventListener("click", () => move(-1));
  byId("later").addEventListener("click", () => move(1));
}

export function drawCalendar(answer) {
  days = ofCurrency(answer.days);
  const last = days.at(-1)?.day.slice(0, 7) ?? null;
  if (!days.some((day) => day.day.startsWith(month ?? "-"))) month = last;
  draw();
}

function move(step) {
  const months = [...new Set(days.map((day) => day.day.slice(0, 7)))];
  month = months[months.indexOf(month) + step] ?? month;
  draw();
}

function draw() {
  const column = byId("of-day").value;
  const table = byId("calendar-table");
  const shown = days.filter((day) => day.day.startsWith(month ?? "-"));
  byId("earlier").disabled = !month || month === days[0].day.slice(0, 7);
  byId("later").disabled = !month || month === days.at(-1).day.slice(0, 7);
  write(byId("month"), month ? monthText(month) : "");
  write(byId("calendar-none"), month ? "" : "No day is recorded yet.");
  table.hidden = !month;
  if (month) drawMonth(table, new Map(shown.map((day) => [day.day, day])), column);
}

const monthText = (text) => new Date(`${text}-01T12:00Z`).toLocaleDateString("en-GB", { month: "long", year: "numeric", timeZone: "UTC" });

function drawMonth(table, byDay, column) {
  write(table.caption, `${COLUMNS[column]}, ${monthText(month)}`);
  const [head] = fit(table.tHead, 1, "tr");
  const columns = hasWeekend(byDay) ? 7 : 5;
  fit(head, columns + 1, "th").forEach((cell, n) => {
    set(cell, "scope", "col");
    write(cell, WEEKDAYS.slice(0, columns)[n] ?? "week");
  });

  const weeks = weeksOf(month).filter((week) => week.slice(0, columns).some(Boolean));
  const largest = Math.max(1, ...[...byDay.values()].map((day) => Math.abs(day[column] ?? 0)));
  fit(table.tBodies[0], weeks.length, "tr").forEach((line, n) => drawWeek(line, weeks[n].slice(0, columns), byDay, column, largest));
}

const hasWeekend = (byDay) => [...byDay.keys()].some((day) => [0, 6].includes(new Date(`${day}T12:00Z`).getUTCDay()));

// The days of each week of a month; null where a day is of another month.
function weeksOf(text) {
  const first = Date.parse(`${text}-01T12:00Z`);
  const start = first - ((new Date(first).getUTCDay() + 6) % 7) * DAY_MS;
  const weeks = [];
  for (let monday = start; dayText(monday) < `${text}-32`; monday += 7 * DAY_MS) {
    const week = WEEKDAYS.map((_name, n) => dayText(monday + n * DAY_MS));
    weeks.push(week.map((day) => (day.startsWith(text) ? day : null)));
  }
  return weeks;
}

const dayText = (time) => new Date(time).toISOString().slice(0, 10);

function drawWeek(line, week, byDay, column, largest) {
  fit(line, week.length + 1, "td");
  week.forEach((day, n) => drawDay(line.children[n], day, byDay.get(day), column, largest));
  const recorded = week.map((day) => byDay.get(day)).filter(Boolean);
  const isKnown = recorded.every((day) => !isUnknown(day[column]));
  const sum = isKnown && recorded.length ? recorded.reduce((total, day) => total + day[column], 0) : null;
  drawCell(line.lastElementChild, "", recorded.length ? whole(sum) : "", sign(sum), "the sum of the week", 0);
}

function drawDay(cell, day, result, column, largest) {
  if (!day) return drawCell(cell, "", "", "", "", 0);
  cell.onclick = result ? () => choose({ day }) : null;
  const value = result?.[column];
  const strength = isUnknown(value) ? 0 : (STRONGEST * Math.abs(value)) / largest;
  const text = result ? whole(value) : "";
  const hint = result ? `${day}: profit ${cents(result.profit)}, realised ${cents(result.realised)} by ${whole(result.campaigns)} campaigns` : "";
  return drawCell(cell, String(Number(day.slice(8))), text, sign(value), hint, strength, result ? "button" : "b");
}

function drawCell(cell, number, text, style, hint, strength, tag = "b") {
  if (cell.lastElementChild?.localName !== tag) {
    cell.replaceChildren(element("span", undefined, { class: "dim" }), element(tag, "", tag === "button" ? { type: "button" } : {}));
  }
  write(cell.firstElementChild, number);
  write(cell.lastElementChild, text);
  set(cell, "class", style);
  set(cell, "title", hint);
  cell.style.setProperty("--strength", `${strength.toFixed(0)}%`);
}
