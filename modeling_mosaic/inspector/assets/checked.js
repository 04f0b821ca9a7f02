// Links may be older than the record, or made by hand.

import { TABS } from "inspector/panel";

/** A state without what the records do not have. */
export function checked(patch, records) {
  const [first] = records,
    known = first.unitNames.includes(patch.unit);
  const dearest = first.leading.find((name) => first.perUnit(name)),
    values = dearest && first.perUnit(dearest);
  const best = values
    ? first.unitNames.reduce((a, b) => (first.unitValue(dearest, b) > first.unitValue(dearest, a) ? b : a))
    : first.unitNames[0];
  const place = (t, record) =>
    Number.isInteger(t) && t >= 0 && t < record.T ? t : Math.min(record.T - 1, Math.floor(0.6 * record.T));
  return {
    ...patch,
    unit: known ? patch.unit : best,
    tab: patch.tab in TABS ? patch.tab : "units",
    measure:
      ["loss", "entropy"].includes(patch.measure) || first.byName[patch.measure]?.perToken
        ? patch.measure
        : "loss",
    token: place(patch.token, first),
    token2: place(patch.token2, records.at(-1)),
    forgotten: patch.forgotten.filter((i) => Number.isInteger(i) && i >= 0 && i < first.T - 1),
    added: patch.added.filter(
      ([after, came]) =>
        Number.isInteger(after) && after >= 0 && after < first.T && first.candidate.has(came),
    ),
    zoom: patch.zoom.length === 2 && patch.zoom.every(Number.isFinite) ? patch.zoom : [],
    hover: -1,
    hover2: -1,
  };
}
