// Numbers, times and durations as texts. Unknown is a dash.

export const DASH = "–";
const MINUS = "−";

export const isUnknown = (value) => value === null || value === undefined;

// What writes a number with at least and at most so many decimals; to make one takes long.
function decimals(least, most) {
  const numbers = new Intl.NumberFormat("en-US", { minimumFractionDigits: least, maximumFractionDigits: most, roundingMode: "halfEven" });
  return (value) => (isUnknown(value) ? DASH : signed(numbers.format(value)));
}

function signed(text) {
  if (/^-[0.,]*$/.test(text)) return text.slice(1); // a rounded loss of nothing
  return text.replace("-", MINUS);
}

const COUNTS = [0, 1, 2, 3, 4];
const exactly = COUNTS.map((digits) => decimals(digits, digits));
const atMost = COUNTS.map((most) => decimals(0, most));

export const whole = exactly[0];
export const cents = exactly[2];
export const price = decimals(2, 4); // 0.005 is not 0.01
export const rounded = (value, digits) => exactly[digits](value);
export const upTo = (value, most) => atMost[most](value); // but those that it has
export const percent = (part) => (isUnknown(part) ? DASH : `${rounded(100 * part, 1)} %`);

export function duration(seconds) {
  if (seconds === null || !Number.isFinite(seconds)) return DASH;
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 120) return `${whole} s`;
  if (whole < 7200) return `${Math.floor(whole / 60)} min`;
  return whole < 172800 ? `${Math.floor(whole / 3600)} h` : `${Math.floor(whole / 86400)} d`;
}

const MOMENT = new Intl.DateTimeFormat("en-GB", { weekday: "short", day: "2-digit", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit", timeZoneName: "short" });
export const moment = (at) => MOMENT.format(at);
export const clock = (at) => new Date(at).toLocaleTimeString("en-GB");

// A text of the server as a person reads it here: its times, which are in UTC, by his clock, and a minus
// that is no hyphen.
export function local(text) {
  const words = text.replace(/(?<=^|[\s(])-(?=\d)/g, MINUS);
  return words.replace(/(?:(\d{4}-\d\d-\d\d) )?(\d\d:\d\d(?::\d\d)?) UTC/g, (_all, day, time) => {
    const at = new Date(`${day ?? new Date().toISOString().slice(0, 10)}T${time}Z`);
    const date = day ? `${at.toLocaleDateString("sv-SE")} ` : "";
    return date + clock(at).slice(0, time.length);
  });
}

export const sign = (value) => (value > 0 ? "up" : value < 0 ? "down" : "");
