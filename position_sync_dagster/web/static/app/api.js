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
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) if (value !== null && value !== undefined && value !== "") query.set(name, value);

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

// Ask for the figures of the header again and again, on pages that have no feed of their own.
export async function followHeader() {
  for (;;) {
    try {
      if (!document.hidden) takeFigures({ ...(await getJson("header")), trouble: null });
    } catch (error) {
      if (error instanceof ApiError) figures.trouble = error.message;
      else console.warn(String(error));
    }
    await pause(EVERY_MS);
  }
}
