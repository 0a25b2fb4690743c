// What the results page shows: since when, by what, in which currency, and which campaign or day is open.
// The address of the page says it.

import { byId, listOptions } from "./elements.js";

const NAMES = ["since", "by", "currency", "campaign", "day"];
const query = new URLSearchParams(location.search);

export const choice = Object.fromEntries(NAMES.map((name) => [name, query.get(name)]));
choice.by ??= "strategy";

const listeners = [];
export const onChoice = (act) => listeners.push(act);

export function choose(changes) {
  Object.assign(choice, changes);
  const shown = new URLSearchParams(Object.entries(choice).filter(([, value]) => value));
  history.replaceState(null, "", `?${shown}`);
  for (const act of listeners) act(changes);
}

export function openFields() {
  byId("by").value = choice.by;
  byId("since").value = choice.since ?? "";
  for (const name of ["by", "since", "currency"]) {
    byId(name).addEventListener("change", (event) => choose({ [name]: event.target.value || null }));
  }
  for (const name of ["campaign", "day"]) {
    byId(`close-${name}`).addEventListener("click", () => choose({ [name]: null }));
  }
}

// The currencies of the days; the one with most days is shown first.
export function listCurrencies(days) {
  const counts = new Map();
  for (const { currency } of days) counts.set(currency ?? "", (counts.get(currency ?? "") ?? 0) + 1);
  const names = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a));
  if (!names.includes(choice.currency ?? "")) choice.currency = names[0] || null;

  const field = byId("currency");
  listOptions(field, names.map((name) => [name, name || "–"]));
  field.value = choice.currency ?? "";
  field.parentElement.hidden = names.length < 2;
}

export const ofCurrency = (days) => days.filter((day) => (day.currency ?? "") === (choice.currency ?? ""));
