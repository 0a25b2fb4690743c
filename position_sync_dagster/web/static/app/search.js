// The search box of all pages: strategies, underlyings and legs by any words of their names. A match
// is opened on the money page; on the page of risk a strategy is opened there.

import { getJson } from "./api.js";
import { byId, element, set } from "./elements.js";

const WAIT_MS = 150; // after the last key
let matches = [];
let found = ""; // the text that they match
let isEntered = false; // the first match is opened once the box's text is found
let active = -1;
let timer = null;

export function openSearch() {
  const box = byId("find");
  box.addEventListener("input", () => {
    isEntered = false;
    clearTimeout(timer);
    timer = setTimeout(look, WAIT_MS);
  });
  box.addEventListener("keydown", key);
  box.addEventListener("blur", () => setTimeout(close, WAIT_MS));
  addEventListener("keydown", (event) => {
    const isTyping = event.target.closest?.("input, select, textarea, [contenteditable]");
    if (event.key !== "/" || isTyping) return;
    box.focus();
    event.preventDefault();
  });
}

const wanted = () => byId("find").value.trim();

async function look() {
  const text = wanted();
  try {
    const answer = text ? await getJson("search", { text }) : { matches: [], more: 0 };
    if (text !== wanted()) return;
    draw(answer, text);
    if (isEntered && matches.length) choose(matches[0]);
  } catch (error) {
    if (text !== wanted()) return;
    drawNote(error.message);
    if (error.retryMs) timer = setTimeout(look, error.retryMs);
  }
}

function draw(answer, text) {
  ({ matches } = answer);
  found = text;
  active = matches.length ? 0 : -1;
  const options = matches.map((match, n) => {
    const node = element("li", undefined, { role: "option", id: `match-${n}` });
    node.append(element("span", match.name), element("small", [match.kind, match.account].filter(Boolean).join(" ")));
    node.addEventListener("mousedown", () => choose(match));
    return node;
  });
  byId("matches").replaceChildren(...options);
  byId("said").textContent = text ? `${matches.length} matches` : "";
  open(options.length > 0);
  if (text && !options.length) drawNote("Nothing has this name.");
}

function drawNote(text) {
  byId("matches").replaceChildren(element("li", text, { role: "option", "aria-disabled": "true" }));
  open(true);
}

function open(isOpen) {
  byId("matches").hidden = !isOpen;
  set(byId("find"), "aria-expanded", String(isOpen));
  mark();
}

const close = () => draw({ matches: [] }, "");

function mark() {
  [...byId("matches").children].forEach((node, n) => set(node, "aria-selected", String(n === active)));
  set(byId("find"), "aria-activedescendant", active < 0 ? "" : `match-${active}`);
}

function key(event) {
  const last = matches.length - 1;
  const next = { ArrowDown: Math.min(last, active + 1), ArrowUp: Math.max(0, active - 1) }[event.key];
  if (event.key === "Escape") close();
  else if (event.key === "Enter") enter();
  else if (next !== undefined) active = next;
  else return;
  mark();
  event.preventDefault();
}

// Open the marked match, if it is of the text in the box, or its first match once there is an answer.
function enter() {
  if (found !== wanted()) isEntered = true;
  else if (matches[active]) choose(matches[active]);
}

// Go to where a match is shown: pages read their address, so a link to a leg can be kept.
function choose(match) {
  const isRisk = location.pathname === "/money/risk" && match.kind === "strategy";
  const query = match.kind === "leg" ? { leg: `${match.account}:${match.conid}` } : { [match.kind]: match.name };
  const address = `${isRisk ? "/money/risk" : "/money"}?${new URLSearchParams(query)}`;
  isEntered = false;
  byId("find").value = "";
  byId("find").blur();
  close();
  if (!isRisk && location.pathname === "/money") {
    history.replaceState(null, "", address);
    dispatchEvent(new CustomEvent("address"));
  } else location.assign(address);
}
