// What changed today, the newest first; what came since somebody last looked is marked as new.

import { byId, show } from "./elements.js";
import { figures } from "./figures.js";
import { clock, local } from "./format.js";
import { only } from "./holdings_panel.js";
import { accountOf } from "./parts.js";
import { fill, money, openedLines } from "./table.js";

const MOST = 5;
const LOOKED = "money.looked_at";
let lookedAt = Number(localStorage.getItem(LOOKED)) || null; // when somebody last saw the page

export function openChanges() {
  byId("kind").addEventListener("change", drawChanges);
  byId("looked").addEventListener("click", () => look(figures.time));
  addEventListener("visibilitychange", noteLook);
  addEventListener("pagehide", noteLook);
}

// Who leaves the page has seen what was on it.
function noteLook() {
  if (document.hidden && figures.time) localStorage.setItem(LOOKED, String(figures.time));
  else lookedAt = Number(localStorage.getItem(LOOKED)) || lookedAt;
}

function look(at) {
  lookedAt = at;
  localStorage.setItem(LOOKED, String(at));
  drawChanges();
}

const isNew = (change) => lookedAt !== null && Date.parse(change.at) > lookedAt;

export function drawChanges() {
  const kind = byId("kind").value;
  const chosen = figures.changes.filter((change) => kind === "all" || change.kind === kind);
  const lines = openedLines("changes", chosen, MOST, line, 3, drawChanges);
  fill(byId("changes-table"), [], lines, "Nothing of this kind has happened on this day.");

  const count = figures.changes.filter(isNew).length;
  show(byId("looked"), count ? `${count} new since I looked (${clock(lookedAt).slice(0, 5)})` : "");
}

function line(change) {
  const text = local(change.text);
  const mark = isNew(change) ? " new" : "";
  return {
    kind: change.kind.toLowerCase() + mark,
    hint: text,
    act: change.conids.length ? () => only("conid", ...change.conids) : null,
    cells: [clock(change.at) + mark, [text + accountOf(change), "text"], change.amount === null ? "" : money(change.amount)],
  };
}
