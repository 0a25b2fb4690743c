// The columns of the holdings, and the sets of them that a person chooses.

import { percent, price } from "./format.js";

// Name: [column of the server, its decimals or what writes it]; without these a text.
export const COLUMNS = {
  strategy: ["strategy"],
  underlying: ["symbol"],
  expiry: ["expiry"],
  value: ["market_value", 0],
  today: ["daily_pnl", 0],
  unrealised: ["unrealized_pnl", 0],
  realised: [null, 0],
  "since first leg": [null, 0],
  "cost per share": [null, price],
  reached: [null, percent],
  qty: ["quantity"],
  price: ["market_price", price],
  "$ delta": ["dollar_delta", 0],
  "β $ delta": [null, 0],
  "$ gamma 1%": ["gamma_1pct", 0],
  delta: ["delta", 1],
  theta: ["theta", 1],
  vega: ["vega", 1],
  IV: ["implied_vol", percent],
  "no value": ["unvalued", 0],
  "no greeks": ["greekless", 0],
  age: [null],
  source: ["source"],
  account: ["account"],
  conid: ["conid"],
  bid: ["bid", price],
  ask: ["ask", price],
  "average cost": ["average_cost", price],
  days: ["days", 0],
  moneyness: ["moneyness", percent],
  extrinsic: ["extrinsic", 2],
};

export const COLUMN_SETS = {
  Money: ["value", "today", "unrealised", "realised", "since first leg", "reached", "cost per share", "qty", "price", "days", "age"],
  Greeks: ["$ delta", "β $ delta", "$ gamma 1%", "delta", "theta", "vega", "IV", "moneyness", "extrinsic", "days", "no greeks"],
  Evidence: ["value", "price", "average cost", "bid", "ask", "age", "source", "no value", "account", "conid"],
};

export const SOON_DAYS = 7;
