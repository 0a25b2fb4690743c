// The time of the server, by which ages count on between two answers.

let serverTime = 0; // at its last answer, in milliseconds
let readAt = 0; // performance.now() of that moment

export function setClock(answer) {
  serverTime = Number(answer.headers.get("server-time")) || serverTime;
  readAt = performance.now();
}

export const now = () => serverTime + (performance.now() - readAt);

export function since(at) {
  return at === null || at === undefined ? null : (now() - new Date(at)) / 1000;
}
