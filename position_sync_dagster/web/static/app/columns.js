// The columns of the holdings, and the sets of them that a person chooses.

// Name: [column of the server, type, aggregate of a group, least decimals, most decimals]. A group shows
// what all its parts have in common ("unique"), and nothing where they differ.
export const COLUMNS = {
  key: ["key", "string", "count"],
  strategy: ["strategy", "string", "unique"],
  underlying: ["symbol", "string", "unique"],
  expiry: ["expiry", "string", "unique"],
  leg: ["name", "string", "unique"],
  value: ["market_value", "float", "sum", 0],
  today: ["daily_pnl", "float", "sum", 0],
  unrealised: ["unrealized_pnl", "float", "sum", 0],
  qty: ["quantity", "float", "unique", 0, 4],
  price: ["market_price", "float", "unique", 2],
  "$ delta": ["dollar_delta", "float", "sum", 0],
  "$ gamma 1%": ["gamma_1pct", "float", "sum", 0],
  delta: ["delta", "float", "sum", 1],
  theta: ["theta", "float", "sum", 1],
  vega: ["vega", "float", "sum", 1],
  IV: ["implied_vol", "float", "unique", 3],
  notional: ["notional", "float", "sum", 0],
  "no value": ["unvalued", "integer", "sum"],
  "no greeks": ["greekless", "integer", "sum"],
  age: [null, "float", ["max by", ["age rank"]], 0],
  "age rank": [null, "float", "max", 0],
  source: ["source", "string", "unique"],
  currency: ["currency", "string", "unique"],
  account: ["account", "string", "unique"],
  conid: ["conid", "string", "unique"],
  right: ["right", "string", "unique"],
  strike: ["strike", "float", "unique", 2],
  type: ["sec_type", "string", "unique"],
  bid: ["bid", "float", "unique", 2],
  ask: ["ask", "float", "unique", 2],
  "average cost": ["average_cost", "float", "unique", 2],
  days: ["days", "integer", "unique"],
  moneyness: ["moneyness", "float", "unique", 3],
  extrinsic: ["extrinsic", "float", "unique", 2],
  "price of underlying": ["underlying_price", "float", "unique", 2],
};

export const SIGNED = new Set(["today", "unrealised"]);

// The sums that get a star where a part lacks its value; the server says which parts do.
const SUMMED = ["value", "today", "unrealised", "notional", "$ delta", "$ gamma 1%", "delta", "theta", "vega"];
export const STARRED = Object.fromEntries(SUMMED.map((name) => [name, COLUMNS[name][0]]));

export const COLUMN_SETS = {
  Money: ["value", "today", "unrealised", "qty", "price", "days", "$ delta", "theta", "age"],
  Greeks: ["$ delta", "$ gamma 1%", "delta", "theta", "vega", "IV", "moneyness", "extrinsic", "days", "no greeks"],
  Evidence: ["value", "price", "average cost", "bid", "ask", "age", "source", "no value", "account", "conid"],
};

// By what the holdings are grouped, outermost first; the last column names a leg.
export const GROUPS = {
  Strategies: ["strategy", "underlying", "expiry", "leg"],
  Underlyings: ["underlying", "expiry", "leg"],
  Expiries: ["expiry", "underlying", "leg"],
  Legs: ["leg"],
};

export const SOON_DAYS = 7;
