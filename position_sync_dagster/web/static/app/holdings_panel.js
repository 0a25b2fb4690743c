// The panel of holdings: one table, and the tools that group, filter and sort it.

import { COLUMN_SETS, GROUPS } from "./columns.js";
import { byId, button, element, set, show } from "./elements.js";
import { figures, isPast } from "./figures.js";
import { showHintsAgain } from "./header.js";
import { HoldingsTable } from "./holdings_table.js";
import { openLeg } from "./leg_panel.js";
import { parts } from "./parts.js";

let view = null; // once there are holdings

export function openHoldings() {
  if (view || !parts.size) return;
  view = new HoldingsTable(byId("book"), openLeg);
  drawTools();
  showFilter();
}

export function updateHoldings() {
  view?.draw();
  show(byId("missing"), figures.missing.join("\n"));
}

export const tickHoldings = () => view?.drawRows();

export function only(column, ...values) {
  view?.only(column, values);
  showFilter();
}

function showFilter() {
  const { column, values } = view?.filter ?? {};
  show(byId("holdings-note"), column ? `Only ${column}: ${values.slice(0, 5).join(", ")}` : "");
}

// --- Tools ---------------------------------------------------------------------------------------

function drawTools() {
  const groups = GROUPS.map((name) => chooser(name, () => view.group(name), "group"));
  const sets = Object.keys(COLUMN_SETS).map((name) => chooser(name, () => view.columns(name), "set"));
  const words = element("input", undefined, { type: "search", placeholder: "Filter legs", "aria-label": "Filter legs by words" });
  words.addEventListener("input", () => view.matching(words.value));
  byId("tools").replaceChildren(
    ...groups,
    words,
    button("All", showAll, "Remove the filters"),
    element("span", "", { class: "space" }),
    ...sets,
    button("CSV", () => location.assign(`/api/v1/positions.csv${isPast() ? `?at=${encodeURIComponent(figures.at)}` : ""}`), "Every position, as a file"),
    button("Reset", reset, "The layout of the beginning, and the hints"),
  );
  markChosen();

  function showAll() {
    words.value = "";
    view.matching("");
    only(null);
  }

  function reset() {
    showHintsAgain();
    showAll();
    view.reset();
    markChosen();
  }
}

function chooser(name, act, kind) {
  const choose = () => {
    act();
    markChosen();
  };
  return Object.assign(button(name, choose), { kind });
}

function markChosen() {
  const chosen = { group: view.groupName, set: view.setName };
  for (const node of byId("tools").querySelectorAll("button")) {
    if (node.kind) set(node, "aria-pressed", String(node.textContent === chosen[node.kind]));
  }
}
