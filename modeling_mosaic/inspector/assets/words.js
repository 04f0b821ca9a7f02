// Numbers and tokens as people read them.

/** A number with as many digits as say something; a dash where nothing can be observed. */
export function number(x, digits = 3) {
  if (x === null || x === undefined || Number.isNaN(x)) return "–";
  if (!Number.isFinite(x)) return x > 0 ? "∞" : "−∞";
  const size = Math.abs(x);
  const decimals = size >= 100 || Number.isInteger(x) ? 0 : size >= 10 ? Math.max(0, digits - 2) : digits - 1;
  const shown = x.toFixed(decimals);
  return (Number(shown) === 0 ? shown.replace("-", "") : shown).replace("-", "−");
}

export const percent = (x) =>
  Number.isFinite(x) ? `${(100 * x).toFixed(Math.abs(x) < 0.0995 ? 1 : 0).replace("-", "−")}%` : "–";

export const signed = (x, digits = 3) => (x > 0 ? `+${number(x, digits)}` : number(x, digits));

const PICTURES = { "\n": "↵", "\r": "␍", "\t": "⇥" };

/** A token whose invisible characters show: line ends, controls, marks that turn the direction of writing. */
export function visible(token) {
  if (token === "") return "∅";
  return token.replace(
    /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]|\p{Surrogate}/gu,
    (c) =>
      PICTURES[c] ??
      (/\p{Surrogate}/u.test(c) ? "�" : `⟨${c.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`),
  );
}

export const quoted = (token) => `«${visible(token)}»`;

/** The last few words of a text, with a sign if more stands before them. */
export function tail(words, characters, more = false) {
  const cut = words.length > characters + 12 ? Array.from(words).slice(-characters).join("") : words;
  return `${more || cut !== words ? "…" : ""}${visible(cut.replace(/\n+/g, " ")).replace(/^ +/, "")}`;
}

/** The text up to a token, its last few words. */
export function context(record, i, characters = 28) {
  let words = "";
  let from = i;
  while (from >= 0 && words.length < characters) words = record.tokens[from--] + words;
  return tail(words, characters, from >= 0);
}

/** Tokens of each place where the text holds some words. */
export function matches(tokens, words) {
  // Bytes that only begin a character show at its last token.
  const parts = tokens.map((token) => (token === "\ufffd" ? "" : token.toLowerCase())),
    text = parts.join(""),
    starts = [];
  let at = 0;
  for (const part of parts) {
    starts.push(at);
    at += part.length;
  }
  const found = [];
  let first = 0;
  for (let place = text.indexOf(words); place >= 0; place = text.indexOf(words, place + 1)) {
    while (first + 1 < starts.length && starts[first + 1] <= place) first++;
    const part = [];
    for (let i = first; i < starts.length && starts[i] < place + words.length; i++) part.push(i);
    found.push(part);
  }
  return found;
}
