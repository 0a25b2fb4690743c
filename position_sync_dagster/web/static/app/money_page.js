// The money page: its feed, and its panels, each in a module of its own.

import { pause } from "./api.js";
import { setClock } from "./clock.js";
import { figures, takeFigures } from "./figures.js";
import { drawHeader } from "./header.js";
import { drawChanges, openChanges } from "./changes_panel.js";
import { drawCurves } from "./curves.js";
import { drawDecisions } from "./decisions_panel.js";
import { openLeg, openLegPanel } from "./leg_panel.js";
import { drawLosses, drawWhy, openWhy } from "./losses_panel.js";
import { drawMoment, isLive, openMoment } from "./moment.js";
import { openSearch } from "./search.js";
import { only, openHoldings, tickHoldings, updateHoldings } from "./holdings_panel.js";
import { takeParts } from "./parts.js";
import { drawScenarios } from "./scenarios_panel.js";

const WAIT_MS = 30000;
const PANELS = [drawDecisions, drawLosses, drawWhy, drawScenarios, drawChanges];
let sequence = 0;

// What is off the screen is drawn when it comes back; the title of the tab goes on.
function draw() {
  if (drawHeader() && !document.hidden) for (const panel of PANELS) panel();
}

// Between two answers only ages move.
const tick = () => drawHeader() && !document.hidden && tickHoldings();

function take(message) {
  takeFigures(message.figures);
  takeParts(message);
  updateHoldings();
  draw();
  if ("curves" in message.figures) drawCurves();
  drawMoment();
}

// What comes while a past moment is shown is read again on the way back. What is no change of the newest
// answer is not taken: then all is asked for.
function takeNewer(message) {
  const isNext = message.all || message.sequence === sequence + 1;
  sequence = isNext ? message.sequence : 0;
  if (isNext && isLive()) take(message);
}

function takeMoment(message) {
  sequence = message.sequence || sequence; // a past moment has none
  take(message);
}

// The server answers when there is something new.
async function follow() {
  for (;;) {
    try {
      const answer = await fetch(`/money/data?after=${sequence}`, { signal: AbortSignal.timeout(WAIT_MS) });
      setClock(answer);
      if (answer.status === 200) takeNewer(await answer.json());
      else if (answer.status !== 204) throw new Error(`the server answers ${answer.status}`);
      openHoldings();
      openAddress();
    } catch (error) {
      console.warn(String(error));
      await pause(2000);
    }
  }
}

// What the address names is shown once there are holdings: a strategy, an underlying or a leg.
let address = "";
function openAddress() {
  if (address === location.search || !figures.at) return;
  address = location.search;
  const query = new URLSearchParams(address);
  for (const column of ["strategy", "underlying"]) if (query.has(column)) only(column, query.get(column));
  const [account, conid] = query.get("leg")?.split(":") ?? [];
  if (conid) openLeg({ account, conid, name: `${account}:${conid}` });
}
addEventListener("address", openAddress);

openChanges();
openLegPanel();
openSearch();
openWhy();
openMoment(takeMoment);
setInterval(tick, 1000);
addEventListener("visibilitychange", draw);
addEventListener("resize", () => figures.curves && drawCurves());
follow();
