// How a unit fares as its memory fills: its error by the number of pairs so far, beside trivial predictors.

import { button, h, redraw, s } from "inspector/dom";
import { lines } from "inspector/charts";
import { number } from "inspector/words";
import { stacked } from "inspector/export";

const SERIES = [
  ["own", "this unit"],
  ["mean", "mean of values"],
  ["newest", "newest value"],
  ["known", "known part"],
];

/** Ends of bins that grow by half: 1, 2, 3, 4, 6, 9, 13, ... */
function bins(T) {
  const ends = [1];
  while (ends.at(-1) < T) ends.push(Math.max(ends.at(-1) + 1, Math.round(1.45 * ends.at(-1))));
  return ends;
}

/** Means of an array over bins of the number of pairs so far. */
function byPairs(array, T) {
  const ends = bins(T),
    points = [];
  for (let b = 0; b + 1 < ends.length; b++) {
    const part = Array.from(array.subarray(ends[b], Math.min(ends[b + 1], T))).filter(Number.isFinite);
    if (part.length)
      points.push([
        Math.sqrt(ends[b] * (Math.min(ends[b + 1], T) - 1)),
        part.reduce((sum, x) => sum + x, 0) / part.length,
      ]);
  }
  return points;
}

export class CurveView {
  constructor(panel) {
    this.panel = panel;
    this.host = h("div", { class: "curves" });
  }

  async series(name) {
    const { record } = this.panel,
      arrays = { own: record.along("error", name), ...record.trivial(await record.unit(name)) };
    return SERIES.filter(([kind]) => arrays[kind]).map(([kind, title]) => ({
      name: title,
      kind,
      points: byPairs(arrays[kind], record.T),
    }));
  }

  /** Error that was stated beforehand against error seen, in ten groups of equally many tokens. */
  calibration(unit) {
    const { record } = this.panel,
      stated =
        record.along("expected_error", unit) ??
        record.along("certainty", unit)?.map((x) => Math.sqrt(Math.max(0, 1 - x * x))),
      error = record.along("error", unit);
    if (!stated || !error) return [];
    const both = Array.from(error.keys())
      .filter((t) => Number.isFinite(stated[t]) && Number.isFinite(error[t]))
      .sort((a, b) => stated[a] - stated[b]);
    const size = Math.max(1, Math.ceil(both.length / 10)),
      mean = (part, array) => part.reduce((sum, t) => sum + array[t], 0) / part.length;
    const groups = Array.from({ length: Math.ceil(both.length / size) }, (_, i) =>
      both.slice(i * size, (i + 1) * size),
    );
    return groups.map((part) => [mean(part, stated), mean(part, error)]);
  }

  async update(changed) {
    if (!["unit", "tab", "theme"].some((name) => changed.has(name))) return;
    const { panel } = this,
      { record, state } = panel,
      { unit } = state;
    const { width } = panel;
    this.shown = await this.series(unit);
    if (unit !== state.unit) return;
    this.charts = [
      lines({
        width,
        series: this.shown,
        label: `Error of unit ${unit} by pairs so far`,
        x: "pairs so far",
        y: "prediction error",
        logarithmic: true,
      }),
      lines({
        width,
        series: [{ name: "seen", kind: "own dots", points: this.calibration(unit) }],
        label: `Stated and seen error of unit ${unit}`,
        x: "error stated beforehand",
        y: "error seen",
        diagonal: true,
        height: 220,
      }),
    ];
    const gain = record.unitValue("context_gain", unit),
      right = record.unitValue("calibration", unit);
    redraw(
      this.host,
      h("h2", {}, `Unit ${record.title(unit)} as its memory fills`),
      h(
        "p",
        { class: "quiet" },
        "Trivial predictors answer the mean of the values that the unit sees, the newest one, or the part of the target that is known beforehand. Below their lines the unit predicts something.",
      ),
      this.charts[0],
      Number.isFinite(gain) &&
        h("p", {}, `From 40–49 to 400–499 pairs the error changes by ${number(gain)}.`),
      h("h2", {}, "Does it know when it knows?"),
      h(
        "p",
        { class: "quiet" },
        "Before the outcome, the spread of the recalled values states an error; on the diagonal it is right.",
      ),
      this.charts[1],
      Number.isFinite(right) && h("p", {}, `Correlation of stated and seen error: ${number(right)}.`),
      h("h2", {}, "All units"),
      h(
        "div",
        { class: "small" },
        record.unitNames.map((name) => this.spark(name, name === unit)),
      ),
    );
  }

  /** A unit's error curve in small. */
  spark(unit, chosen) {
    const { record, state } = this.panel,
      array = record.along("error", unit);
    const points = array ? byPairs(array, record.T) : [];
    const x = (value) => (Math.log2(value) / Math.log2(Math.max(2, record.T))) * 92 + 2,
      y = (value) => 40 - Math.min(2, value) * 18;
    return button(
      [
        unit,
        s(
          "svg",
          { viewBox: "0 0 96 44", width: 96, height: 44, "aria-hidden": "true", class: "chart" },
          s("line", { x1: 2, x2: 94, y1: y(1), y2: y(1), class: "grid" }),
          s("path", {
            class: "line own",
            d: points.map(([a, b], i) => `${i ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join(""),
          }),
        ),
      ],
      () => state.set({ unit }),
      { "aria-pressed": String(chosen), "aria-label": `Unit ${unit}`, "data-focus": `spark-${unit}` },
    );
  }

  table() {
    return {
      columns: ["predictor", "pairs so far", "mean error"],
      rows: this.shown.flatMap(({ name, points }) => points.map(([n, error]) => [name, n, error])),
    };
  }

  figure() {
    return stacked(`Unit ${this.panel.state.unit} of ${this.panel.name}`, this.charts);
  }
}
