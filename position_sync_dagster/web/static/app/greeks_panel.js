// Greeks by underlying; with betas also of all.

import { byId } from "./elements.js";
import { figures } from "./figures.js";
import { only } from "./holdings_panel.js";
import { currencyOf } from "./parts.js";
import { fill, sumOf } from "./table.js";

const NAMES = { "$ delta": "dollar_delta", "β $ delta": "beta_delta", "$ gamma 1%": "gamma_1pct", theta: "theta", vega: "vega" };

export function drawGreeks() {
  const haveBetas = figures.underlyings.some((sums) => sums.beta_delta !== null);
  const columns = Object.keys(NAMES).filter((name) => haveBetas || NAMES[name] !== "beta_delta");
  fill(byId("underlyings"), ["underlying", ...columns, "known"], [
    ...figures.underlyings.map((sums) => line(sums, sums.underlying, columns, () => only("underlying", sums.underlying))),
    ...figures.totals.map((sums) => line(sums, sums.total, columns)),
  ]);
}

function line(sums, name, columns, act) {
  const greeks = columns.map((column) => sumOf(sums, NAMES[column]));
  const known = [`${sums.options_with_greeks}/${sums.options}`, "", "options whose greeks are known"];
  return { kind: act ? "" : "total", act, cells: [name + currencyOf(sums), ...greeks, known] };
}
