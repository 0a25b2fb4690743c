// What the risk page shows: a strategy, an underlying or an account, a day, a change of the
// volatilities, and trades that somebody thinks of. The address of the page says it.

import { getJson } from "./api.js";
import { byId, element } from "./elements.js";

const SCOPES = ["strategy", "underlying", "account"];
const TITLES = { account: "Account", underlying: "Underlying", strategy: "Strategy" };
const query = new URLSearchParams(location.search);

export const choice = {
  scope: SCOPES.find((scope) => query.has(scope)) ?? null,
  name: SCOPES.map((scope) => query.get(scope)).find(Boolean) ?? null,
  days: Number(query.get("days")) || 0,
  vol: Number(query.get("vol")) || 0,
  trades: {},
};

// The parameters of `/api/v1` that choose the legs.
export const chosen = ({ scope, name } = choice) => (scope ? { [scope]: name } : {});
export const hasTrades = ({ trades } = choice) => Object.keys(trades).length > 0;

const listeners = [];
export const onChoice = (act) => listeners.push(act);

export function choose(changes) {
  Object.assign(choice, changes);
  const shown = new URLSearchParams({ ...chosen(), ...(choice.days && { days: choice.days }), ...(choice.vol && { vol: choice.vol }) });
  history.replaceState(null, "", shown.size ? `?${shown}` : location.pathname);
  for (const act of listeners) act(changes);
}

// --- The field -------------------------------------------------------------------------------------

export function openChoice() {
  byId("scope").addEventListener("change", ({ target }) => {
    const [scope, name] = target.value ? JSON.parse(target.value) : [null, null];
    choose({ scope, name });
  });
}

// Only what is not there yet is added: the field keeps the focus and its choice.
export async function listNames() {
  const [sums, accounts] = await Promise.all([getJson("strategies"), getJson("accounts")]);
  const names = {
    account: accounts.accounts.map((row) => row.account),
    strategy: sums.strategies.map((row) => row.strategy),
    underlying: sums.underlyings.map((row) => row.symbol),
  };
  const field = byId("scope");
  const listed = JSON.stringify(names);
  if (field.dataset.listed === listed) return;

  field.dataset.listed = listed;
  field.replaceChildren(element("option", "Everything"), ...Object.keys(names).map((scope) => group(scope, names[scope])));
  field.firstElementChild.value = "";
  if (choice.scope && !names[choice.scope].includes(choice.name)) field.append(option(choice.scope, choice.name));
  showChoice();
}

function group(scope, names) {
  const box = element("optgroup", undefined, { label: TITLES[scope] });
  box.append(...[...new Set(names.filter(Boolean))].map((name) => option(scope, name)));
  return box;
}

function option(scope, name) {
  const node = element("option", name);
  node.value = valueOf(scope, name);
  return node;
}

const valueOf = (scope, name) => JSON.stringify([scope, name]);

export function showChoice() {
  byId("scope").value = choice.scope ? valueOf(choice.scope, choice.name) : "";
}
