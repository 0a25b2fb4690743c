// The panel of holdings: the grid of Perspective where it is installed, and the tools above it.

import { byId, button, element, show } from "./elements.js";
import { figures } from "./figures.js";
import { COLUMN_SETS, GROUPS, SOON_DAYS } from "./columns.js";
import { HoldingsGrid } from "./holdings_grid.js";
import { showHintsAgain } from "./header.js";
import { openLeg } from "./leg_panel.js";
import { parts } from "./parts.js";

let view = null; // once it is there; the figures go on meanwhile
let opening = null;

export function openHoldings() {
  if (opening || !parts.size) return;
  if (!document.documentElement.dataset.perspective) {
    show(byId("holdings-note"), "The grid is not installed: pip install 'position-sync-dagster[money]'.");
    return;
  }
  drawTools();
  opening = HoldingsGrid.open(byId("grid"), openLeg).then(
    (opened) => (view = opened),
    (error) => {
      console.warn(String(error));
      opening = null;
    },
  );
}

export const updateHoldings = (changed, message) => view?.update(changed, message);
export const tickHoldings = () => view?.tick();
export const only = (column, ...values) => view?.only(column, values);

function drawTools() {
  if (byId("tools").firstElementChild) return;
  byId("tools").replaceChildren(
    ...Object.keys(GROUPS).map((name) => button(name, () => view?.group(name))),
    button(`Expires ≤ ${SOON_DAYS} d`, onlySoon),
    button("All", () => only(null), "Remove the filters"),
    element("span", "", { class: "space" }),
    ...Object.keys(COLUMN_SETS).map((name) => button(name, () => view?.columns(name), `Columns: ${COLUMN_SETS[name].join(", ")}`)),
    button("Columns", () => view?.edit(), "Columns, filters, sorting, charts"),
    button("CSV", () => location.assign("/api/v1/positions.csv"), "Every position, as a file"),
    button("Reset", reset, "The layout of the beginning, and the hints"),
  );
}

function onlySoon() {
  const days = figures.expiries.filter((sum) => sum.days <= SOON_DAYS).map((sum) => sum.expiry);
  show(byId("holdings-note"), days.length ? "" : `Nothing that is held expires within ${SOON_DAYS} days.`);
  if (days.length) only("expiry", ...days);
}

function reset() {
  showHintsAgain();
  view?.reset();
}
