// What every panel does that asks the API. While it waits it shows what it has, dimmed, and says that
// the answer is being computed; an answer or an error always comes. Heading, picture and command are
// drawn from one answer; one that is not asked for any more is dropped.

import { getJson, reasonOf } from "./api.js";
import { byId, element, set, write } from "./elements.js";

// A fault of drawing is none of the server: it is said in the console alone.
export function drawOrLog(draw) {
  try {
    draw();
  } catch (error) {
    console.error(error);
  }
}

const LATE_MS = 200; // an answer that comes sooner changes nothing but the numbers

export class Panel {
  #asking = null; // the newest question while it has no answer: its key, what ends it, its promise
  #drawn = null; // the key of the question whose answer is drawn
  #drawnAt = -Infinity;
  #again = 0; // the timer of a question that a busy server did not answer

  // The ids of what the answer is drawn in: each has a bar with a heading.
  constructor(...names) {
    this.boxes = names.map(byId);
    this.notes = this.boxes.map((box) => box.querySelector(".bar").appendChild(element("span", "", { class: "asked", role: "status" })));
  }

  isOlderThan(milliseconds) {
    return performance.now() - this.#drawnAt >= milliseconds;
  }

  // What nobody can see is asked for again when it comes back.
  isSeen() {
    const places = this.boxes.map((box) => box.getBoundingClientRect());
    return places.some(({ top, bottom, height }) => height && bottom > 0 && top < innerHeight);
  }

  // Read the answer to a question and draw it. Whoever asks the same again waits for the same answer;
  // `read` gets a `getJson` that ends when something else is asked for.
  show(question, read, draw) {
    const key = JSON.stringify(question);
    if (this.#asking?.key === key) return this.#asking.done;

    clearTimeout(this.#again);
    this.#asking?.end.abort();
    const asking = { key, end: new AbortController(), again: () => this.show(question, read, draw) };
    this.#asking = asking;
    if (key !== this.#drawn) setTimeout(() => asking === this.#asking && this.#say("computing …", true), LATE_MS);
    asking.done = this.#answer(asking, read, draw);
    return asking.done;
  }

  async #answer(asking, read, draw) {
    let trouble = "";
    try {
      const answer = await read((path, parameters) => getJson(path, parameters, asking.end.signal));
      if (asking !== this.#asking) return;
      this.#drawn = asking.key;
      this.#drawnAt = performance.now();
      drawOrLog(() => draw(answer));
    } catch (error) {
      if (asking !== this.#asking) return;
      trouble = reasonOf(error);
      this.#drawn = null;
      if (error.retryMs) this.#again = setTimeout(asking.again, error.retryMs);
    }
    this.#asking = null;
    this.#say(trouble, false);
  }

  // What is drawn is dimmed while it is not the answer to what is asked.
  #say(text, isBusy) {
    for (const note of this.notes) write(note, text);
    for (const box of this.boxes) {
      set(box, "aria-busy", isBusy ? "true" : "");
      box.classList.toggle("aged", text !== "");
    }
  }
}
