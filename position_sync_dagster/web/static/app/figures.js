// The newest figures, by name, as the server sent them; `time` is their moment in milliseconds.

import { now } from "./clock.js";

export const figures = {};
export const LOST_MS = 15000; // figures that are older are from before

export function takeFigures(newer) {
  Object.assign(figures, newer);
  figures.time = Date.parse(figures.at);
}

// Ages were counted at the moment of the figures, and go on since then.
export const older = (age) => (age === null || age === undefined ? null : age + (now() - figures.time) / 1000);

export const areLost = () => now() - figures.time > LOST_MS;
