// The panel of holdings: the grid of Perspective where it is installed, else a plain table; its tools.

import { COLUMN_SETS, GROUPS, SOON_DAYS } from "./columns.js";
import { byId, button, element, set, show } from "./elements.js";
import { figures } from "./figures.js";
import { showHintsAgain } from "./header.js";
import { HoldingsTable } from "./holdings_table.js";
import { openLeg } from "./leg_panel.js";
import { parts } from "./parts.js";

const VIEW = "money.holdings"; // "table": somebody prefers the plain table
const HAS_GRID = Boolean(document.documentElement.dataset.perspective);
let view = null; // once it is there; the figures go on meanwhile
let opening = false;

const isGrid = () => HAS_GRID && localStorage.getItem(VIEW) !== "table";

export async function openHoldings() {
  if (view || opening || !parts.size) return;
  opening = true;
  if (isGrid()) show(byId("holdings-note"), "Loading the grid …");
  byId("grid").hidden = !isGrid();
  byId("plain").hidden = isGrid();
  try {
    view = isGrid() ? await openGrid() : new HoldingsTable(byId("plain"), openLeg);
  } catch (error) {
    console.warn(String(error));
  }
  opening = false;
  show(byId("holdings-note"), view ? "" : "The grid could not be loaded. The plain table shows the same.");
  drawTools();
}

// The grid is imported only where it is shown.
async function openGrid() {
  const { HoldingsGrid } = await import("./holdings_grid.js");
  return HoldingsGrid.open(byId("grid"), openLeg);
}

export const updateHoldings = (changed, message) => view?.update(changed, message);
export const tickHoldings = () => view?.tick();

export function only(column, ...values) {
  show(byId("holdings-note"), column ? `Only ${column}: ${values.slice(0, 5).join(", ")}` : "");
  return view?.only(column, values);
}

// --- Tools ---------------------------------------------------------------------------------------

function drawTools() {
  const groups = Object.keys(GROUPS).map((name) => chooser(name, () => view?.group(name), "group"));
  const sets = Object.keys(COLUMN_SETS).map((name) => chooser(name, () => view?.columns(name), "set"));
  byId("tools").replaceChildren(
    ...groups,
    button(`Expires ≤ ${SOON_DAYS} d`, onlySoon),
    button("All", () => only(null), "Remove the filters"),
    element("span", "", { class: "space" }),
    ...sets,
    ...(view?.edit ? [button("Columns", () => view.edit(), "Columns, filters, sorting, charts")] : []),
    ...(HAS_GRID ? [button(isGrid() ? "Plain table" : "Grid", swapView)] : []),
    button("CSV", () => location.assign("/api/v1/positions.csv"), "Every position, as a file"),
    button("Reset", reset, "The layout of the beginning, and the hints"),
  );
  markChosen();
}

function chooser(name, act, kind) {
  const choose = () => {
    act();
    markChosen();
  };
  return Object.assign(button(name, choose), { kind });
}

function markChosen() {
  const chosen = { group: view?.group_name, set: view?.set_name };
  for (const node of byId("tools").querySelectorAll("button")) {
    if (node.kind) set(node, "aria-pressed", String(node.textContent === chosen[node.kind]));
  }
}

export function onlySoon() {
  const days = figures.expiries.filter((sums) => sums.days <= SOON_DAYS).map((sums) => sums.expiry);
  if (days.length) only("expiry", ...days);
  else show(byId("holdings-note"), `Nothing that is held expires within ${SOON_DAYS} days.`);
}

function reset() {
  showHintsAgain();
  only(null);
  view?.reset();
  markChosen();
}

function swapView() {
  localStorage.setItem(VIEW, isGrid() ? "table" : "grid");
  location.reload(); // the grid holds an engine of its own, which ends with the page
}
