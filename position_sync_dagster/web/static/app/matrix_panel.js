// The change of the profit by moves of the price and of the volatilities, on the chosen day.

import { byId, element, fit, set, write } from "./elements.js";
import { isUnknown, rounded, sign } from "./format.js";
import { money } from "./table.js";

export const SPOTS = [-20, -10, -5, -2, 0, 2, 5, 10, 20];
export const VOLS = [10, 5, 0, -5, -10];
const STRONGEST = 25; // percent of the colour in the cell with the largest amount

// `name` is of what is chosen, if not of all.
export function drawMatrix(rows, name) {
  const groups = Map.groupBy(rows, (row) => `${row.account} ${row.currency}`);
  fit(byId("matrices"), groups.size, "div").forEach((box, n) => drawGroup(box, [name, [...groups.keys()][n]].filter(Boolean).join(" · "), [...groups.values()][n]));
  write(byId("matrix-none"), groups.size ? "" : "Nothing is held of it.");
}

function drawGroup(box, name, rows) {
  if (!box.firstElementChild) {
    const table = element("table", undefined, { class: "matrix" });
    table.append(element("caption"), element("thead"), element("tbody"));
    box.append(table);
  }
  const table = box.firstElementChild;
  write(table.caption, `${name}: volatility in points, and move of the price`);
  const [head] = fit(table.tHead, 1, "tr");
  fit(head, SPOTS.length + 1, "th").forEach((cell, n) => {
    set(cell, "scope", "col");
    write(cell, n ? `${signed(SPOTS[n - 1])} %` : "points");
  });

  const largest = Math.max(1, ...rows.map((row) => Math.abs(row.profit ?? 0)));
  fit(table.tBodies[0], VOLS.length, "tr").forEach((line, n) => drawLine(line, VOLS[n], rows, largest));
}

const signed = (value) => (value > 0 ? "+" : "") + rounded(value, 0);

function drawLine(line, vol, rows, largest) {
  if (line.firstElementChild?.tagName !== "TH") line.replaceChildren(element("th", undefined, { scope: "row" }));
  write(line.firstElementChild, signed(vol));
  while (line.children.length <= SPOTS.length) line.append(element("td"));
  SPOTS.forEach((spot, n) => drawCell(line.children[n + 1], rows.find((row) => row.spot === spot && row.vol === vol), largest));
}

function drawCell(cell, row, largest) {
  const [text, , hint] = money(row?.profit, row?.left_out, row?.of);
  write(cell, text);
  set(cell, "class", row ? sign(row.profit) : "");
  set(cell, "title", hint);
  const part = isUnknown(row?.profit) ? 0 : (STRONGEST * Math.abs(row.profit)) / largest;
  cell.style.setProperty("--strength", `${part.toFixed(0)}%`);
}
