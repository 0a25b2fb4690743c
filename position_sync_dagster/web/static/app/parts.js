// The parts of the holdings: what a strategy has of a leg, or what none has; by key, by name of column.

import { since } from "./clock.js";
import { figures } from "./figures.js";

export const parts = new Map();

// Take the rows of a message; return the parts that are new or changed.
export function takeParts(message) {
  if (message.all) parts.clear();
  for (const key of message.gone ?? []) parts.delete(key);
  return message.rows.map((values) => {
    const part = Object.fromEntries(figures.columns.map((name, n) => [name, values[n]]));
    parts.set(part.key, part);
    return part;
  });
}

// Ages move in steps, so that a grid at rest is not drawn anew each second.
export function ageOf(part) {
  const age = since(part.priced_at);
  if (age === null) return null;
  const step = age < 60 ? 1 : age < 600 ? 10 : 60;
  return Math.max(0, Math.floor(age / step) * step);
}

export const areSeveralCurrencies = () => new Set(figures.totals.map((total) => total.currency)).size > 1;
export const currencyOf = (sums) => (areSeveralCurrencies() ? ` ${sums.currency ?? ""}` : "");
