// What needs a decision, what has most at stake first: the reason, and the next step.

import { byId, element } from "./elements.js";
import { figures } from "./figures.js";
import { local, whole } from "./format.js";
import { only } from "./holdings_panel.js";
import { openedLines, fill } from "./table.js";

const HEADINGS = ["what", "at stake", "why", "next step"];
const NARROW = matchMedia("(max-width: 699px)");
const mostShown = () => (NARROW.matches ? 2 : 4); // what stands below must be on a phone's screen too

export function drawDecisions() {
  const table = byId("decisions-table");
  const { decisions, scenarios } = figures;
  const none = decisions ? (scenarios.trouble ?? "Nothing: no limit is broken, and nothing expires this week or may be assigned.") : "Not computed yet.";
  const shown = openedLines("decisions", decisions ?? [], mostShown(), lineOf, HEADINGS.length, drawDecisions);
  fill(table, shown.length ? HEADINGS : [], shown.length ? shown : [{ cells: [[none, "text"]] }]);
  shown.forEach((line, n) => line.decision && drawStep(table.tBodies[0].rows[n].cells[3], line.decision));
}

function lineOf(decision) {
  const { strategy, name, at_stake: atStake, currency } = decision;
  return {
    decision,
    kind: decision.is_urgent ? "hurts" : "soon",
    act: strategy ? () => only("strategy", strategy) : () => only("account", name),
    cells: [
      name,
      [whole(atStake), "", `what all of it loses if prices move 5 % to its worse side, ${currency ?? ""}`],
      [`${decision.kind}: ${local(decision.reason)}`, "text reason"],
      null,
    ],
  };
}

// A strategy can be closed or rolled on the risk page, which shows the book before and after.
function drawStep(cell, { strategy, step }) {
  const key = `${strategy} ${step}`;
  if (cell.dataset.key === key) return;
  cell.dataset.key = key;
  cell.className = "step";
  const text = `${step[0].toUpperCase()}${step.slice(1)}`;
  cell.replaceChildren(strategy ? element("a", text, { href: `/money/risk?${new URLSearchParams({ strategy })}` }) : text);
}
