// A leg that somebody opened: where its value comes from.

import { byId, element } from "./elements.js";
import { figures } from "./figures.js";
import { clock } from "./format.js";

export function openLeg(part) {
  const box = byId("row");
  box.hidden = !part;
  if (!part) return;
  const text = `${part.name} · ${part.strategy} · ${part.account} · conid ${part.conid} · ${part.source} of ${clock(part.written_at)} · `;
  const link = (label, address) => (figures.dagster ? element("a", label, { href: address }) : element("span", label));
  const run = part.run_id ? link(`run ${part.run_id.slice(0, 8)}`, `/runs/${encodeURIComponent(part.run_id)}`) : "no run";
  const history = `position-sync history ${part.account}:${part.conid}${figures.home ? ` --home ${figures.home}` : ""}`;
  box.replaceChildren(
    text, run, " · ", link("ledger", "/assets/position_updates"), " · ", link("strategy_exposure", "/assets/strategy_exposure"),
    " · history: ", element("code", history),
  );
}
