// The page of risk: the header of all pages, and how long ago its tables were computed.

import { followHeader } from "./api.js";
import { since } from "./clock.js";
import { byId } from "./elements.js";
import { figures } from "./figures.js";
import { clock, duration } from "./format.js";
import { drawHeader } from "./header.js";
import { openSearch } from "./search.js";

const OLD_S = 60; // tables that are older are said to be
const computed = byId("computed");

function draw() {
  const age = since(computed.dataset.at);
  const text = `These scenarios were computed at ${clock(computed.dataset.at)}, ${duration(age)} ago: load the page again.`;
  if (figures.at) computed.textContent = `computed ${duration(age)} ago`;
  drawHeader(age > OLD_S ? [text] : []);
}

openSearch();
setInterval(draw, 1000);
followHeader();
