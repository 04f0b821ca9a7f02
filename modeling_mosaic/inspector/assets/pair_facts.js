// The numbers of one unit at one token: its answer, its pairs, and what each of them is worth.

import { contributions, expectations, largest, recall, sight } from "inspector/memory";

// Tokens that are listed of each reading of an answer.
const READ = 8;

/** Everything that is shown of a unit at a token, as numbers. */
export function lookAt(panel, unit, t) {
  if (t < 0 || !panel.record.T) return { unit, t };
  const [from, to] = sight(unit, t);
  return { ...(unit.exact ? exactly(panel, unit, t) : asStored(panel, unit, t)), empty: from === to };
}

/** What a page without the unit's keys and values knows: measures, and the strongest pairs. */
function asStored({ record }, unit, t) {
  const [error, certainty, cosine] = ["error", "certainty", "cosine"].map(
    (name) => record.along(name, unit.name)?.[t] ?? NaN,
  );
  const pairs = Array.from({ length: unit.kept ?? 0 }, (_, k) => t * unit.kept + k)
    .filter((i) => unit.pair_index[i] >= 0)
    .map((i) => ({
      pair: unit.pair_index[i],
      weight: unit.pair_weight[i],
      share: NaN,
      effect: unit.pair_effect[i],
      logit: NaN,
    }));
  return { unit, t, pairs, error, certainty, cosine };
}

/** The same from keys and values, with and without the pairs that were forgotten. */
function exactly({ record, forgottenSet }, unit, t) {
  const before = recall(unit, t);
  const now = forgottenSet.size ? recall(unit, t, forgottenSet) : before;
  const next = record.data.token_ids[t + 1];
  const readout = next === undefined ? null : record.readout(unit, t, next);
  const [part, first] = [now, before].map((recalled) => contributions(unit, recalled, readout));
  const [from, to] = sight(unit, t);
  const pairs = Array.from({ length: to - from }, (_, i) => {
    const pair = from + i;
    const gone = forgottenSet.has(pair);
    const [recalled, { share, effect, logit }] = gone ? [before, first] : [now, part];
    return {
      pair,
      gone,
      weight: recalled.row[pair],
      share: share[pair],
      effect: effect[pair],
      logit: logit[pair],
    };
  });
  const { error, certainty, cosine } = now;
  const logit = readout ? part.logit.reduce((sum, x) => sum + x, 0) : NaN;
  const tokens = from < to ? readings(record, unit, t, now.y) : {};
  return { unit, t, before, now, pairs, error, certainty, cosine, logit, ...tokens };
}

/** Tokens that an answer pushes up, and those whose targets it is nearest to: [id, amount], largest first. */
function readings(record, unit, t, y) {
  const ids = record.data["readout.token_ids"];
  const best = (amounts) => amounts && largest(amounts, READ).map((b) => [ids[b], amounts[b]]);
  const raw = record.rawValues(unit);
  const place = record.candidate.get(record.data.token_ids[t]);
  const mix = record.data["contextual.mix"][record.place(unit.name)];
  return {
    pushed: best(record.pushed(unit, t, y)),
    expected: raw && best(expectations(raw, y, place, mix, unit.dim)),
  };
}

/** Pairs by a number of theirs, largest first, whatever its sign; those without it last. */
export function ranked(facts, by) {
  const value = (one) => (Number.isFinite(one[by]) ? Math.abs(one[by]) : -1);
  return [...(facts.pairs ?? [])].sort((a, b) => value(b) - value(a) || b.weight - a.weight);
}

/** Change of the prediction error if a pair goes, from its effect on the squared error. */
export const changeWithout = (facts, effect) =>
  Math.sqrt(Math.max(0, facts.error ** 2 + effect)) - facts.error;
