// The panel of holdings: one table, and the tools that group, filter and sort it.

import { byId, set, show } from "./elements.js";
import { figures, isPast } from "./figures.js";
import { showHintsAgain } from "./header.js";
import { HoldingsTable } from "./holdings_table.js";
import { openLeg } from "./leg_panel.js";
import { parts } from "./parts.js";

let view = null; // once there are holdings

export function openHoldings() {
  if (view || !parts.size) return;
  view = new HoldingsTable(byId("book"), openLeg);
  openTools();
  showFilter();
}

export function updateHoldings() {
  view?.draw();
  show(byId("missing"), figures.missing.join("\n"));
}

export const tickHoldings = () => view?.drawRows();

export function only(column, ...values) {
  view?.change({ filter: column ? { column, values: values.map(String) } : null });
  showFilter();
}

function showFilter() {
  const { column, values } = view?.settings.filter ?? {};
  show(byId("holdings-note"), column ? `Only ${column}: ${values.slice(0, 5).join(", ")}` : "");
}

// --- Tools ---------------------------------------------------------------------------------------

const choosers = () => [...byId("tools").querySelectorAll("button[name]")];

function openTools() {
  for (const node of choosers()) {
    node.addEventListener("click", () => choose({ [node.name]: node.textContent }));
  }
  byId("words").addEventListener("input", () => view.matching(byId("words").value));
  byId("all").addEventListener("click", showAll);
  byId("csv").addEventListener("click", () => location.assign(`/api/v1/positions.csv${isPast() ? `?at=${encodeURIComponent(figures.at)}` : ""}`));
  byId("reset").addEventListener("click", () => {
    showHintsAgain();
    showAll();
    view.reset();
    choose({});
  });
  choose({});
}

function showAll() {
  byId("words").value = "";
  view.matching("");
  only(null);
}

function choose(settings) {
  view.change(settings);
  for (const node of choosers()) set(node, "aria-pressed", String(node.textContent === view.settings[node.name]));
}
