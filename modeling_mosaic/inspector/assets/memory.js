// What a memory answers, and what it would answer without some of its pairs. Numbers are summed in double precision.
// A unit is { keys, scale, values, dim, pairs, kind }: keys (time, dim), values (pairs, dim); query t asks with key t
// times scale t, and sees the pairs whose ages, t - i, are from kind.youngest to kind.oldest (null: any older one).

function dot(a, from, b, start, dim) {
  let sum = 0;
  for (let d = 0; d < dim; d++) sum += a[from + d] * b[start + d];
  return sum;
}

const squared = (a) => a.reduce((sum, x) => sum + x * x, 0);

/** The first pair that query t sees, and the one after the last. */
export function sight({ kind }, t) {
  const from = kind.oldest === null ? 0 : Math.max(0, t - kind.oldest);
  return [from, Math.max(from, t - kind.youngest + 1)];
}

/** Weights softmax_i(s_t k_t . k_i) of the pairs i < t, 0 for those that are not seen or were forgotten. */
export function weights(unit, t, forgotten = new Set()) {
  const { keys, scale, dim } = unit;
  const row = new Float64Array(t),
    [from, to] = sight(unit, t);
  let highest = -Infinity;
  for (let i = from; i < to; i++) {
    row[i] = forgotten.has(i) ? -Infinity : scale[t] * dot(keys, t * dim, keys, i * dim, dim);
    if (row[i] > highest) highest = row[i];
  }
  if (highest === -Infinity) return row.fill(0);
  let total = 0;
  for (let i = from; i < to; i++) total += row[i] = Math.exp(row[i] - highest);
  for (let i = from; i < to; i++) row[i] /= total;
  return row;
}

/** The answer sum_i w_i v_i. */
export function answer(unit, row) {
  const { values, dim } = unit;
  const sum = new Float64Array(dim);
  for (let i = 0; i < row.length; i++) {
    const weight = row[i];
    if (weight > 0) for (let d = 0; d < dim; d++) sum[d] += weight * values[i * dim + d];
  }
  return sum;
}

/** The value that the unit is asked for at t, or null where the next token is not known. */
export function target(unit, t) {
  return t < unit.pairs ? unit.values.subarray(t * unit.dim, (t + 1) * unit.dim) : null;
}

/** Relative error |y - v| / |v| and cosine of a prediction and a target. */
function compare(y, v) {
  const length = Math.sqrt(squared(v)),
    size = Math.sqrt(squared(y));
  let difference = 0;
  for (let d = 0; d < v.length; d++) difference += (y[d] - v[d]) ** 2;
  return {
    error: Math.sqrt(difference) / length,
    cosine: size > 0 ? dot(y, 0, v, 0, v.length) / (size * length) : NaN,
  };
}

/** A unit's prediction at t without the forgotten pairs, beside its target. Certainty is |y| / |v|. */
export function recall(unit, t, forgotten = new Set()) {
  const row = weights(unit, t, forgotten);
  const y = answer(unit, row),
    v = target(unit, t),
    [from, to] = sight(unit, t);
  const length = Math.sqrt(squared(unit.values.subarray(0, unit.dim)));
  const certainty = from < to ? Math.sqrt(squared(y)) / length : NaN;
  const seen = v && from < to ? compare(y, v) : { error: NaN, cosine: NaN };
  return { row, y, v, t, certainty, expected: Math.sqrt(Math.max(0, 1 - certainty ** 2)), ...seen };
}

/**
 * What each pair does to the prediction, all exact:
 * share    w_i v_i . y / |y|^2, which sums to 1;
 * effect   |v - y'|^2 - |v - y|^2 over |v|^2, where y' = (y - w_i v_i) / (1 - w_i) lacks pair i: positive if it helps;
 * logit    w_i v_i . readout, its part of what the unit adds to a token's logit.
 */
export function contributions(unit, recalled, readout = null) {
  const { row, y, v } = recalled,
    { values, dim } = unit;
  const length = squared(y),
    now = v ? squared(v.map((x, d) => x - y[d])) : NaN,
    scale = v ? squared(v) : NaN;
  const share = new Float64Array(row.length),
    effect = new Float64Array(row.length).fill(NaN);
  const logit = new Float64Array(row.length).fill(NaN);
  for (let i = 0; i < row.length; i++) {
    const weight = row[i],
      rest = 1 - weight;
    share[i] = length > 0 ? (weight * dot(values, i * dim, y, 0, dim)) / length : NaN;
    if (readout) logit[i] = weight * dot(values, i * dim, readout, 0, dim);
    if (!v) continue;
    let without = 0;
    for (let d = 0; d < dim; d++) {
      const other = rest > 0 ? (y[d] - weight * values[i * dim + d]) / rest : 0;
      without += (v[d] - other) ** 2;
    }
    effect[i] = (without - now) / scale;
  }
  return { share, effect, logit };
}

/** Indices of the largest entries of a row by a key, largest first. */
export function largest(row, count, key = (x) => x) {
  const order = Array.from(row.keys()).filter((i) => !Number.isNaN(row[i]));
  return order.sort((a, b) => key(row[b]) - key(row[a]) || b - a).slice(0, count);
}

/** Tokens pushed up most: [place among the candidates, logit above the mean]. */
export function pushed(table, y, scale, dim) {
  const count = table.length / dim,
    logits = new Float64Array(count);
  for (let b = 0; b < count; b++) logits[b] = scale * dot(table, b * dim, y, 0, dim);
  return logits;
}

/** For each candidate next token b, how well y points to the value that it would make: cos(y, c u_t + (1 - c) u(b)). */
export function expectations(raw, y, place, mix, dim) {
  const count = raw.length / dim,
    cosine = new Float64Array(count),
    size = Math.sqrt(squared(y));
  const would = new Float64Array(dim);
  for (let b = 0; b < count; b++) {
    for (let d = 0; d < dim; d++) would[d] = mix * raw[place * dim + d] + (1 - mix) * raw[b * dim + d];
    cosine[b] = dot(would, 0, y, 0, dim) / (Math.sqrt(squared(would)) * size);
  }
  return cosine;
}

/**
 * Errors |r - v| / |v| along the text of two predictors: the mean of the values that the unit sees, and the newest of
 * them.
 */
export function trivialErrors(unit) {
  if (unit.trivial) return unit.trivial;
  const { values, dim, pairs } = unit;
  const [mean, newest] = [0, 1].map(() => new Float64Array(unit.T).fill(NaN)),
    sum = new Float64Array(dim);
  for (let t = unit.kind.youngest; t < pairs; t++) {
    const [from, to] = sight(unit, t),
      v = target(unit, t),
      last = values.subarray((to - 1) * dim, to * dim);
    for (let d = 0; d < dim; d++) sum[d] += last[d];
    // What has just gone out of sight.
    if (from) for (let d = 0; d < dim; d++) sum[d] -= values[(from - 1) * dim + d];
    mean[t] = compare(
      sum.map((x) => x / (to - from)),
      v,
    ).error;
    newest[t] = compare(last, v).error;
  }
  return (unit.trivial = { mean, newest });
}

/** The strongest pairs at a token, [pair, weight], exactly from keys or as the record keeps them. */
export function strongestPairs(unit, t, forgotten, count) {
  if (unit.exact && t > 0) {
    const { row } = recall(unit, t, forgotten);
    return largest(row, count)
      .map((i) => [i, row[i]])
      .filter(([, weight]) => weight > 0);
  }
  if (!unit.pair_index) return [];
  return Array.from({ length: Math.min(count, unit.kept) }, (_, k) => [
    unit.pair_index[t * unit.kept + k],
    unit.pair_weight[t * unit.kept + k],
  ]).filter(([i]) => i >= 0);
}
