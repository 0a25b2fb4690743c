// The results page: what campaigns that are over brought. It changes once a day: it is asked for seldom.

import { follow, followHeader } from "./api.js";
import { drawCalendar, openCalendar } from "./calendar_panel.js";
import { drawCampaign } from "./campaign_panel.js";
import { drawCampaigns, drawOpenCampaigns } from "./campaigns_panel.js";
import { drawCosts } from "./costs_panel.js";
import { drawDay } from "./day_panel.js";
import { byId } from "./elements.js";
import { drawGroups } from "./groups_panel.js";
import { drawHeader } from "./header.js";
import { Panel } from "./panel.js";
import { drawRealised } from "./realised_panel.js";
import { choice, listCurrencies, onChoice, openFields } from "./results_choice.js";
import { keepScrollable } from "./scrolling.js";
import { openSearch } from "./search.js";

const EVERY_MS = 300000;
const results = new Panel("groups", "calendar", "realised", "campaigns");
const opened = { campaign: new Panel("campaign"), day: new Panel("day") };
const costs = new Panel("returns", "costs");
const open = new Panel("open");

function ask() {
  const { since, by } = choice;
  const read = (get) => Promise.all([get("results", { since, by }), get("campaigns", { since })]);
  return results.show({ since, by }, read, drawAll);
}

function askCosts() {
  const { since } = choice;
  const read = (get) => Promise.all([get("returns", { since, by: "month" }), get("fills", { since, by: "strategy" })]);
  return costs.show({ since }, read, drawCosts);
}

const askOpen = () => open.show({}, (get) => get("open-campaigns"), drawOpenCampaigns);

// The panel of a campaign or a day is shown while one is chosen.
function showOpened(name, block, read, draw) {
  const value = choice[name];
  byId(name).hidden = !value;
  if (!value) return;
  byId(name).scrollIntoView({ block });
  opened[name].show(value, (get) => read(get, value), draw);
}

const askCampaign = () => showOpened("campaign", "start", (get, id) => get("campaign", { id }), drawCampaign);

function askDay() {
  const read = (get, since) => Promise.all([get("fills", { since }), get("campaigns", { since })]);
  showOpened("day", "nearest", read, drawDay);
}

function drawAll([results, list]) {
  listCurrencies(results.days);
  drawGroups(results);
  drawCalendar(results);
  drawRealised(results);
  drawCampaigns(list);
}

onChoice((changes) => {
  if ("campaign" in changes) askCampaign();
  else if ("day" in changes) askDay();
  else {
    ask();
    if ("since" in changes) askCosts();
  }
});

openSearch();
openFields();
openCalendar();
setInterval(() => {
  drawHeader();
  keepScrollable();
}, 1000);
followHeader();
askCampaign();
askDay();
follow(() => Promise.all([ask(), askCosts(), askOpen()]), EVERY_MS);
