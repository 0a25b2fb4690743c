// The header of every page: accounts, the state of logins, how old all is, and what needs attention. Also the texts and
// elements of which the pages are made. All text is set as text, never as markup.

export const byId = (id) => document.getElementById(id);
export const shown = {}; // the newest figures, by name
let clockAt = 0; // the time of the server at its last answer, and performance.now() of that moment
let clockRead = 0;

export function setClock(answer) {
  clockAt = Number(answer.headers.get("server-time")) || clockAt;
  clockRead = performance.now();
}

export function takeFigures(figures) {
  Object.assign(shown, figures);
  shown.time = Date.parse(shown.at);
}

// --- Texts ---------------------------------------------------------------------------------------

export const LOST_MS = 15000; // figures that are older are grey
export const DASH = "–";
export const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });

export function amount(value) {
  if (value === null || value === undefined) return DASH;
  const text = Math.abs(value) >= 99.5 ? whole.format(value) : fine.format(value);
  return text === "-0.00" ? "0.00" : text;
}

export function duration(seconds) {
  if (seconds === null || !Number.isFinite(seconds)) return DASH;
  const s = Math.max(0, Math.round(seconds));
  if (s < 120) return `${s} s`;
  if (s < 7200) return `${Math.floor(s / 60)} min`;
  return s < 172800 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} d`;
}

export const clock = (at) => new Date(at).toLocaleTimeString("en-GB");
export const now = () => clockAt + (performance.now() - clockRead); // by the clock of the server
export const since = (at) => (at === null || at === undefined ? null : (now() - new Date(at)) / 1000);
export const older = (age) => (age === null ? null : age + (now() - shown.time) / 1000);

// --- Elements ------------------------------------------------------------------------------------

export function element(tag, text, more = {}) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  for (const [name, value] of Object.entries(more)) if (value) made.setAttribute(name, value);
  return made;
}

// A cell is [text, class, title]; a number is shown as an amount, red below zero. A star marks a sum that leaves out
// holdings, and its title says how many.
export const money = (value, unknown) => [
  amount(value) + (unknown && value !== null ? "*" : ""),
  value > 0 ? "up" : value < 0 ? "down" : "",
  unknown ? `leaves out ${unknown} of which it is not known` : "",
];
export const plainMoney = (value, unknown) => [money(value, unknown)[0], "", money(value, unknown)[2]];

// What a strategy has earned since its first leg, through rolls and assignments.
export function campaign(one) {
  if (!one) return "";
  const [text, style] = money(one.profit);
  return [text, style, `since ${one.since?.slice(0, 10) ?? DASH}: realised ${amount(one.realised)}, open ${amount(one.open)}, fees ${amount(one.fees)}`];
}

export function set(node, name, value) {
  if ((node.getAttribute(name) ?? "") !== (value ?? "")) value ? node.setAttribute(name, value) : node.removeAttribute(name);
}

export function write(node, text) {
  if (node.textContent === text) return;
  if (node.firstChild) node.firstChild.data = text;
  else node.textContent = text;
}

// Make a node have this many children, without touching those that stay: a click, the focus and a selection of text
// survive each new figure.
export function fit(node, count, tag) {
  while (node.children.length > count) node.lastElementChild.remove();
  while (node.children.length < count) node.append(element(tag));
  return [...node.children];
}

export function fill(table, headings, lines) {
  const all = fit(table, 2, "tbody");
  fit(fit(all[0], headings.length ? 1 : 0, "tr")[0] ?? element("tr"), headings.length, "th").forEach((cell, n) => write(cell, headings[n]));
  fit(all[1], lines.length, "tr").forEach((line, n) => {
    const { cells, kind, act, title, share } = lines[n];
    set(line, "class", [kind, act && "act"].filter(Boolean).join(" "));
    set(line, "title", title);
    set(line, "tabindex", act ? "0" : "");
    line.onclick = act ?? null;
    line.onkeydown = act ? (event) => keyed(event, line, act) : null;
    fit(line, cells.length, "td").forEach((cell, m) => {
      const [text, style, hint] = Array.isArray(cells[m]) ? cells[m] : [cells[m]];
      write(cell, String(text));
      set(cell, "class", style);
      set(cell, "title", hint);
    });
    line.style.setProperty("--share", share ?? 0);
  });
}

function keyed(event, line, act) {
  const next = { ArrowDown: line.nextElementSibling, ArrowUp: line.previousElementSibling }[event.key];
  if (next) next.focus();
  else if (event.key === "Enter" || event.key === " ") act();
  else return;
  event.preventDefault();
}

export function facts(list, pairs) {
  fit(list, pairs.length, "div").forEach((pair, n) => {
    const [label, text, style, hint] = pairs[n];
    set(pair, "class", style);
    set(pair, "title", hint);
    if (!pair.firstElementChild) pair.append(element("dt"), element("dd"));
    write(pair.firstElementChild, label);
    write(pair.lastElementChild, text);
  });
}

// --- The header ----------------------------------------------------------------------------------

// What hurts now: figures that do not come, logins that are away, limits that are broken, legs without a line.
function alerts(lost, blind) {
  const found = [];
  if (lost) found.push(`No new figures for ${duration(since(shown.time))}: every value is from ${clock(shown.time)} or before.`);
  for (const one of blind) {
    const at = one.blind_since;
    const why = one.reason ? ` ${one.reason}` : "";
    found.push(`${one.gateway_id} is ${one.state ?? "not connected yet"}${at ? ` since ${clock(at)} (${duration(since(at))})` : ""}: its values are from before.${why}`);
  }
  if (shown.trouble) found.push(shown.trouble);
  if (shown.without_line) found.push(`market data lines: ${shown.without_line}`);
  found.push(...shown.limits.filter((one) => one.state === "BROKEN").map((one) => `limit broken: ${one.text}`));
  return found;
}

function say(name, texts) {
  write(byId(name), texts.join("\n"));
  byId(name).hidden = texts.length === 0;
}

// Draw the header, and grey the page while its values are from before; return whether there are figures.
export function drawHeader(more = []) {
  if (!shown.at) {
    say("notice", shown.trouble ? [shown.trouble] : []);
    return false;
  }
  const lost = now() - shown.time > LOST_MS;
  const blind = shown.gateways.filter((one) => one.state !== "LIVE");
  document.body.classList.toggle("aged", lost || Boolean(shown.trouble) || blind.length === shown.gateways.length);
  say("alert", alerts(lost, blind));
  say("notice", [...shown.attention, ...more]);
  drawHead();
  return true;
}

function drawHead() {
  const many = shown.accounts.length > 1;
  facts(
    byId("accounts"),
    shown.accounts.flatMap((one) => {
      const name = many ? `${one.account} ` : "";
      const of = one.currency ? ` ${one.currency}` : "";
      const { today } = one;
      const values = `received ${duration(older(one.age_s))} ago`;
      const profits = `the account's own number, received ${duration(older(today.account_age_s))} ago`;
      const holdings = `the oldest price is ${duration(older(today.holdings_age_s))} old`;
      const fact = (label, value, more, hint, unknown) => {
        const [text, style, partial] = money(value, unknown);
        return [name + label, text, `${more} ${style}`.trim(), [partial, hint].filter(Boolean).join("; ")];
      };
      return [
        [`${name}net liquidation${of}`, amount(one.net_liquidation), "large", values],
        fact("today", today.account, "large", profits),
        fact("open", today.open, "", holdings, today.open_unknown),
        fact("closed today", today.closed, "", "profit of the day of what is closed", today.closed_unknown),
        fact("difference", today.difference, "", "today − open − closed: the two are not of the same second"),
        fact("unrealised", one.unrealised, "", profits),
        fact("realised today", one.realised_today, "", profits),
        fact("total", one.total, "", "unrealised and realised today"),
        [`${name}available`, amount(one.available_funds), "", values],
        [`${name}excess liquidity`, amount(one.excess_liquidity), "", values],
        [`${name}margin initial / maintenance`, `${amount(one.initial_margin)} / ${amount(one.maintenance_margin)}`, "", values],
        [`${name}cushion`, one.cushion === null ? DASH : `${(100 * one.cushion).toFixed(1)} %`, one.cushion !== null && one.cushion < 0.1 ? "down" : "", values],
      ];
    }),
  );
  const states = shown.gateways.map((one) => `${one.state ?? "none"} ${duration(since(one.since))}`);
  const live = shown.gateways.every((one) => one.state === "LIVE");
  const last = shown.changes[0];
  facts(byId("state"), [
    ["gateway", states.join(", "), live ? "up" : "down", shown.gateways.map((one) => one.gateway_id).join(", ")],
    ["current legs", `${shown.current} of ${shown.held}`, shown.current === shown.held ? "" : "down"],
    ["oldest", duration(older(shown.oldest_age_s))],
    ["lines", shown.lines ?? DASH],
    ["last change", last ? `${clock(last.at)} ${last.text}` : DASH, "wide", last?.text],
    [shown.mode ?? "", clock(shown.time)],
  ]);
}
