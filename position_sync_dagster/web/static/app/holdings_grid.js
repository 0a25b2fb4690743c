// The holdings in the grid of Perspective, whose engine runs in a thread of this browser.

import { COLUMNS, COLUMN_SETS, GROUPS, SIGNED, STARRED } from "./columns.js";
import { figures } from "./figures.js";
import { ageOf, parts } from "./parts.js";
import { knownFor } from "./table.js";

const LAYOUT = "money.layout";
const NULL_TEXT = "--psp-label--null--content";
const NARROW = 600; // pixels
const TICK_MS = 1; // for each part: the ages of a large book count on in larger steps
const root = document.documentElement;

const themeName = () => (root.dataset.theme === "light" ? "Pro Light" : "Pro Dark");

// --- Rows ----------------------------------------------------------------------------------------

// A maximum ignores what is not known: the rank makes an unknown age the oldest of its group.
const ages = (age) => ({ age, "age rank": age ?? 1e12 });

function gridRow(part) {
  const row = {};
  for (const [name, [column]] of Object.entries(COLUMNS)) if (column) row[name] = part[column];
  row.conid = String(part.conid);
  part.age = ageOf(part);
  return { ...row, ...ages(part.age) };
}

const allRows = () => [...parts.values()].map(gridRow);

// --- The layout ----------------------------------------------------------------------------------

function formatOf(name) {
  const [, , , digits, most] = COLUMNS[name];
  const config = { fg_mode: SIGNED.has(name) ? "color" : "disabled" };
  if (digits === undefined) return config;
  config.number_format = { minimumFractionDigits: digits, maximumFractionDigits: most ?? digits, signDisplay: "negative" };
  if (name === "age") Object.assign(config.number_format, { style: "unit", unit: "second", unitDisplay: "narrow" });
  return config;
}

function usual() {
  const numbers = Object.keys(COLUMNS).filter((name) => COLUMNS[name][1] !== "string");
  const columns = COLUMN_SETS.Money;
  return {
    table: "legs",
    plugin: "Datagrid",
    group_by: GROUPS.Strategies,
    split_by: [],
    filter: [],
    sort: [],
    columns: window.innerWidth < NARROW ? columns.slice(0, 2) : columns,
    columns_config: Object.fromEntries(numbers.map((name) => [name, formatOf(name)])),
    aggregates: Object.fromEntries(Object.entries(COLUMNS).map(([name, column]) => [name, column[2]])),
    settings: false,
  };
}

function remembered() {
  const first = usual();
  const layout = JSON.parse(localStorage.getItem(LAYOUT)) ?? {};
  // Layouts of an earlier release have the maximum for the age.
  const aggregates = { ...first.aggregates, ...layout.aggregates, age: COLUMNS.age[2] };
  return { ...first, ...layout, aggregates };
}

// --- The view ------------------------------------------------------------------------------------

export class HoldingsGrid {
  #turn = Promise.resolve();
  #groups = [];
  #columns = [];
  #filter = [];
  #beneath = null;
  #tickedAt = 0;

  // Args: the element of the grid, and what happens to a part on which somebody clicked.
  static async open(viewer, openLeg) {
    const view = new HoldingsGrid();
    view.viewer = viewer;
    view.openLeg = openLeg;
    await view.#load();
    return view;
  }

  async #load() {
    const { ready, worker } = await import(`/money/${root.dataset.perspective}/perspective.js`);
    await ready;
    const client = await worker();
    const schema = Object.fromEntries(Object.entries(COLUMNS).map(([name, column]) => [name, column[1]]));
    this.table = await client.table(schema, { index: "key", name: "legs" });
    await this.table.update(allRows());
    await this.viewer.load(client);
    await this.#restoreRemembered();
    this.plugin = await this.viewer.getPlugin("Datagrid");
    await this.#remember();
    this.#listen();
    await this.#unfold(0);
    this.#inTurn(() => this.table.replace(allRows()));
  }

  async #restoreRemembered() {
    const more = { theme: themeName(), title: "Holdings: rows (all) / columns (all)" };
    try {
      await this.viewer.restore({ ...remembered(), ...more });
    } catch (error) {
      console.warn(String(error));
      localStorage.removeItem(LAYOUT);
      await this.viewer.restore({ ...usual(), ...more });
    }
  }

  #listen() {
    const cells = this.plugin.regular_table;
    this.viewer.addEventListener("perspective-config-update", () => this.#remember());
    this.viewer.addEventListener("perspective-click", (event) => this.#click(event.detail.row?.__ROW_PATH__ ?? []));
    cells.addEventListener("click", (event) => {
      const name = event.target.closest?.("tbody th");
      const meta = name && cells.getMeta(name);
      const path = meta && this.plugin.model._ids[meta.y - meta.y0];
      if (path?.length === this.#groups.length) this.#click(path);
    });
    cells.addStyleListener(() => this.#markRows());
    root.addEventListener("theme", () => this.#inTurn(() => this.viewer.restore({ theme: themeName() })));
  }

  // One thing after the other: a change of the layout during an update of the table may never end.
  #inTurn(work) {
    this.#turn = this.#turn.then(work).catch((error) => console.warn(String(error)));
    return this.#turn;
  }

  async #remember() {
    const { theme: _theme, table: _table, ...config } = await this.viewer.save();
    this.#groups = config.group_by;
    this.#columns = config.columns;
    this.#filter = config.filter;
    this.#beneath = null;
    localStorage.setItem(LAYOUT, JSON.stringify(config));
    await this.#keepCurrenciesApart(config);
  }

  // Different currencies are never added: with several, each has its own columns.
  async #keepCurrenciesApart({ filter, group_by: groups, split_by: split }) {
    const currencies = new Set([...parts.values()].map((part) => part.currency));
    const isOfOne = filter.some(([name, operator]) => name === "currency" && operator === "==");
    const areMixed = currencies.size > 1 && groups.length && !split.includes("currency") && !isOfOne;
    if (areMixed) await this.#lay({ split_by: ["currency", ...split] });
  }

  #lay(config, depth = 0) {
    return this.#inTurn(async () => {
      await this.viewer.restore(config);
      await this.#unfold(depth);
    });
  }

  // Open the groups down to a depth.
  async #unfold(depth) {
    const view = await this.viewer.getView();
    const { group_by: groups } = await view.get_config();
    if (groups.length) await view.set_depth(Math.min(depth, groups.length - 1));
    await this.viewer.resize(true);
  }

  // --- What the panel asks for -------------------------------------------------------------------

  get group_name() {
    return Object.keys(GROUPS).find((name) => String(GROUPS[name]) === String(this.#groups));
  }

  get set_name() {
    return Object.keys(COLUMN_SETS).find((name) => String(COLUMN_SETS[name]) === String(this.#columns));
  }

  group(name) {
    const groups = GROUPS[name];
    this.#groups = groups;
    this.#beneath = null;
    return this.#lay({ group_by: groups, split_by: [], sort: groups.length > 1 ? [] : [["today", "asc"]] });
  }

  // Show the parts with one of some values in a column; without a column all.
  only(column, values = []) {
    const filter = column ? [[column, "in", values.map(String)]] : [];
    return this.#lay({ filter }, column ? 3 : 0);
  }

  columns(name) {
    this.#columns = COLUMN_SETS[name];
    return this.#lay({ columns: COLUMN_SETS[name] });
  }

  reset() {
    return this.#lay(usual());
  }

  edit() {
    this.viewer.toggleConfig();
  }

  update(changed, message) {
    this.#beneath = null;
    return this.#inTurn(async () => {
      if (message.all) await this.table.replace(allRows());
      if (message.gone?.length) await this.table.remove(message.gone);
      if (changed.length && !message.all) await this.table.update(changed.map(gridRow));
      this.#markRows();
    });
  }

  // Let the ages count on.
  tick() {
    if (performance.now() - this.#tickedAt < TICK_MS * parts.size) return;
    this.#tickedAt = performance.now();
    const aged = [];
    for (const part of parts.values()) {
      const age = ageOf(part);
      if (age !== part.age) aged.push({ key: part.key, ...ages(age) });
      part.age = age;
    }
    if (aged.length) this.#inTurn(() => this.table.update(aged));
  }

  // --- Marks and clicks --------------------------------------------------------------------------

  #click(path) {
    if (path.length === this.#groups.length) this.openLeg(this.#at(path)?.first);
  }

  // Whether the filter of the grid lets a part through: a sum is of these alone.
  #passes(part) {
    return this.#filter.every(([column, operator, wanted]) => {
      const value = String(part[COLUMNS[column]?.[0]] ?? "");
      if (operator === "==") return value === String(wanted);
      return operator !== "in" || wanted.map(String).includes(value);
    });
  }

  // What the parts beneath a row say together; undefined beneath nothing.
  #at(path) {
    this.#beneath ??= this.#sumUp();
    return this.#beneath.get(keyOf(path));
  }

  #sumUp() {
    const columns = this.#groups.map((name) => COLUMNS[name]?.[0]);
    const beneath = new Map();
    for (const part of parts.values()) {
      if (!this.#passes(part)) continue;
      const path = columns.map((column) => part[column]);
      for (let depth = 0; depth <= path.length; depth++) addPart(beneath, keyOf(path.slice(0, depth)), part);
    }
    return beneath;
  }

  // Grey what is not current any more, and mark sums of money that leave out what is not known.
  #markRows() {
    const table = this.plugin.regular_table;
    for (const row of table.querySelectorAll("tbody tr")) {
      const cells = [...row.querySelectorAll("td")];
      const meta = cells.length ? table.getMeta(cells[0]) : null;
      const path = meta && this.plugin.model._ids[meta.y - meta.y0]; // the pinned version has it
      this.#markRow(row, cells, path);
    }
  }

  #markRow(row, cells, path) {
    const inside = path && this.#groups.length ? this.#at(path) : undefined;
    const isAged = inside?.isAged ?? false;
    row.classList.toggle("aged", isAged);
    row.style.opacity = isAged && !document.body.classList.contains("aged") ? "0.5" : "";
    const isGroup = path && path.length < this.#groups.length;
    for (const cell of cells) {
      const column = this.plugin.regular_table.getMeta(cell).column_header?.at(-1);
      // A group has no price and no strike: nothing is there, and a dash would mean that it is unknown.
      if (isGroup && COLUMNS[column]?.[2] === "unique") cell.style.setProperty(NULL_TEXT, '""');
      else cell.style.removeProperty(NULL_TEXT);
      markSum(cell, STARRED[column], inside);
    }
  }
}

const keyOf = (path) => path.map((value) => String(value ?? "")).join("\n");

function addPart(beneath, key, part) {
  if (!beneath.has(key)) beneath.set(key, { first: part, isAged: false, lacks: new Set(), members: [] });
  const inside = beneath.get(key);
  inside.isAged ||= !part.current;
  inside.members.push(part);
  for (const column of part.lacks) inside.lacks.add(column);
}

function markSum(cell, column, inside) {
  if (!column || !cell.textContent) return; // a dash is of the style sheet
  const whole = cell.textContent.replace("*", "");
  const [text, hint] = inside?.lacks.has(column) ? partialText(whole, column, inside.members) : [whole, ""];
  if (cell.textContent !== text) cell.textContent = text;
  cell.title = hint;
}

// The server's rule (risk/coverage.py), for groups of which it sends no sums. The whole words are in
// the hint: columns as wide as these would push the ages off the screen.
function partialText(text, column, members) {
  const known = members.filter((part) => part[column] !== null);
  const counted = members.filter((part) => part[column] !== null || part.lacks.includes(column));
  const sizeOf = counted.every((part) => part.dollar_delta !== null) ? (part) => Math.abs(part.dollar_delta) : (part) => part.stands_for ?? 0;
  const sum = (of) => of.reduce((total, part) => total + sizeOf(part), 0);
  const hint = knownFor(known.length, counted.length);
  return [sum(known) >= figures.least_known * sum(counted) ? `${text}*` : hint.replace("known for ", ""), hint];
}
