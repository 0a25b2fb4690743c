// A leg that somebody opened: its values of today, the source and the age of each, its events, its trail.

import { copyButton } from "./commands.js";
import { byId, element, facts, show, write } from "./elements.js";
import { figures, isPast } from "./figures.js";
import { DASH, cents, clock, duration, local, price, rounded } from "./format.js";
import { Panel } from "./panel.js";
import { plot } from "./plot.js";
import { fill, moneyInCents } from "./table.js";

const MOST_LISTED = 40;
const EVERY_MS = 5000;
const panel = new Panel("leg");
let opened = null; // the account, the conid and the name

export function openLeg(part) {
  if (!part) return;
  const { account, conid, name } = part;
  opened = { account, conid, name };
  if (!byId("leg").open) byId("leg").showModal();
  ask();
}

function ask() {
  const { account, conid, name } = opened;
  const asked = { account, conid, at: isPast() ? figures.at : null };
  panel.show(asked, (get) => get("leg", asked), (answer) => draw(answer, { account, conid, name }));
}

export function openLegPanel() {
  byId("leg").addEventListener("close", () => (opened = null));
  setInterval(() => opened && !document.hidden && !isPast() && ask(), EVERY_MS);
}

function draw(answer, { account, conid, name }) {
  const older = answer.more ? "Today has older values: `history` lists them." : "";
  show(byId("leg-note"), answer.position ? older : "It is not held any more.");
  write(byId("leg-title"), answer.position?.name ?? name);
  byId("leg-facts").hidden = !answer.position;
  if (answer.position) drawFacts(answer.position);
  const points = answer.values.map((value) => [Date.parse(value.timestamp), value.market_value]);
  plot(byId("leg-curve"), [{ name: "value", look: "account", points }], "No value of today is known.", { zero: false });
  drawEvents(answer.changes);
  drawValues(answer.values);
  byId("leg-commands").replaceChildren("All values: ", copyButton(`history ${account}:${conid}`));
}

function drawFacts(position) {
  const shares = position.strategies.map((name, n) => `${name} ${rounded(100 * position.shares[n], 0)} %`);
  const priced = `${position.price_kind ?? DASH}, ${position.source}${position.feed ? `, ${position.feed}` : ""}`;
  const { greeks } = position;
  facts(byId("leg-facts"), [
    ["account", position.account],
    ["conid", String(position.conid)],
    ["quantity", rounded(position.position, 0)],
    ["price", price(position.market_price)],
    ["value", cents(position.market_value)],
    ["today", ...moneyInCents(position.today)],
    ["unrealised", ...moneyInCents(position.unrealized)],
    ["price from", priced],
    ["age of the price", duration(position.age_s), position.current ? "" : "down"],
    ["delta", rounded(greeks.delta, 3)],
    ["theta", rounded(greeks.theta, 3)],
    ["vega", rounded(greeks.vega, 3)],
    ["greeks from", `${position.greeks_source ?? DASH}, ${duration(position.greeks_age_s)} old`],
    ["strategies", shares.join(", ") || "none"],
  ]);
}

function drawEvents(changes) {
  const lines = changes.map((change) => ({
    cells: [clock(change.at), [local(change.text), "text"], change.amount === null ? "" : moneyInCents(change.amount)],
  }));
  fill(byId("leg-events"), [], lines, "Nothing has happened to it today.");
}

function drawValues(values) {
  const newest = values.slice(-MOST_LISTED).reverse();
  const lines = newest.map((value) => ({
    hint: value.note,
    cells: [
      ...[clock(value.timestamp), price(value.market_price), cents(value.market_value), moneyInCents(value.daily_pnl), rounded(value.delta, 3)],
      `${value.source}${value.value_source ? ` ${value.value_source}` : ""}`,
      value.value_time ? duration((Date.parse(value.timestamp) - Date.parse(value.value_time)) / 1000) : DASH,
      { key: value.update_id, nodes: () => trailOf(value) },
    ],
  }));
  fill(byId("leg-values"), ["written", "price", "value", "today", "delta", "source", "age then", "trail"], lines);
}

// The command that lists all that belongs to a row, and the run that wrote it.
function trailOf(value) {
  const trace = copyButton(`trace ${value.update_id}`);
  trace.firstChild.data = "trace";
  const hasRun = value.run_id && figures.dagster;
  return hasRun ? [trace, " ", element("a", "run", { href: `/runs/${encodeURIComponent(value.run_id)}` })] : [trace];
}
