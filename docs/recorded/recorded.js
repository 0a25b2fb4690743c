// Answers of a recorded day in place of those of a server: the page's own code runs without one. A
// question is looked up by its path and parameters, and, of what was known at a moment, by that too.
(() => {
  const send = window.fetch.bind(window);
  const recorded = send("answers.json").then((answer) => answer.json());
  const pages = { "/money": "money.html", "/money/risk": "risk.html", "/money/results": "results.html" };
  const STILL_MS = 2000; // nothing is new in a recording; the time of the answer stops all ages

  function answered(content, time, status = 200) {
    const headers = { "Server-Time": String(time), "Content-Type": "application/json" };
    return new Response(content === null ? null : JSON.stringify(content), { status, headers });
  }

  // The key of a question: its path and parameters in order, without the moment.
  function keyOf(url) {
    const others = [...url.searchParams].filter(([name]) => !["at", "after", "curves"].includes(name)).sort();
    return `${url.pathname}?${new URLSearchParams(others)}`;
  }

  window.fetch = async (address, options) => {
    const url = new URL(address, location.href);
    if (!/^\/(api\/v1|money\/data)/.test(url.pathname)) return send(address, options);

    const { live, past, end } = await recorded;
    const key = keyOf(url);
    const at = url.searchParams.get("at");
    if (at) {
      const time = Date.parse(at);
      const moments = past[key] ?? [];
      const known = moments.findLast((moment) => moment.time <= time) ?? moments[0];
      if (known) return answered(known.content, known.time);
    }
    if (Number(url.searchParams.get("after"))) {
      await new Promise((done) => setTimeout(done, STILL_MS));
      return answered(null, end, 204);
    }
    if (key in live) return answered(live[key], end);
    const refused = { detail: "The recording has no answer to this.", remedy: "The demo has: make demo." };
    return answered(refused, end, 404);
  };

  addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href^='/money']");
    if (!link) return;
    event.preventDefault();
    const { pathname, search } = new URL(link.href);
    location.assign(`${pages[pathname] ?? "money.html"}${search}`);
  }, true);
})();
