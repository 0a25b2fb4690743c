// The holdings as a table with groups, filters and an order. Only the rows on the screen are elements,
// so 20,000 legs scroll like 20. What a person chose is there again after a reload.

import { COLUMNS, COLUMN_SETS, SOON_DAYS } from "./columns.js";
import { NARROW, element, fit, set, write } from "./elements.js";
import { figures, older } from "./figures.js";
import { DASH, cents, duration, isUnknown, rounded, sign, upTo } from "./format.js";
import { accountOf, ageOf, currencyOf, parts } from "./parts.js";
import { before, beforeHint, knownFor, writeButton } from "./table.js";

const ROW_PX = 24;
const MARGIN_ROWS = 6; // above and below those on the screen
const SETTINGS = "money.table";
const NO_EXPIRY = "no expiry";

// By what a group is: the figures that have its sums, the name there, and the column of its parts.
const SUMS = {
  Strategies: ["strategies", "strategy", "strategy"],
  Underlyings: ["underlyings", "underlying", "symbol"],
  Expiries: ["expiries", "expiry", "expiry"],
};

// The sums of a group, by column.
const OF_GROUP = {
  value: "market_value", today: "today", unrealised: "unrealized", realised: "realised", "$ delta": "dollar_delta",
  "β $ delta": "beta_delta", "$ gamma 1%": "gamma_1pct", theta: "theta", vega: "vega", "cost per share": "cost_per_share", reached: "profit_reached",
};
const OF_SUMS_ALONE = ["since first leg", "realised", "reached", "cost per share"];
const KEPT = ["realised", "cost per share", "days", "age"]; // at a past moment they are what was shown
const SIGNED = new Set(["today", "unrealised", "realised", "since first leg"]);
const MOST_NARROW = 3; // columns

const FIRST = { group: "Strategies", set: "Money", sort: "today", descending: false, filter: null };

export class HoldingsTable {
  settings = { ...FIRST };
  #words = []; // that a leg's texts must have
  #open = new Set();
  #rows = [];
  #active = 0;

  constructor(box, openLeg) {
    this.box = box;
    this.openLeg = openLeg;
    Object.assign(this.settings, JSON.parse(localStorage.getItem(SETTINGS)));
    this.table = box.querySelector("table");
    box.addEventListener("scroll", () => this.drawRows());
    box.addEventListener("keydown", (event) => this.#key(event));
    this.draw();
  }

  // --- What the panel asks for -------------------------------------------------------------------

  matching(text) {
    this.#words = text.toLowerCase().split(/\s+/).filter(Boolean);
    this.draw();
  }

  reset() {
    this.#open.clear();
    this.change(FIRST);
  }

  change(settings) {
    Object.assign(this.settings, settings);
    localStorage.setItem(SETTINGS, JSON.stringify(this.settings));
    this.draw();
  }

  // --- Which rows there are ----------------------------------------------------------------------

  draw() {
    this.#rows = [...this.#totals(), ...this.#body()];
    set(this.table, "aria-rowcount", String(this.#rows.length + 1));
    this.#active = Math.min(this.#active, this.#rows.length - 1);
    this.#drawHead();
    this.drawRows();
  }

  // What is shown is what is summed: all, or what the filters leave; with what closed today of it.
  #totals() {
    const closed = figures.closed_today.filter((leg) => this.#passes({ ...leg, strategy: leg.strategies[0] ?? "UNATTRIBUTED" }));
    const isWhole = !this.settings.filter && !this.#words.length;
    const open = isWhole ? figures.totals : (this.#chosenSums() ?? sumsOf([...parts.values()].filter((part) => this.#passes(part))));
    const alone = closed.filter((leg) => !open.some((sums) => isOf(leg, sums)));
    return [...[...open, ...sumsOf([], currenciesOf(alone))].flatMap((sums) => totalRows(sums, closed.filter((leg) => isOf(leg, sums)), isWhole)), ...(isWhole ? figures.in_base.map(baseRow) : [])];
  }

  // The sums of the server for a filter that is a group of theirs; null: there are none.
  #chosenSums() {
    const { column, values } = this.settings.filter ?? {};
    const [list, name] = Object.values(SUMS).find(([, , ofPart]) => ofPart === COLUMNS[column]?.[0]) ?? [];
    if (!list || this.#words.length) return null;
    return figures[list].filter((sums) => values.includes(String(sums[name]))).map((sums) => ({ ...sums, total: sums[name] }));
  }

  #body() {
    const shown = [...parts.values()].filter((part) => this.#passes(part));
    const isFlat = this.settings.group === "Legs" || this.settings.filter || this.#words.length;
    return isFlat ? this.#sorted(shown.map(legRow)) : this.#grouped(shown);
  }

  #passes(part) {
    const { filter } = this.settings;
    const isChosen = !filter || filter.values.includes(String(part[COLUMNS[filter.column][0]]));
    if (!isChosen || !this.#words.length) return isChosen;
    const text = `${part.name} ${part.strategy} ${part.account} ${part.source}`.toLowerCase();
    return this.#words.every((word) => text.includes(word));
  }

  #grouped(shown) {
    const [list, name, column] = SUMS[this.settings.group];
    const groups = figures[list].map((sums) => groupRow(sums, sums[name], keyOf(sums, sums[name])));
    const members = new Map(groups.map((group) => [group.key, []]));
    const byAccount = new Set(list === "strategies" ? figures.strategies.filter((sums) => sums.account).map((sums) => sums.strategy) : []);
    for (const part of shown) {
      const key = memberKey(part, part[column], byAccount);
      if (!members.has(key)) {
        members.set(key, []);
        groups.push(groupRow(null, NO_EXPIRY, key));
      }
      members.get(key).push(part);
    }

    return this.#sorted(groups).flatMap((group) => {
      group.isOpen = this.#open.has(group.key);
      const legs = group.isOpen ? this.#sorted(members.get(group.key).map(legRow)) : [];
      return [group, ...legs];
    });
  }

  #sorted(rows) {
    const { sort, descending } = this.settings;
    const direction = descending ? -1 : 1;
    const valueOf = (row) => (sort === "name" ? row.name : numberOf(row, sort));
    return rows.sort((a, b) => compare(valueOf(a), valueOf(b), direction));
  }

  // --- Drawing -----------------------------------------------------------------------------------

  get #columns() {
    const haveBetas = figures.underlyings.some((sums) => sums.beta_delta !== null);
    const columns = COLUMN_SETS[this.settings.set].filter((name) => name !== "β $ delta" || haveBetas);
    return NARROW.matches ? columns.slice(0, MOST_NARROW) : columns;
  }

  #drawHead() {
    const [head] = fit(this.table.tHead, 1, "tr");
    const names = ["name", ...this.#columns];
    fit(head, names.length, "th").forEach((cell, n) => {
      const isSorted = this.settings.sort === names[n];
      set(cell, "scope", "col");
      set(cell, "aria-sort", isSorted ? (this.settings.descending ? "descending" : "ascending") : "");
      if (!cell.firstElementChild) cell.append(element("button", "", { type: "button" }));
      write(cell.firstElementChild, names[n]);
      cell.firstElementChild.onclick = () => this.#sortBy(names[n]);
    });
  }

  #sortBy(name) {
    const isSame = this.settings.sort === name;
    this.change({ sort: name, descending: isSame && !this.settings.descending });
  }

  drawRows() {
    const first = Math.max(0, Math.floor(this.box.scrollTop / ROW_PX) - MARGIN_ROWS);
    const room = Math.ceil((this.box.clientHeight || 400) / ROW_PX) + 2 * MARGIN_ROWS;
    const visible = this.#rows.slice(first, first + room);
    const below = this.#rows.length - first - visible.length;
    const rows = fit(this.table.tBodies[0], visible.length + 2, "tr");
    this.#space(rows[0], first);
    visible.forEach((row, n) => this.#drawRow(rows[n + 1], row, first + n));
    this.#space(rows.at(-1), below);
  }

  #space(node, count) {
    node.replaceChildren();
    node.className = "space-row";
    set(node, "aria-hidden", "true");
    set(node, "aria-rowindex", "");
    node.style.height = `${count * ROW_PX}px`;
    node.onclick = null;
  }

  #drawRow(node, row, index) {
    node.style.height = "";
    set(node, "aria-hidden", "");
    set(node, "aria-rowindex", String(index + 2));
    set(node, "class", ["act", row.kind, row.part && !row.part.current && "old"].filter(Boolean).join(" "));
    set(node, "title", row.sums?.note ?? row.hint ?? beforeHint(row.sums ?? inPart(row.part)));
    const act = () => this.#act(row, index);
    node.onclick = act;
    const columns = this.#columns;
    fit(node, columns.length + 1, "td").forEach((cell, n) => {
      if (n === 0) this.#drawName(cell, row, index);
      else drawCell(cell, row, columns[n - 1]);
    });
  }

  #drawName(cell, row, index) {
    const mark = row.kind === "group" ? (row.isOpen ? "▾ " : "▸ ") : "";
    const isBefore = row.part && before(inPart(row.part));
    const name = writeButton(cell, mark + row.name + (isBefore ? " ≈" : "") + (row.sums ? currencyOf(row.sums) : ""));
    set(name, "aria-expanded", row.kind === "group" ? String(row.isOpen) : "");
    set(name, "tabindex", index === this.#active ? "0" : "-1");
    set(cell, "class", row.kind);
  }

  // --- Clicks and keys ---------------------------------------------------------------------------

  #act(row, index) {
    this.#active = index;
    if (row.part) return this.openLeg(row.part);
    if (row.kind !== "group") return this.drawRows();
    if (!this.#open.delete(row.key)) this.#open.add(row.key);
    return this.draw();
  }

  #key(event) {
    const last = this.#rows.length - 1;
    const page = Math.floor(this.box.clientHeight / ROW_PX) - 1;
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -last, End: last }[event.key];
    if (step === undefined || !event.target.closest("tbody")) return;
    this.#active = Math.min(last, Math.max(0, this.#active + step));
    this.#reveal();
    event.preventDefault();
  }

  #reveal() {
    const top = this.#active * ROW_PX;
    const room = this.box.clientHeight - 2 * ROW_PX; // beneath the headings
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    if (top > this.box.scrollTop + room) this.box.scrollTop = top - room;
    this.drawRows();
    this.table.querySelector("tbody button[tabindex='0']")?.focus();
  }
}

// --- Rows ----------------------------------------------------------------------------------------

const inPart = (part) => ({ not_kept: part && !part.kept });
const legRow = (part) => ({ kind: "leg", part, name: part.name + accountOf(part) });
const groupRow = (sums, name, key) => ({ kind: "group", sums, name: sums?.account ? `${name} ${sums.account}` : name, key });

// A strategy of several accounts has one sum; what no strategy has is summed by account.
const keyOf = (sums, name) => [name, sums.account ?? "", sums.currency ?? ""].join("|");

const memberKey = (part, name, byAccount) => [name ?? "", byAccount.has(name) ? part.account : "", part.currency ?? ""].join("|");

function compare(a, b, direction) {
  if (isUnknown(a) || isUnknown(b)) return isUnknown(a) - isUnknown(b); // what is not known comes last
  return direction * (typeof a === "string" ? a.localeCompare(b) : a - b);
}

const baseRow = (sums) => ({ kind: "total", sums: { ...sums, currency: "", note: sums.why_unknown }, name: `total ${sums.account ?? ""} in ${sums.currency ?? "base currency"}`.replace("  ", " ") });
const currenciesOf = (rows) => [...new Set(rows.map((row) => row.currency))];
const isOf = (leg, sums) => leg.currency === sums.currency && [null, undefined, leg.account].includes(sums.account);

// A total, and if something closed today, the two that it is made of: what is open, and what closed.
function totalRows(sums, closed, isWhole) {
  const name = sums.account ? `${sums.total} ${sums.account}` : sums.total;
  if (!closed.length) return [{ kind: "total", sums, name }];

  const gone = { currency: sums.currency, ...added(closed, "today"), ...realisedToday(sums, closed, isWhole) };
  const unknown = (sums.unknown.today ?? 0) + (gone.unknown.today ?? 0);
  const whole = { ...sums, today: isUnknown(sums.today) ? null : sums.today + gone.today, unknown: { ...sums.unknown, ...(unknown && { today: unknown }) } };
  const { today, market_value: value, unrealized } = sums;
  const open = { not_kept: sums.not_kept, currency: sums.currency, today, market_value: value, unrealized, unknown: sums.unknown, known: sums.known, of: sums.of };
  const ofAccount = isWhole ? ["realised: the account's own number, which the broker sends some seconds later"] : [];
  const hint = [...closed.map((leg) => `${leg.name}${accountOf(leg)}  ${cents(leg.today)}`), ...ofAccount].join("\n");
  return [
    { kind: "total", sums: whole, name },
    { kind: "total", sums: open, name: name.replace(sums.total, "open") },
    { kind: "total", sums: gone, name: name.replace(sums.total, "closed today"), hint },
  ];
}

// The broker's number of an account, in its base currency; of chosen legs their own.
function realisedToday({ account, currency }, closed, isWhole) {
  if (!isWhole) return { realised: added(closed, "realised_today").realised_today };
  const [first, ...others] = figures.accounts.filter((each) => each.currency === currency && (!account || each.account === account));
  return first && !others.length ? { realised: first.realised_today } : {};
}

// The sums of chosen parts by currency. Whether known ones carry a sum is the server's rule: here one
// that is unknown leaves none.
function sumsOf(chosen, currencies = currenciesOf(chosen)) {
  return currencies.map((currency) => {
    const ofCurrency = chosen.filter((part) => part.currency === currency);
    const sums = { total: "total", currency, not_kept: ofCurrency.filter((part) => !part.kept).length, unknown: {}, known: {}, of: {} };
    for (const [column, name] of Object.entries(OF_GROUP)) {
      const [ofPart] = COLUMNS[column];
      if (!ofPart) continue;
      const { [name]: sum, ...counts } = added(ofCurrency, ofPart, name);
      sums[name] = counts.unknown[name] ? null : sum;
      for (const kind of ["unknown", "known", "of"]) Object.assign(sums[kind], counts[kind]);
    }
    return sums;
  });
}

// The sum of what is known of a column, and how much is not: a share has no theta.
const LACKS = { market_value: "unvalued", dollar_delta: "greekless", gamma_1pct: "greekless", theta: "greekless", vega: "greekless" };

function added(rows, column, name = column) {
  const known = rows.filter((row) => !isUnknown(row[column]));
  const unknown = rows.filter((row) => isUnknown(row[column]) && (row[LACKS[column]] ?? true)).length;
  const counts = unknown ? { unknown: { [name]: unknown }, known: { [name]: known.length }, of: { [name]: rows.length } } : { unknown: {}, known: {}, of: {} };
  return { [name]: known.reduce((sum, row) => sum + row[column], 0), ...counts };
}

// --- Cells ---------------------------------------------------------------------------------------

function numberOf(row, column) {
  if (column === "age") return row.part ? ageOf(row.part) : older(row.sums?.age_s);
  if (column === "since first leg") return row.sums?.since_first_leg?.profit;
  if (row.part) return row.part[COLUMNS[column]?.[0]];
  if (column === "days") return daysOf(row.sums);
  return row.sums?.[OF_GROUP[column]];
}

function drawCell(cell, row, column) {
  const value = numberOf(row, column);
  set(cell, "class", SIGNED.has(column) ? sign(value) : column === "days" && value <= SOON_DAYS ? "soon" : "");
  set(cell, "title", (row.sums && HINTS[column]?.(row.sums)) ?? "");
  write(cell, hasColumn(row, column) ? markedSum(textOf(value, column), value, row, column) : "");
}

// A group has no price, and a leg no campaign: nothing is there, where a dash would mean that it is unknown.
function hasColumn({ part, sums }, column) {
  if (part) return !OF_SUMS_ALONE.includes(column);
  if (column === "cost per share") return !isUnknown(sums?.cost_per_share);
  if (column === "since first leg" || column === "reached") return Boolean(sums?.since_first_leg);
  if (column === "age") return sums?.age_s !== undefined;
  if (column === "days") return Boolean(sums?.nearest_expiry);
  return Boolean(sums) && OF_GROUP[column] in sums;
}

// Until the nearest expiry, as the server counts them.
const daysOf = (sums) => figures.expiries.find(({ expiry }) => expiry === sums?.nearest_expiry)?.days;

// What a strategy has earned since its first leg: the sum of its campaigns.
function earnedHint(earned) {
  if (!earned) return "";
  const since = earned.since?.slice(0, 10) ?? DASH;
  return `since ${since}: realised ${cents(earned.realised)}, open ${cents(earned.open)}, fees ${cents(earned.fees)}`;
}

const since = ({ realised_since: first }) => (first ? `realised since ${first.slice(0, 10)}` : "");
const HINTS = { realised: since, "since first leg": (sums) => earnedHint(sums.since_first_leg), reached: (sums) => sums.profit_reached_unknown };

function textOf(value, column) {
  if (isUnknown(value)) return DASH;
  if (column === "age") return duration(value);
  if (column === "qty") return upTo(value, 4);
  const [, digits] = COLUMNS[column];
  if (typeof digits === "function") return digits(value);
  return digits === undefined || typeof value === "string" ? String(value) : rounded(value, digits);
}

// A star marks a sum that leaves out holdings of which the value is not known.
function markedSum(text, value, { sums }, column) {
  const name = OF_GROUP[column];
  const mark = sums && !KEPT.includes(column) ? before(sums) : "";
  if (!sums?.unknown?.[name]) return mark + text;
  return isUnknown(value) ? knownFor(sums.known[name], sums.of[name]) : `${mark}${text}*`;
}
