// What changed today, the newest first; what came since somebody last looked is marked.

import { byId, element } from "./elements.js";
import { figures } from "./figures.js";
import { clock } from "./format.js";
import { only } from "./holdings_panel.js";
import { fill, money } from "./table.js";

const KINDS = ["all", "TRADE", "CLOSE", "QUANTITY", "GATEWAY", "BREAK"];

export function openChanges() {
  const options = KINDS.map((kind) => element("option", kind.toLowerCase(), { value: kind }));
  byId("kind").replaceChildren(...options);
  byId("kind").addEventListener("change", drawChanges);
}

export function drawChanges() {
  const kind = byId("kind").value;
  const lines = figures.changes.filter((change) => kind === "all" || change.kind === kind).map(line);
  const none = { cells: [["Nothing of this kind has happened today.", "text"]] };
  fill(byId("changes-table"), [], lines.length ? lines : [none]);
}

function line(change) {
  return {
    kind: change.kind.toLowerCase(),
    hint: change.text,
    act: change.conids.length ? () => only("conid", ...change.conids) : null,
    cells: [clock(change.at), [change.text, "text"], change.amount === null ? "" : money(change.amount)],
  };
}
