// The results page: what campaigns that are over brought. It changes once a day: it is asked for seldom.

import { followHeader, getJson, pause, troubleOf } from "./api.js";
import { drawCalendar, openCalendar } from "./calendar_panel.js";
import { drawCampaign, openCampaign } from "./campaign_panel.js";
import { drawCampaigns } from "./campaigns_panel.js";
import { figures } from "./figures.js";
import { drawGroups } from "./groups_panel.js";
import { drawHeader } from "./header.js";
import { drawRealised } from "./realised_panel.js";
import { choice, listCurrencies, onChoice, openFields } from "./results_choice.js";
import { keepScrollable } from "./scrolling.js";
import { openSearch } from "./search.js";

const EVERY_MS = 300000;
let trouble = null;

async function drawAll() {
  const [results, list] = await Promise.all([getJson("results", { since: choice.since, by: choice.by }), getJson("campaigns", { since: choice.since })]);
  listCurrencies(results.days);
  drawGroups(results);
  drawCalendar(results);
  drawRealised(results);
  drawCampaigns(list.campaigns);
}

async function attempt(act) {
  trouble = await troubleOf(act);
  drawNotices();
}

function drawNotices() {
  if (figures.at || trouble) drawHeader(trouble ? [trouble] : []);
}

onChoice((changes) => attempt(() => ("campaign" in changes ? drawCampaign(true) : drawAll())));

async function follow() {
  await attempt(() => drawCampaign(true));
  for (;;) {
    if (!document.hidden) await attempt(drawAll);
    await pause(EVERY_MS);
  }
}

openSearch();
openFields();
openCalendar();
openCampaign();
setInterval(() => {
  drawNotices();
  keepScrollable();
}, 1000);
followHeader();
follow();
