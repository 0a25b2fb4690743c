// The page of risk: the header of all pages, and how long ago its tables were computed.

import { byId, clock, drawHeader, duration, setClock, shown, since, takeFigures } from "./header.js";

const EVERY_MS = 2000;
const OLD_S = 60; // tables that are older are said to be
const computed = byId("computed");

function draw() {
  const age = since(computed.dataset.at);
  const old = age > OLD_S ? [`These scenarios were computed at ${clock(computed.dataset.at)}, ${duration(age)} ago: load the page again.`] : [];
  if (shown.at) computed.textContent = `computed ${duration(age)} ago`;
  drawHeader(old);
}

async function follow() {
  for (;;) {
    try {
      const answer = await fetch("/api/v1/header", { signal: AbortSignal.timeout(30000) });
      const content = await answer.json();
      setClock(answer);
      if (answer.ok) takeFigures({ ...content, trouble: null });
      else shown.trouble = `${content.detail} ${content.remedy}`;
    } catch (error) {
      console.warn(String(error));
    }
    await new Promise((done) => setTimeout(done, EVERY_MS));
  }
}

const chosen = localStorage.getItem("money.theme");
document.documentElement.dataset.theme = chosen ?? (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark");
setInterval(draw, 1000);
follow();
