// What needs a decision, what is urgent first: the reason, and the next step. Then what expires by itself.

import { NARROW, byId, element, writeName } from "./elements.js";
import { figures, isPast } from "./figures.js";
import { local, whole } from "./format.js";
import { only } from "./holdings_panel.js";
import { openedLines, fill } from "./table.js";

const HEADINGS = ["what", "at stake", "why", "next step"];
const WIDE = matchMedia("(min-width: 1300px)"); // where the panel has a height of its own
const MOST_CALM = 3;
const TAIL = 24; // characters of the end of a reason
const MORE_PX = 30; // the line that opens the others
let fitting = { key: "", count: 0 };

export function drawDecisions() {
  const { decisions, scenarios } = figures;
  const none = decisions ? (scenarios.trouble ?? `Nothing: no limit is ${figures.limits.length ? "broken" : "set"}, and no expiry or assignment needs anything.`) : "Not computed yet.";
  const needed = (decisions ?? []).filter(({ step }) => step);
  drawNeeded(needed, needed.length && mostShown(needed), none);

  const calm = (decisions ?? []).filter(({ step }) => !step);
  byId("calm").hidden = !calm.length;
  const calmLine = (decision) => ({ act: actOf(decision), cells: cellsOf(decision, decision.reason) });
  fill(byId("calm-table"), [], openedLines("calm", calm, MOST_CALM, calmLine, 3, drawDecisions));

  const box = byId("decisions").querySelector(".body");
  box.classList.add("roomy"); // a reason is whole where all of them have room
  box.classList.toggle("roomy", box.scrollHeight <= box.clientHeight);
}

function drawNeeded(needed, most, none) {
  fill(byId("decisions-table"), HEADINGS, openedLines("decisions", needed, most, lineOf, HEADINGS.length, drawDecisions), none);
}

// Nothing is folded while there is room; on a phone what stands below must be on the screen too.
function mostShown(needed) {
  if (NARROW.matches) return 2;
  if (!WIDE.matches) return 8;

  const box = byId("decisions").querySelector(".body");
  const key = `${JSON.stringify(needed)} ${box.clientWidth} ${box.clientHeight}`;
  if (key === fitting.key) return fitting.count;

  box.classList.remove("roomy");
  drawNeeded(needed, needed.length);
  const bottoms = [...byId("decisions-table").tBodies[0].rows].map((row) => row.getBoundingClientRect().bottom + box.scrollTop);
  const { bottom } = box.getBoundingClientRect();
  const count = bottoms.at(-1) <= bottom ? needed.length : bottoms.filter((at) => at <= bottom - MORE_PX).length;
  fitting = { key, count: Math.max(1, count) };
  return fitting.count;
}

function lineOf(decision) {
  const { kind, reason, is_urgent: isUrgent } = decision;
  return {
    kind: isUrgent ? "hurts" : "soon",
    act: actOf(decision),
    cells: [...cellsOf(decision, `${kind}: ${reason}`), stepOf(decision)],
  };
}

const actOf = ({ strategy, name }) => (strategy ? () => only("strategy", strategy) : () => only("account", name));

function cellsOf({ name, at_stake: atStake, currency }, text) {
  const hint = `what these legs lose if prices move 5 % to their worse side, ${currency ?? ""}`;
  return [name, [whole(atStake), "", hint], lineCell(local(text), "text reason")];
}

// A text of one line, which is cut in its middle where there is no room for it.
function lineCell(text, style) {
  const line = element("span", "", { class: "line" });
  writeName(line, text, TAIL);
  return { key: text, class: style, nodes: () => [line] };
}

// A strategy can be closed or rolled on the risk page, which shows the book before and after; not in the past.
function stepOf({ strategy, step }) {
  const text = `${step[0].toUpperCase()}${step.slice(1)}`;
  const href = `/money/risk?${new URLSearchParams({ strategy })}`;
  return { key: `${strategy} ${step} ${isPast()}`, class: "step", nodes: () => [strategy && !isPast() ? element("a", text, { href, title: text }) : element("span", text, { title: text })] };
}
