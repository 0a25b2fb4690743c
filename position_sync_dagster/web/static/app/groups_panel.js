// The results of groups of campaigns that are over.

import { showCommand } from "./commands.js";
import { byId } from "./elements.js";
import { percent, rounded, whole } from "./format.js";
import { choice } from "./results_choice.js";
import { openedLines, fill, money } from "./table.js";

const HEADINGS = ["currency", "number", "win rate", "profit", "fees", "average win", "average loss", "expectancy", "profit factor", "return", "drawdown", "wins were down", "not known"];
const NONE = "No campaign is over, as far as the tables know. Materialize the asset closed_campaigns.";
let newest = null;

export function drawGroups(answer) {
  newest = answer;
  showCommand(byId("groups-command"), "results", `--by ${choice.by}`, choice.since && `--since ${choice.since}`);
  const inBase = answer.in_base.map((row) => ({ ...row, currency: `all in ${row.currency ?? "base currency"}` }));
  const rows = [...answer.results, ...inBase];
  const lines = openedLines("groups", rows, 16, lineOf, HEADINGS.length + 1, () => drawGroups(newest));
  fill(byId("groups-table"), [choice.by, ...HEADINGS], lines, NONE);
}

function lineOf(row) {
  return {
    cells: [
      ...[row.group ?? "not named", row.currency ?? "–", whole(row.number), percent(row.win_rate), money(row.profit)],
      ...[row.fees, row.average_win, row.average_loss].map((value) => money(value)[0]),
      money(row.expectancy),
      rounded(row.profit_factor, 2),
      percent(row.return),
      money(row.drawdown)[0],
      [whole(row.median_worst_of_wins), "", `The middle one of ${whole(row.wins_with_days)} of ${whole(row.wins)}; at most ${whole(row.worst_of_wins)}`],
      [row.why_unknown ?? "", "text"],
    ],
  };
}
