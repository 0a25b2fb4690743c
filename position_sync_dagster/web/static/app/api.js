// `/api/v1`, the same HTTP API that programs use; an error says what happened and what to do.

import { setClock } from "./clock.js";
import { figures, takeFigures } from "./figures.js";

const EVERY_MS = 2000;
const WAIT_MS = 30000;

export class ApiError extends Error {}

// The server computes for others, and says when one may ask again.
export class BusyError extends Error {
  constructor(answer, content) {
    const seconds = Number(answer.headers.get("Retry-After"));
    super(`${content.detail} It is asked again in ${seconds} s.`);
    this.retryMs = 1000 * seconds;
  }
}

export function requireAnswer(answer, content) {
  if (answer.ok) return;
  if (answer.headers.has("Retry-After")) throw new BusyError(answer, content);
  throw new ApiError(`${content.detail} ${content.remedy}`);
}

// Ask for an answer; a server that computes for others answers when it is their turn.
export async function getJson(path, parameters = {}, signal = null) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => ![null, undefined, ""].includes(value)));
  const ends = [AbortSignal.timeout(WAIT_MS), signal].filter(Boolean);
  const answer = await fetch(`/api/v1/${path}?${query}`, { signal: AbortSignal.any(ends) });
  setClock(answer);
  const content = await answer.json();
  requireAnswer(answer, content);
  return content;
}

// Why a question has no answer, for a person.
export function reasonOf(error) {
  if (error instanceof ApiError || error instanceof BusyError) return error.message;
  console.warn(String(error));
  return "The server does not answer: what is drawn is from before.";
}

export const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

// Ask again and again while somebody looks; what takes long is asked for so much more seldom.
export async function follow(ask, everyMs, share = 0) {
  for (;;) {
    const began = performance.now();
    if (!document.hidden) await ask().catch((error) => console.warn(String(error)));
    await pause(Math.max(everyMs, share * (performance.now() - began)));
  }
}

// The figures of the header, on pages that have no feed of their own.
export const followHeader = () => follow(askHeader, EVERY_MS);

async function askHeader() {
  try {
    takeFigures({ ...(await getJson("header")), trouble: null });
  } catch (error) {
    if (figures.at && !(error instanceof ApiError)) throw error; // they say themselves how old they are
    figures.trouble = reasonOf(error);
  }
}
