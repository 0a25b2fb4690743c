// Commands that a text names in back quotes: each is copied by a click, as the shell of this home takes it.

import { byId, element } from "./elements.js";

const NAME = "position-sync ";
const { program, home } = document.documentElement.dataset;

// Return the nodes of a text, a button in place of each command.
export function withCommands(text) {
  return text.split("`").map((part, n) => {
    if (n % 2 === 0) return document.createTextNode(part);
    return part.startsWith(NAME) ? copyButton(part.slice(NAME.length)) : element("code", part);
  });
}

// Show the command that says what a panel shows; the button stays while it is the same one.
export function showCommand(box, ...words) {
  const text = words.filter(Boolean).join(" ");
  if (box.dataset.words === text) return;
  box.dataset.words = text;
  box.replaceChildren(copyButton(text));
}

// A word as a shell takes it.
export const quoted = (word) => (/^[\w.:@%+-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`);

export function copyButton(words) {
  const command = `${program} ${words}${home}`;
  const node = element("button", NAME + words, { type: "button", class: "command", title: `Copy: ${command}` });
  node.addEventListener("click", () => copy(node, command));
  return node;
}

async function copy(node, command) {
  await navigator.clipboard.writeText(command);
  node.dataset.copied = "copied";
  byId("said").textContent = `Copied: ${command}`; // a screen reader says it
  setTimeout(() => delete node.dataset.copied, 2000);
}
