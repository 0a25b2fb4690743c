// Tables of figures. A line is { cells, kind, act, hint }; a cell is a text, [text, class, hint], or
// { key, nodes, class } whose nodes are made anew for a new key alone: they keep the focus. A line with
// `act` has a button in its first cell. The buttons of a table are one stop of the tab key; the arrow
// keys move between them.

import { DASH, cents, isUnknown, sign, whole } from "./format.js";
import { figures, isPast } from "./figures.js";
import { element, fit, set, write, writeName } from "./elements.js";

// A star marks a sum that leaves out holdings, and its hint says how many; where those that are known
// do not carry the sum, the server sends none, and the text says of how many it is known.
// Overviews have whole units, details cents.
export function plainMoney(value, unknown, of, textOf = whole) {
  const hint = unknown ? `leaves out ${unknown} of which it is not known` : "";
  if (unknown && isUnknown(value)) return [knownFor(of - unknown, of), "", hint];
  return [textOf(value) + (unknown ? "*" : ""), "", hint];
}

export const knownFor = (known, of) => (known > 0 ? `known for ${known} of ${of}` : DASH);

export function money(value, unknown, of, textOf = whole) {
  const [text, , hint] = plainMoney(value, unknown, of, textOf);
  return [text, /[1-9]/.test(text) ? sign(value) : "", hint]; // what is shown as nothing is no loss
}

export const moneyInCents = (value, unknown, of) => money(value, unknown, of, cents);

// The cell of a sum by its name in the figures.
export function sumOf(sums, name) {
  const [text, style, hint] = money(sums[name], sums.unknown[name], sums.of[name]);
  return [isUnknown(sums[name]) ? text : before(sums) + text, style, [hint, beforeHint(sums)].filter(Boolean).join("; ")];
}

// The mark of a sum of a past moment that is not what was shown then; its hint is the server's text.
export const before = (sums) => (isPast() && sums.not_kept ? "≈" : "");
export const beforeHint = (sums) => (before(sums) ? figures.missing.at(-1) : "");

// Fill a table; where there are no lines, a text stands in its place.
export function fill(table, headings, lines, none) {
  const [head, body] = parts(table);
  const shown = lines.length || !none ? lines : [{ cells: [[none, "text"]] }];
  fillHead(head, shown === lines ? headings : []);
  fit(body, shown.length, "tr").forEach((row, n) => fillRow(row, shown[n]));
  keepOneStop(table, body);
}

function parts(table) {
  if (!table.tHead) table.append(element("thead"), element("tbody"));
  return [table.tHead, table.tBodies[0]];
}

function fillHead(head, headings) {
  const rows = fit(head, headings.length ? 1 : 0, "tr");
  if (!rows.length) return;
  fit(rows[0], headings.length, "th").forEach((cell, n) => {
    set(cell, "scope", "col");
    write(cell, headings[n]);
  });
}

function fillRow(row, { cells, kind, act, hint }) {
  set(row, "class", [kind, act && "act"].filter(Boolean).join(" "));
  set(row, "title", hint);
  row.onclick = act ?? null;
  fit(row, cells.length, "td").forEach((cell, n) => {
    if (cells[n].nodes) return fillNodes(cell, cells[n]);
    const [text, style, hintOfCell] = Array.isArray(cells[n]) ? cells[n] : [cells[n]];
    set(cell, "class", style);
    set(cell, "title", hintOfCell);
    if (act && n === 0) writeButton(cell, String(text));
    else writeText(cell, String(text));
  });
}

function fillNodes(cell, { key, nodes, class: style }) {
  set(cell, "class", style);
  if (cell.dataset.key === key) return;
  cell.dataset.key = key;
  cell.replaceChildren(...nodes());
}

function writeText(cell, text) {
  if (cell.firstElementChild) cell.replaceChildren();
  delete cell.dataset.key;
  write(cell, text);
}

// Write a name into the button of a cell.
export function writeButton(cell, text) {
  if (cell.firstElementChild?.tagName !== "BUTTON") cell.replaceChildren(element("button", "", { type: "button", tabindex: "-1" }));
  writeName(cell.firstElementChild, text);
  return cell.firstElementChild;
}

const STOP = "button[tabindex]";

function keepOneStop(table, body) {
  const stops = [...body.querySelectorAll(STOP)];
  if (stops.length && !stops.some((stop) => stop.tabIndex === 0)) stops[0].tabIndex = 0;
  table.onkeydown ??= (event) => moveStop(event, body);
}

function moveStop(event, body) {
  const stops = [...body.querySelectorAll(STOP)];
  const at = stops.indexOf(event.target);
  const last = stops.length - 1;
  const next = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: last }[event.key];
  if (at < 0 || next === undefined || next < 0 || next > last) return;
  stops[at].tabIndex = -1;
  stops[next].tabIndex = 0;
  stops[next].focus();
  event.preventDefault();
}

// Rows of scenarios, those first that lose most in one of them.
export function byWorst(rows) {
  const worst = new Map(rows.map((row) => [row, Math.min(...row.profits.map((value) => value ?? Infinity))]));
  return [...rows].sort((a, b) => worst.get(a) - worst.get(b));
}

// A long table shows its beginning, and more of it each time somebody asks: what is below must stay on
// the screen, and of 2,000 rows only those that are shown become lines.
const MORE = 200;
const opened = new Map(); // how many rows are shown besides, by table

export function openedLines(name, rows, most, lineOf, columns, redraw) {
  const count = most + (opened.get(name) ?? 0);
  const hidden = rows.length - count;
  if (hidden <= 1) return rows.map(lineOf);

  const act = () => {
    opened.set(name, count - most + MORE);
    redraw();
  };
  const blanks = Array(columns - 1).fill("");
  return [...rows.slice(0, count).map(lineOf), { kind: "more", act, cells: [`… and ${hidden} more`, ...blanks] }];
}
