// Charts in SVG: lines, matrices, bars. Styles come from the page's sheet; exports take them along.

import { s } from "inspector/dom";
import { css, ink } from "inspector/colours";
import { number } from "inspector/words";

/** Round places for labels between two ends. */
function ticks(low, high, count = 5) {
  const rough = (high - low) / count,
    power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((x) => x * power).find((x) => x >= rough);
  const marks = [];
  for (let x = Math.ceil(low / step - 1e-9) * step; x <= high + 1e-9 * step; x += step)
    marks.push(Number(x.toPrecision(12)));
  return marks;
}

const logTicks = (low, high) =>
  Array.from({ length: 16 }, (_, i) => 2 ** i).filter((x) => x >= low && x <= high);

/** A drawing with a name for those who cannot see it. */
export function drawing(width, height, label, ...children) {
  return s(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label, class: "chart" },
    children,
  );
}

/** Lines over x. Series are { name, points: [[x, y], ...], kind }; kind is a class of the sheet. */
export function lines({
  series,
  label,
  x,
  y,
  width = 700,
  height = 280,
  logarithmic = false,
  from = null,
  to = null,
  diagonal = false,
}) {
  const margin = { left: 38, right: width < 480 ? 92 : 118, top: 24, bottom: 40 };
  const all = series.flatMap(({ points }) => points).filter(([, value]) => Number.isFinite(value));
  if (!all.length)
    return drawing(
      width,
      60,
      label,
      s("text", { x: 12, y: 34, class: "quiet" }, "Nothing can be observed in this text yet."),
    );
  const [xs, ys] = [all.map((p) => p[0]), all.map((p) => p[1])];
  const ends = {
    left: Math.min(...xs),
    right: Math.max(...xs),
    low: from ?? Math.min(0, ...ys),
    high: to ?? 1.06 * Math.max(...ys),
  };
  if (ends.right === ends.left) ends.right += 1;
  if (ends.high === ends.low) ends.high += 1;
  const bend = logarithmic ? Math.log2 : (value) => value;
  const px = (value) =>
    margin.left +
    ((bend(value) - bend(ends.left)) / (bend(ends.right) - bend(ends.left))) *
      (width - margin.left - margin.right);
  const py = (value) =>
    height -
    margin.bottom -
    ((value - ends.low) / (ends.high - ends.low)) * (height - margin.top - margin.bottom);
  const right = width - margin.right,
    bottom = height - margin.bottom;
  const grid = ticks(ends.low, ends.high).flatMap((mark) => [
    s("line", {
      x1: margin.left,
      x2: right,
      y1: py(mark),
      y2: py(mark),
      class: mark === 0 ? "axis" : "grid",
    }),
    s("text", { x: margin.left - 7, y: py(mark) + 4, class: "tick end" }, String(mark).replace("-", "−")),
  ]);
  const below = (logarithmic ? logTicks(ends.left, ends.right) : ticks(ends.left, ends.right)).map((mark) =>
    s("text", { x: px(mark), y: bottom + 17, class: "tick middle" }, String(mark)),
  );
  const drawn = series.map(({ points, kind }) => {
    const path = points
      .filter(([, value]) => Number.isFinite(value))
      .map(([a, b], i) => `${i ? "L" : "M"}${px(a).toFixed(1)} ${py(b).toFixed(1)}`);
    return s("path", { d: path.join(""), class: `line ${kind}` });
  });
  // Names stand at the lines' ends, pushed apart where they would meet.
  const names = series.map(({ name, points, kind }) => ({
    name,
    kind,
    at: py(points.filter(([, v]) => Number.isFinite(v)).at(-1)?.[1] ?? 0),
  }));
  names
    .sort((a, b) => a.at - b.at)
    .forEach((one, i) => {
      if (i) one.at = Math.max(one.at, names[i - 1].at + 14);
    });
  const over = Math.max(0, (names.at(-1)?.at ?? 0) - bottom);
  return drawing(
    width,
    height,
    label,
    grid,
    below,
    diagonal &&
      s("line", {
        x1: px(ends.left),
        y1: py(ends.left),
        x2: px(Math.min(ends.right, ends.high)),
        y2: py(Math.min(ends.right, ends.high)),
        class: "axis",
      }),
    drawn,
    names.map(({ name, kind, at }) =>
      s("text", { x: right + 8, y: at - over + 4, class: `name ${kind}` }, name),
    ),
    s("text", { x: (margin.left + right) / 2, y: height - 6, class: "label middle" }, x),
    s("text", { x: 0, y: 10, class: "label" }, y),
  );
}

/** A matrix with its numbers written in. */
export function matrix({ rows, columns, values, scale, label, cell = 46, onpick = null, marked = -1 }) {
  const left = 64,
    top = 22,
    height = 26;
  const shapes = rows.flatMap((_, r) =>
    columns.map((_, c) => {
      const value = values[r * columns.length + c],
        known = Number.isFinite(value),
        colour = known ? scale.rgb(value) : null;
      return s(
        "g",
        {},
        s("rect", {
          x: left + c * cell,
          y: top + r * height,
          width: cell - 2,
          height: height - 2,
          rx: 3,
          fill: known ? css(colour) : "none",
          class: "cell",
        }),
        s(
          "text",
          {
            x: left + c * cell + cell / 2 - 1,
            y: top + r * height + 16,
            class: "middle number",
            fill: known ? ink(colour) : null,
          },
          Number.isFinite(value) ? value.toFixed(2).replace("-", "−") : "–",
        ),
      );
    }),
  );
  const heads = [
    ...columns.map((name, c) =>
      s(
        "text",
        {
          x: left + c * cell + cell / 2 - 1,
          y: top - 7,
          class: c === marked ? "tick middle strong" : "tick middle",
        },
        name,
      ),
    ),
    ...rows.map((name, r) =>
      s(
        "text",
        {
          x: left - 8,
          y: top + r * height + 16,
          class: r === marked ? "tick end strong" : "tick end",
          onclick: onpick && (() => onpick(r)),
        },
        name,
      ),
    ),
  ];
  return drawing(left + columns.length * cell, top + rows.length * height + 4, label, shapes, heads);
}

/** Bars over places 0, 1, ..., upwards and downwards. */
export function bars({ values, label, x, width = 700, height = 110, kindOf = () => "", marks = [] }) {
  const finite = values.filter(Number.isFinite),
    high = Math.max(1e-12, ...finite),
    low = Math.min(0, ...finite);
  const left = 46,
    bottom = 24,
    span = height - bottom - 18;
  const step = (width - left - 6) / Math.max(1, values.length);
  const py = (value) => 18 + ((high - value) / (high - low)) * span;
  return drawing(
    width,
    height,
    label,
    s("line", { x1: left, x2: width - 6, y1: py(0), y2: py(0), class: "axis" }),
    Array.from(
      values,
      (value, i) =>
        Number.isFinite(value) &&
        Math.abs(value) > 0.001 * (high - low) &&
        s("rect", {
          x: left + i * step,
          width: Math.max(0.75, step - (step > 4 ? 1 : 0)),
          y: Math.min(py(value), py(0)),
          height: Math.max(0.5, Math.abs(py(value) - py(0))),
          class: `bar ${kindOf(i)}`,
        }),
    ),
    marks.map(([i, text]) =>
      s(
        "text",
        {
          x: left + (i + 0.5) * step,
          y: height - 8,
          class: `tick ${left + i * step > width - 24 ? "end" : "middle"}`,
        },
        text,
      ),
    ),
    s("text", { x: left - 7, y: py(high) + 4, class: "tick end" }, number(high)),
    low < 0 && s("text", { x: left - 7, y: py(low), class: "tick end" }, number(low)),
    s("text", { x: left, y: 10, class: "label" }, x),
  );
}
