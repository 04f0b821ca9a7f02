// Colours by value. Lightness changes steadily along each scale, so that no hue need be told apart;
// the two ends of signed scales are blue and orange, which colour-blind readers see as different.

const SCALES = {
  light: {
    plain: ["#faf7f0", "#dce8e6", "#a9cdd2", "#6aa5b8", "#357a9b", "#134f76", "#06294a"],
    signed: ["#8f3b00", "#d9731a", "#f6bd84", "#faf7f0", "#9cc6e6", "#3380bd", "#0a3f78"],
  },
  dark: {
    plain: ["#171b20", "#1f3340", "#255468", "#2f7a8d", "#54a3a8", "#9bcbb8", "#eef0c8"],
    signed: ["#ffb46b", "#c46a1f", "#5e3514", "#171b20", "#1d3f5e", "#3d83bf", "#a3d2ff"],
  },
};

export const theme = () => document.documentElement.dataset.theme;

const parse = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));

/** Red, green, blue at a place between 0 and 1. */
export function ramp(kind, place) {
  const stops = SCALES[theme()][kind],
    x = Math.min(1, Math.max(0, place)) * (stops.length - 1);
  const below = Math.min(Math.floor(x), stops.length - 2),
    a = parse(stops[below]),
    b = parse(stops[below + 1]);
  return a.map((channel, i) => Math.round(channel + (b[i] - channel) * (x - below)));
}

export const css = ([red, green, blue]) => `rgb(${red} ${green} ${blue})`;

/** Black or white, whichever is legible on a colour. */
export function ink([red, green, blue]) {
  const linear = [red, green, blue].map((c) =>
    (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4,
  );
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] > 0.18 ? "#000000" : "#ffffff";
}

/** A scale for numbers: its kind, ends, and the place of a number on it. Ends leave out the outermost hundredth. */
export function scaleOf(arrays, range = null) {
  let low, high;
  if (range) [low, high] = range;
  else {
    const seen = [];
    for (const array of arrays) {
      const step = Math.max(1, Math.floor(array.length / 20000));
      for (let i = 0; i < array.length; i += step) if (Number.isFinite(array[i])) seen.push(array[i]);
    }
    seen.sort((a, b) => a - b);
    low = seen[Math.floor(0.01 * seen.length)] ?? 0;
    high = seen[Math.min(seen.length - 1, Math.floor(0.99 * seen.length))] ?? 1;
  }
  const signed = low < 0;
  if (signed) {
    high = Math.max(-low, high);
    low = -high;
  } else if (!range && low < 0.3 * high) low = 0;
  if (!(high > low)) high = low + 1;
  const kind = signed ? "signed" : "plain";
  const place = (x) => (x - low) / (high - low);
  return { kind, low, high, place, rgb: (x) => ramp(kind, place(x)) };
}

/** The same scale in paler colours, behind text. */
export function pale(scale) {
  const reach = theme() === "dark" ? 0.5 : 0.62;
  const within = (x) => Math.min(1, Math.max(0, scale.place(x)));
  const place = scale.kind === "signed" ? (x) => 0.5 + reach * (within(x) - 0.5) : (x) => reach * within(x);
  return { ...scale, rgb: (x) => ramp(scale.kind, place(x)) };
}

/** A strip that explains a scale, drawn as a gradient. */
export function gradient({ low, high, rgb }) {
  const stops = Array.from({ length: 9 }, (_, i) => css(rgb(low + (i / 8) * (high - low))));
  return `linear-gradient(90deg, ${stops.join(", ")})`;
}
