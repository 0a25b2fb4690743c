// Elements, changed in place: a click, the focus and a selection of text survive each new figure.
// All text is set as text, never as markup.

export const NARROW = matchMedia("(max-width: 699px)"); // a phone, as in the style sheet
export const byId = (id) => document.getElementById(id);

export function element(tag, text, attributes = {}) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) set(node, name, value);
  return node;
}

export function set(node, name, value) {
  const text = value ?? "";
  if ((node.getAttribute(name) ?? "") === text) return;
  if (text) node.setAttribute(name, text);
  else node.removeAttribute(name);
}

export function write(node, text) {
  if (node.textContent === text) return;
  if (node.firstChild) node.firstChild.data = text;
  else node.textContent = text;
}

// A name without room is cut in its middle: what tells it from others often stands at its end.
const TAIL = 8;
const SHORT = 12; // characters that have room everywhere
export function writeName(node, text, tail = TAIL) {
  if (node.textContent === text) return;
  const end = text.length > SHORT ? Math.max(0, text.length - tail) : 0;
  const word = text.lastIndexOf(" ", end) + 1;
  const at = word && end - word < TAIL ? word : end; // a number keeps its sign
  node.replaceChildren(...(at ? [element("span", text.slice(0, at), { class: "head" }), text.slice(at)] : [text]));
  set(node, "title", at ? text : "");
}

// Make a node have this many children, without touching those that stay.
export function fit(node, count, tag) {
  while (node.children.length > count) node.lastElementChild.remove();
  while (node.children.length < count) node.append(element(tag));
  return [...node.children];
}

// Make a field have these options, [value, label] each; it keeps what was chosen.
export function listOptions(field, options) {
  const { value } = field;
  fit(field, options.length, "option").forEach((node, n) => {
    node.value = options[n][0];
    write(node, options[n][1]);
  });
  field.value = value;
}

export function show(node, text) {
  write(node, text);
  node.hidden = text === "";
}

// A list of facts: [label, text, class, hint, note]; the note is a line of its own.
export function facts(list, pairs) {
  fit(list, pairs.length, "div").forEach((node, n) => {
    const [label, text, style, hint, note] = pairs[n];
    set(node, "class", style);
    set(node, "title", hint);
    if (!node.firstElementChild) node.append(element("dt"), element("dd"));
    write(node.firstElementChild, label);
    write(node.querySelector("dd"), text);
    if (note === undefined) return;
    if (!node.querySelector(".note")) node.append(element("dd", "", { class: "note" }));
    write(node.querySelector(".note"), note);
  });
}
