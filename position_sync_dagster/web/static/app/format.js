// Numbers, times and durations as texts. Unknown is a dash.

export const DASH = "–";
const MINUS = "−";
const wholeNumber = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const twoDigits = new Intl.NumberFormat("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });

function signed(text) {
  if (/^-[0.,]*$/.test(text)) return text.slice(1); // a rounded loss of nothing
  return text.replace("-", MINUS);
}

export const whole = (value) => (isUnknown(value) ? DASH : signed(wholeNumber.format(value)));
export const isUnknown = (value) => value === null || value === undefined;

export const cents = (value) => (isUnknown(value) ? DASH : signed(twoDigits.format(value)));

// With at most so many decimals, but those that it has.
export function upTo(value, most) {
  if (isUnknown(value)) return DASH;
  return signed(value.toLocaleString("en-US", { maximumFractionDigits: most }));
}

export function rounded(value, digits) {
  if (isUnknown(value)) return DASH;
  return signed(value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits }));
}

// Two decimals, and those that a price has besides: 0.005 is not 0.01.
export function price(value) {
  if (isUnknown(value)) return DASH;
  return signed(value.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 4 }));
}

export const percent = (part) => (isUnknown(part) ? DASH : `${rounded(100 * part, 1)} %`);

export function duration(seconds) {
  if (seconds === null || !Number.isFinite(seconds)) return DASH;
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 120) return `${whole} s`;
  if (whole < 7200) return `${Math.floor(whole / 60)} min`;
  return whole < 172800 ? `${Math.floor(whole / 3600)} h` : `${Math.floor(whole / 86400)} d`;
}

export const clock = (at) => new Date(at).toLocaleTimeString("en-GB");

// A text of the server with its times, which are in UTC, as the clock of whoever reads it shows them.
export function local(text) {
  return text.replace(/(?:(\d{4}-\d\d-\d\d) )?(\d\d:\d\d(?::\d\d)?) UTC/g, (_all, day, time) => {
    const at = new Date(`${day ?? new Date().toISOString().slice(0, 10)}T${time}Z`);
    const date = day ? `${at.toLocaleDateString("sv-SE")} ` : "";
    return date + clock(at).slice(0, time.length);
  });
}

export const sign = (value) => (value > 0 ? "up" : value < 0 ? "down" : "");
