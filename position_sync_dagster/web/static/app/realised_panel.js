// The curve of what campaigns realised, day by day.

import { Chart } from "./chart.js";
import { byId, write } from "./elements.js";
import { choice, ofCurrency } from "./results_choice.js";

let chart = null;

const secondsOf = (day) => Date.parse(`${day}T12:00Z`) / 1000;
const localDayOf = (seconds) => new Date(1000 * seconds).toLocaleDateString("sv-SE"); // its marks are at midnight here
const dayOf = (seconds) => new Date(1000 * seconds).toISOString().slice(0, 10);

export function drawRealised(answer) {
  const days = ofCurrency(answer.days);
  write(byId("realised-none"), days.length ? "" : "Nothing was realised yet.");
  byId("realised-chart").hidden = !days.length;
  if (!days.length) return;

  chart ??= new Chart(byId("realised-chart"));
  chart.draw({
    name: "Realised profit",
    x: { label: "day", values: days.map(({ day }) => secondsOf(day)), format: dayOf, axis: localDayOf, isTime: true },
    unit: `realised, ${choice.currency ?? ""}`,
    lines: [
      { label: "realised since the first day", values: days.map((day) => day.total), look: "strong", isStepped: true },
      { label: "below its highest", values: days.map((day) => (day.drawdown === null ? null : -day.drawdown)), look: "faint", isStepped: true },
    ],
    height: 240,
  });
}
