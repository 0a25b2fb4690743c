// The newest figures, by name, as the server sent them; `time` is their moment in milliseconds.

import { now } from "./clock.js";

export const figures = {};
export const LOST_MS = 15000; // figures that are older are from before

export function takeFigures(newer) {
  Object.assign(figures, newer);
  figures.time = Date.parse(figures.at);
}

// Whether they are of a past moment, whose ages stand still.
export const isPast = () => figures.not_kept?.length > 0;
const moment = () => (isPast() ? figures.time : now());

// Ages were counted at the moment of the figures, and go on since then.
export const older = (age) => (age === null || age === undefined ? null : age + (moment() - figures.time) / 1000);

export const areLost = () => moment() - figures.time > LOST_MS;
