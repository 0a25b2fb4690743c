// The money page. All text is set as text, never as markup; nothing is loaded from another host.

import { DASH, amount, byId, campaign, clock, drawHeader, duration, element, facts, fill, fit, money, now, older, plainMoney, set, setClock, shown, since, takeFigures, whole, write } from "./header.js";

const root = document.documentElement;
const rows = new Map(); // key -> part of a holding
let sequence = 0;
let grid = null;
let opening = null; // the promise of the grid: it takes seconds, and the figures go on meanwhile
const GAP_MS = 300000; // no line of a curve over a longer time without a value

// --- What is not in the grid ---------------------------------------------------------------------

const several = () => new Set(shown.totals.map((t) => t.currency)).size > 1;
const unit = (one) => (several() ? ` ${one.currency ?? ""}` : "");

function draw() {
  if (!drawHeader()) return;
  drawStrategies();
  drawUnderlyings();
  drawScenarios();
  drawExpiries();
  drawChanges();
}

// A long table shows its two ends, until one asks for the rest: what is below must stay on the screen.
const ENDS = 8;
const opened = new Set();

function ends(table, all) {
  if (all.length <= 2 * ENDS + 1 || opened.has(table)) return [all, []];
  return [all.slice(0, ENDS), all.slice(-ENDS)];
}

function moreLine(table, count, columns) {
  const act = () => {
    opened.add(table);
    draw();
  };
  return { kind: "more", act, cells: [`… and ${count} more`, ...Array(columns - 1).fill("")] };
}

// The lines of a table: all of them, or the two ends with how many are between.
function lines(table, all, columns, line) {
  const [first, last] = ends(table, all);
  const between = all.length - first.length - last.length;
  return [...first.map(line), ...(between ? [moreLine(table, between, columns)] : []), ...last.map(line)];
}

const byToday = (a, b) => (a.today ?? 0) - (b.today ?? 0);

function drawStrategies() {
  const accounts = new Set(shown.strategies.map((one) => one.account).filter(Boolean)).size > 1;
  const most = Math.max(1, ...shown.strategies.map((one) => Math.abs(one.today ?? 0)));
  const line = (one, name, kind) => ({
    kind,
    title: one.note,
    act: kind ? null : () => only("strategy", one.strategy),
    share: kind ? 0 : Math.abs(one.today ?? 0) / most,
    cells: [
      [(accounts || kind) && one.account ? `${name} ${one.account}${unit(one)}` : name + unit(one), `name ${one.today < 0 ? "loss" : "gain"}`],
      money(one.today, one.unknown.today),
      money(one.unrealized, one.unknown.unrealized),
      money(one.realised),
      campaign(one.campaign),
      plainMoney(one.market_value, one.unknown.market_value),
      [`${one.legs_held}/${one.legs}${one.legs_closed ? `, ${one.legs_closed} closed` : ""}`, "", one.closed],
      duration(older(one.age_s)) + (one.delayed ? " delayed" : ""),
    ],
  });
  const closed = shown.accounts.filter((one) => one.today.closed !== null && shown.closed_today.some((leg) => leg.account === one.account));
  fill(byId("strategies"), ["strategy", "today", "unrealised", "realised", "campaign", "value", "legs", "oldest"], [
    ...lines("strategies", [...shown.strategies].sort(byToday), 8, (one) => line(one, one.strategy, "")),
    ...shown.totals.map((one) => line(one, one.total, "total")),
    ...closed.map((one) => ({
      kind: "total",
      title: shown.closed_today.filter((leg) => leg.account === one.account).map((leg) => `${leg.name}  ${amount(leg.today)}`).join("\n"),
      cells: [`closed today${shown.accounts.length > 1 ? ` ${one.account}` : ""}`, money(one.today.closed, one.today.closed_unknown), "", money(one.realised_today), "", "", "", ""],
    })),
  ]);
  write(byId("missing"), shown.missing.join("\n"));
  byId("missing").hidden = !shown.missing.length;
}

function drawUnderlyings() {
  const betas = shown.underlyings.some((one) => one.beta_delta !== null);
  fill(
    byId("underlyings"),
    ["", "$ delta", ...(betas ? ["β $ delta"] : []), "$ gamma 1%", "theta", "vega", "known"],
    [...shown.underlyings.map((one) => [one, one.underlying]), ...(betas ? shown.totals.map((one) => [one, one.total]) : [])].map(([one, name]) => ({
      kind: one.underlying ? "" : "total",
      act: one.underlying ? () => only("underlying", one.underlying) : null,
      cells: [
        name + unit(one),
        ...["dollar_delta", ...(betas ? ["beta_delta"] : []), "gamma_1pct", "theta", "vega"].map((name) => money(one[name], one.unknown[name])),
        [`${one.options_with_greeks}/${one.options}`, "", "options whose greeks are known"],
      ],
    })),
  );
}

function drawScenarios() {
  const { at, names, rows: found, trouble } = shown.scenarios;
  const accounts = new Set(found.map((one) => one.account)).size > 1;
  const line = (one) => ({
    title: `computed ${duration(since(at))} ago`,
    act: () => only(one.level, one.name),
    cells: [
      one.name + (accounts ? ` ${one.account}` : "") + unit(one),
      ...one.profits.map((value, n) => money(value, one.left_out[n])),
    ],
  });
  const worst = (one) => Math.min(...one.profits.map((value) => value ?? Infinity));
  const of = (level) => found.filter((one) => one.level === level).sort((a, b) => worst(a) - worst(b));
  const drawn = ["strategy", "underlying"].flatMap((level) => lines(`scenarios ${level}`, of(level), names.length + 1, line));
  fill(byId("scenarios"), names.length ? ["", ...names] : [], drawn.length ? drawn : [{ cells: [[trouble ?? "Not computed yet.", "text"]] }]);
}

function drawExpiries() {
  fill(
    byId("expiries"),
    ["expiry", "days", "legs", "value", "today", "short ITM"],
    shown.expiries.map((one) => ({
      kind: one.days <= SOON ? "soon" : "",
      act: () => only("expiry", one.expiry),
      cells: [
        one.expiry + unit(one),
        whole.format(one.days),
        whole.format(one.legs_held),
        plainMoney(one.market_value, one.unknown.market_value),
        money(one.today, one.unknown.today),
        `${one.short_in_money}${one.short_unknown ? ` + ${one.short_unknown}?` : ""}`,
      ],
    })),
  );
}

const KINDS = ["all", "TRADE", "CLOSE", "QUANTITY", "GATEWAY", "BREAK"];

function drawChanges() {
  const kind = byId("kind").value;
  const lines = shown.changes
    .filter((one) => kind === "all" || one.kind === kind)
    .map((one) => ({
      kind: one.kind.toLowerCase(),
      title: one.text,
      act: one.conids.length ? () => only("conid", one.conids.map(String)) : null,
      cells: [clock(one.at), [one.text, "text"], one.amount === null ? "" : money(one.amount)],
    }));
  fill(byId("changes"), [], lines.length ? lines : [{ cells: [["Nothing of this kind has happened today.", "text"]] }]);
}

// The curves of the day, from the ledger of the last hours.
function drawCurves() {
  const box = byId("curves");
  const [width, height, left] = [box.clientWidth || 440, box.clientHeight || 110, 46];
  box.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const known = shown.curves
    .filter((one) => one.points.some(([, value]) => value !== null))
    .map((one) => ({ ...one, points: one.points.map(([at, value]) => [Date.parse(at), value]) }));
  const newest = (one) => one.points.findLast(([, value]) => value !== null)[1];
  const ofStrategies = known.filter((one) => !one.is_account).sort((a, b) => newest(a) - newest(b));
  const [worst, best] = ends("curves", ofStrategies);
  const curves = [...worst, ...best, ...known.filter((one) => one.is_account)];
  const hidden = ofStrategies.length - worst.length - best.length;
  const points = curves.flatMap((one) => one.points.filter(([, value]) => value !== null));
  const parts = [];
  const add = (name, more, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(more)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    parts.push(made);
    return made;
  };
  if (points.length) {
    const [first, last] = [Math.min(...points.map((p) => p[0])), Math.max(...points.map((p) => p[0]))];
    const [low, high] = [Math.min(0, ...points.map((p) => p[1])), Math.max(0, ...points.map((p) => p[1]))];
    const x = (at) => left + ((width - left - 4) * (at - first)) / Math.max(1, last - first);
    const y = (value) => 6 + ((height - 20) * (high - value)) / Math.max(1, high - low);
    for (const value of new Set([low, 0, high])) {
      add("line", { x1: left, x2: width - 4, y1: y(value), y2: y(value), class: value ? "rule" : "zero" });
      add("text", { x: left - 4, y: y(value) + 3, class: "end" }, whole.format(value));
    }
    add("text", { x: left, y: height - 2 }, clock(first).slice(0, 5));
    add("text", { x: width - 4, y: height - 2, class: "end" }, clock(last).slice(0, 5));
    curves.forEach((one, n) => {
      let before = -Infinity; // no line over a time of which nothing is known
      const path = one.points.map(([at, v]) => {
        if (v === null) {
          before = -Infinity;
          return "";
        }
        const on = at - before < Math.max(GAP_MS, (last - first) / 12);
        before = at;
        return `${on ? "L" : "M"}${x(at)} ${y(v)}`;
      });
      const line = add("path", { d: path.join(""), class: one.is_account ? "account" : `curve curve${n % 8}${n < 8 ? "" : " second"}` });
      const name = document.createElementNS("http://www.w3.org/2000/svg", "title");
      name.textContent = `${one.name} ${one.currency ?? ""}`;
      line.append(name);
    });
  }
  if (!points.length) add("text", { x: left, y: height / 2 }, "The profit of the day is not known yet.");
  box.replaceChildren(...parts);
  const labels = curves.map((one, n) => [one.name, one.is_account ? "account" : `curve${n % 8}`]);
  if (hidden) labels.unshift([`${hidden} more between the worst and the best ${ENDS}`, "none"]);
  set(byId("legend"), "title", labels.map(([name]) => name).join("\n"));
  fit(byId("legend"), labels.length, "span").forEach((label, n) => {
    write(label, labels[n][0]);
    set(label, "class", labels[n][1]);
  });
}

// --- The grid ------------------------------------------------------------------------------------

// Column of the grid: [column of the server, type, aggregate, decimals, most decimals]. A group shows what all its
// parts have in common, and nothing where they differ.
const COLUMNS = {
  key: ["key", "string", "count"],
  strategy: ["strategy", "string", "unique"],
  underlying: ["symbol", "string", "unique"],
  expiry: ["expiry", "string", "unique"],
  leg: ["name", "string", "unique"],
  value: ["market_value", "float", "sum", 0],
  today: ["daily_pnl", "float", "sum", 0],
  unrealised: ["unrealized_pnl", "float", "sum", 0],
  qty: ["quantity", "float", "unique", 0, 4],
  price: ["market_price", "float", "unique", 2],
  "$ delta": ["dollar_delta", "float", "sum", 0],
  "$ gamma 1%": ["gamma_1pct", "float", "sum", 0],
  delta: ["delta", "float", "sum", 1],
  theta: ["theta", "float", "sum", 1],
  vega: ["vega", "float", "sum", 1],
  IV: ["implied_vol", "float", "unique", 3],
  notional: ["notional", "float", "sum", 0],
  "no value": ["unvalued", "integer", "sum"],
  "no greeks": ["greekless", "integer", "sum"],
  age: [null, "float", ["max by", ["age rank"]], 0],
  "age rank": [null, "float", "max", 0],
  source: ["source", "string", "unique"],
  currency: ["currency", "string", "unique"],
  account: ["account", "string", "unique"],
  conid: ["conid", "string", "unique"],
  right: ["right", "string", "unique"],
  strike: ["strike", "float", "unique", 2],
  type: ["sec_type", "string", "unique"],
  bid: ["bid", "float", "unique", 2],
  ask: ["ask", "float", "unique", 2],
  "average cost": ["average_cost", "float", "unique", 2],
  days: ["days", "integer", "unique"],
  moneyness: ["moneyness", "float", "unique", 3],
  extrinsic: ["extrinsic", "float", "unique", 2],
  "price of underlying": ["underlying_price", "float", "unique", 2],
};
const NULL_TEXT = "--psp-label--null--content";
const SIGNED = new Set(["today", "unrealised"]);
// The sums that get a star where a part lacks its value; the server says which parts do.
const SUMMED = ["value", "today", "unrealised", "notional", "$ delta", "$ gamma 1%", "delta", "theta", "vega"];
const STARRED = Object.fromEntries(SUMMED.map((name) => [name, COLUMNS[name][0]]));
const SHOWN = ["value", "today", "unrealised", "qty", "price", "average cost", "days", "moneyness", "extrinsic", "$ delta", "theta", "vega", "no greeks", "age", "source"];
const GROUPS = {
  Strategies: ["strategy", "underlying", "expiry", "leg"],
  Underlyings: ["underlying", "expiry", "leg"],
  Expiries: ["expiry", "underlying", "leg"],
  Legs: ["leg"],
};
const SOON = 7; // days
const LAYOUT = "money.layout";
const THEME = "money.theme";

function usual() {
  const config = {};
  for (const [name, [, type, , digits, most]] of Object.entries(COLUMNS)) {
    if (type === "string") continue;
    config[name] = { fg_mode: SIGNED.has(name) ? "color" : "disabled" };
    if (digits !== undefined) config[name].number_format = { minimumFractionDigits: digits, maximumFractionDigits: most ?? digits, signDisplay: "negative" };
    if (name === "age") Object.assign(config[name].number_format, { style: "unit", unit: "second", unitDisplay: "narrow" });
  }
  const wide = SHOWN.filter((name) => window.innerWidth >= 1700 || !["average cost", "moneyness", "extrinsic"].includes(name));
  const narrow = window.innerWidth < 600;
  return {
    table: "legs",
    plugin: "Datagrid",
    group_by: GROUPS.Strategies,
    split_by: [],
    filter: [],
    sort: [],
    columns: narrow ? SHOWN.slice(0, 2) : wide,
    columns_config: config,
    aggregates: Object.fromEntries(Object.entries(COLUMNS).map(([name, one]) => [name, one[2]])),
    settings: false,
  };
}

function gridRow(key, values) {
  const row = {};
  for (const [name, [of]] of Object.entries(COLUMNS)) if (of) row[name] = values[of];
  row.conid = String(values.conid);
  return { ...row, ...ages(ageOf(values)) };
}

// A maximum ignores what is not known: the rank makes an unknown age the oldest of its group.
const ages = (age) => ({ age, "age rank": age ?? 1e12 });

// Ages move in steps, so that a grid at rest is not drawn anew each second.
function ageOf(values) {
  const age = since(values.priced_at);
  if (age === null) return null;
  const step = age < 60 ? 1 : age < 600 ? 10 : 60;
  return Math.max(0, Math.floor(age / step) * step);
}

// One thing after the other: a change of the layout during an update of the table may never end.
let turn = Promise.resolve();
function inTurn(work) {
  turn = turn.then(() => grid && work()).catch((error) => console.warn(String(error)));
  return turn;
}

// Change the layout, and open the groups down to a depth.
function say(text) {
  byId("row").textContent = text;
  byId("row").hidden = false;
}

function lay(config, depth = 0) {
  byId("row").hidden = true;
  return inTurn(async () => {
    await grid.viewer.restore(config);
    await unfold(depth);
  });
}

const only = (column, value) => lay({ filter: column ? [[column, Array.isArray(value) ? "in" : "==", value]] : [] }, column ? 3 : 0);

async function unfold(depth) {
  const view = await grid.viewer.getView();
  const { group_by } = await view.get_config();
  if (group_by.length) await view.set_depth(Math.min(depth, group_by.length - 1));
  await grid.viewer.resize(true);
}

// Different currencies are never added: with several, each has its own columns.
async function keepCurrenciesApart(config) {
  const currencies = new Set([...rows.values()].map((one) => one.currency));
  const one = config.filter.some(([name, how]) => name === "currency" && how === "==");
  if (currencies.size > 1 && config.group_by.length && !config.split_by.includes("currency") && !one)
    await lay({ split_by: ["currency", ...config.split_by] });
}

// Whether the filter of the grid lets a part through: a sum is of these alone.
function passes(one) {
  return grid.filter.every(([column, how, wanted]) => {
    const value = String(one[COLUMNS[column]?.[0]] ?? "");
    if (how === "==") return value === String(wanted);
    return how !== "in" || wanted.map(String).includes(value);
  });
}

function partsAt(path) {
  return [...rows.values()].filter((one) => passes(one) && path.every((value, n) => String(one[COLUMNS[grid.groups[n]]?.[0]] ?? "") === String(value ?? "")));
}

// Grey what is not current any more, and mark sums of money that leave out what is not known.
function greyAged(table) {
  for (const line of table.querySelectorAll("tbody tr")) {
    const cells = [...line.querySelectorAll("td")];
    const meta = cells.length ? table.getMeta(cells[0]) : null;
    const path = meta && grid.plugin.model._ids[meta.y - meta.y0]; // the pinned version has it
    const parts = path && grid.groups.length ? partsAt(path) : [];
    const aged = parts.some((one) => !one.current);
    line.classList.toggle("aged", aged);
    line.style.opacity = aged && !document.body.classList.contains("aged") ? "0.5" : "";
    const isGroup = path && path.length < grid.groups.length;
    for (const cell of cells) {
      const column = table.getMeta(cell).column_header?.at(-1);
      // A group has no price and no strike: nothing is there, and a dash would mean that it is unknown.
      if (isGroup && COLUMNS[column]?.[2] === "unique") cell.style.setProperty(NULL_TEXT, '""');
      else cell.style.removeProperty(NULL_TEXT);
      const of = STARRED[column];
      if (!of || !cell.textContent) continue; // a dash is of the style sheet
      const text = cell.textContent.replace("*", "") + (parts.some((one) => one.lacks.includes(of)) ? "*" : "");
      if (cell.textContent !== text) cell.textContent = text;
    }
  }
}

function showRow(path) {
  const one = path.length === grid.groups.length ? partsAt(path)[0] : null;
  const box = byId("row");
  box.hidden = !one;
  if (!one) return;
  const text = `${one.name} · ${one.strategy} · ${one.account} · conid ${one.conid} · ${one.source} of ${clock(one.written_at)} · `;
  const link = (label, address) => (shown.dagster ? element("a", label, { href: address }) : element("span", label));
  const run = one.run_id ? link(`run ${one.run_id.slice(0, 8)}`, `runs/${encodeURIComponent(one.run_id)}`) : "no run";
  box.replaceChildren(
    text, run, " · ", link("ledger", "assets/position_updates"), " · ", link("strategy_exposure", "assets/strategy_exposure"),
    " · history: ", element("code", `position-sync history ${one.account}:${one.conid}${shown.home ? ` --home ${shown.home}` : ""}`),
  );
}

async function openGrid() {
  const { ready, worker } = await import(`./${root.dataset.perspective}/perspective.js`);
  await ready;
  const client = await worker(); // its engine runs in a thread of this browser
  const schema = Object.fromEntries(Object.entries(COLUMNS).map(([name, one]) => [name, one[1]]));
  const table = await client.table(schema, { index: "key", name: "legs" });
  const viewer = byId("grid");
  await table.update([...rows].map(([key, values]) => gridRow(key, values)));
  await viewer.load(client);
  const more = { theme: theme(), title: "Holdings: rows (all) / columns (all)" };
  try {
    const layout = JSON.parse(localStorage.getItem(LAYOUT)) ?? {};
    const first = usual(); // layouts of an earlier release have the maximum for the age
    await viewer.restore({ ...first, ...layout, ...more, aggregates: { ...first.aggregates, ...layout.aggregates, age: COLUMNS.age[2] } });
  } catch (error) {
    console.warn(String(error));
    localStorage.removeItem(LAYOUT);
    await viewer.restore({ ...usual(), ...more });
  }
  const plugin = await viewer.getPlugin("Datagrid");
  const { group_by, filter } = await viewer.save();
  grid = { table, viewer, plugin, groups: group_by, filter };
  viewer.addEventListener("perspective-click", (event) => showRow(event.detail.row?.__ROW_PATH__ ?? []));
  plugin.regular_table.addEventListener("click", (event) => {
    const name = event.target.closest?.("tbody th");
    const meta = name && plugin.regular_table.getMeta(name);
    const path = meta && plugin.model._ids[meta.y - meta.y0];
    if (path?.length === grid.groups.length) showRow(path);
  });
  await unfold(0);
  plugin.regular_table.addStyleListener(() => greyAged(plugin.regular_table));
  inTurn(() => table.replace([...rows].map(([key, values]) => gridRow(key, values))));
  viewer.addEventListener("perspective-config-update", remember);
  await remember();
}

async function remember() {
  const { theme: _, table: __, ...config } = await grid.viewer.save();
  grid.groups = config.group_by;
  grid.filter = config.filter;
  localStorage.setItem(LAYOUT, JSON.stringify(config));
  await keepCurrenciesApart(config);
}

// --- Tools ---------------------------------------------------------------------------------------

function tools() {
  const button = (label, act, title) => {
    const made = element("button", label, { type: "button", title });
    made.addEventListener("click", act);
    return made;
  };
  byId("tools").replaceChildren(
    ...Object.entries(GROUPS).map(([name, names]) => button(name, () => lay({ group_by: names, split_by: [], sort: names.length > 1 ? [] : [["today", "asc"]] }))),
    button(`Expires ≤ ${SOON} d`, () => {
      const days = shown.expiries.filter((one) => one.days <= SOON).map((one) => one.expiry);
      if (!days.length) return say(`Nothing that is held expires within ${SOON} days.`);
      return lay({ group_by: GROUPS.Expiries, filter: [["expiry", "in", days]] }, 1);
    }),
    button("All", () => only(null), "Remove the filters"),
    element("span", "", { class: "space" }),
    button("Columns", () => grid?.viewer.toggleConfig(), "Columns, filters, sorting, charts"),
    button("CSV", () => location.assign("api/v1/positions.csv"), "Every position, as a file"),
    button("Reset", () => lay(usual()), "The layout of the beginning"),
    button("Light / dark", () => setTheme(root.dataset.theme === "light" ? "dark" : "light")),
  );
}

const theme = () => (root.dataset.theme === "light" ? "Pro Light" : "Pro Dark");

function setTheme(name) {
  root.dataset.theme = name;
  localStorage.setItem(THEME, name);
  inTurn(() => grid.viewer.restore({ theme: theme() }));
}

// --- The feed ------------------------------------------------------------------------------------

function take(message) {
  sequence = message.sequence;
  takeFigures(message.figures);
  if (message.all) rows.clear();
  const gone = message.gone ?? [];
  const changed = message.rows.map((values) => {
    const one = Object.fromEntries(shown.columns.map((name, n) => [name, values[n]]));
    rows.set(one.key, one);
    return gridRow(one.key, one);
  });
  for (const key of gone) rows.delete(key);
  inTurn(async () => {
    if (message.all) await grid.table.replace(changed);
    if (gone.length) await grid.table.remove(gone);
    if (changed.length && !message.all) await grid.table.update(changed);
    greyAged(grid.plugin.regular_table);
  });
  draw();
  if ("curves" in message.figures) drawCurves();
}

async function follow() {
  for (;;) {
    try {
      const answer = await fetch(`money/data?after=${sequence}`, { signal: AbortSignal.timeout(30000) });
      setClock(answer);
      if (answer.status === 200) take(await answer.json());
      else if (answer.status !== 204) throw new Error(`the server answers ${answer.status}`);
      if (!opening && rows.size) opening = openGrid().catch(() => (opening = null));
    } catch (error) {
      console.warn(String(error));
      await new Promise((done) => setTimeout(done, 2000));
    }
  }
}

byId("kind").replaceChildren(...KINDS.map((kind) => element("option", kind.toLowerCase(), { value: kind })));
byId("kind").addEventListener("change", drawChanges);
setTheme(localStorage.getItem(THEME) ?? (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark"));
tools();
setInterval(() => {
  draw();
  if (!grid || document.hidden) return;
  const aged = [];
  for (const [key, one] of rows) {
    const age = ageOf(one);
    if (age !== one.age) aged.push({ key, ...ages(age) });
    one.age = age;
  }
  if (aged.length) inTurn(() => grid.table.update(aged));
}, 1000);
addEventListener("resize", () => shown.curves && drawCurves());
follow();
