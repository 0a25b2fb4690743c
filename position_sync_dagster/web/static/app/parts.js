// The parts of the holdings: what a strategy has of a leg, or what none has; by key, by name of column.

import { since } from "./clock.js";
import { figures } from "./figures.js";

export const parts = new Map();

export function takeParts(message) {
  if (message.all) parts.clear();
  for (const key of message.gone ?? []) parts.delete(key);
  for (const values of message.rows) {
    const part = Object.fromEntries(figures.columns.map((name, n) => [name, values[n]]));
    parts.set(part.key, part);
  }
}

export const ageOf = (part) => since(part.priced_at);

export const areSeveralCurrencies = () => new Set(figures.totals.map((total) => total.currency)).size > 1;
// What stands behind a name where there are several accounts.
export const accountOf = ({ account }) => (figures.accounts.length > 1 && account ? ` ${account}` : "");
export const currencyOf = (sums) => (areSeveralCurrencies() ? ` ${sums.currency ?? ""}` : "");
