// A unit at a token in brief: what it was asked for, what it answered, and how that compares.

import { canvas, h, meter } from "inspector/dom";
import { css, scaleOf } from "inspector/colours";
import { context, number, quoted, signed } from "inspector/words";

const PREDICTORS = { mean: "mean of the values", newest: "newest value", known: "known part" };

/** Which unit, where, and which token its target peeks at. */
export function heading({ panel, facts }) {
  const { record } = panel,
    { unit, t } = facts,
    next = record.tokens[t + 1];
  return h(
    "h2",
    {},
    `Unit ${record.title(unit.name)} at ${t}: `,
    h("q", { class: "plain" }, context(record, t, 40)),
    h(
      "small",
      {},
      next === undefined
        ? " the next token is not known, so no target can be observed yet"
        : [" asked for the value that peeks at ", h("b", {}, quoted(next))],
    ),
  );
}

/** The error beside what the unit stated, what trivial predictors would do, and what the unit is worth here. */
export function verdict({ panel, facts }) {
  const { record } = panel,
    { unit, t, before, now } = facts,
    changed = now && now !== before;
  const along = (name) => record.along(name, unit.name)?.[t] ?? NaN;
  const amount = (label, value, title, more = null, name = null) =>
    h(
      "div",
      { title },
      h("dt", {}, label),
      h("dd", { "data-fact": name }, value, more && h("small", {}, more)),
    );
  const references = [
    ["this unit", facts.error, "own"],
    ...Object.entries(record.trivial(unit)).map(([kind, errors]) => [PREDICTORS[kind], errors[t], ""]),
  ].filter(([, x]) => Number.isFinite(x));
  return h(
    "div",
    { class: "verdict" },
    h(
      "dl",
      {},
      amount(
        "prediction error",
        number(facts.error),
        "|y − v| / |v|: 0 is perfect, 1 no better than silence",
        changed ? ` was ${number(before.error)}` : null,
        "error",
      ),
      amount(
        "stated beforehand",
        number(Math.sqrt(Math.max(0, 1 - facts.certainty ** 2))),
        "The error that the spread of the recalled values states: √(1 − certainty²)",
        ` certainty ${number(facts.certainty)}`,
        "stated",
      ),
      amount(
        "worth here",
        signed(along("ablation_cost")),
        "Loss at this token without the unit, minus loss",
        " nats",
        "worth",
      ),
      amount(
        "direct logit",
        signed(Number.isFinite(facts.logit) ? facts.logit : along("direct_logit")),
        "What the answer adds to the logit of the true next token, above the mean logit",
        null,
        "logit",
      ),
      Number.isFinite(along("next_token_rank")) &&
        amount(
          "rank of what came",
          number(along("next_token_rank")),
          "Place of the true next token in the vocabulary by the unit's own target",
          null,
          "rank",
        ),
    ),
    references.length > 1 &&
      h(
        "ul",
        { class: "references", "aria-label": "Error beside trivial predictors" },
        references.map(([name, value, kind]) =>
          h("li", {}, h("span", {}, name), meter(value / 2, kind), h("b", {}, number(value))),
        ),
      ),
  );
}

/** Target and prediction, a cell a dimension. */
export function vectors({ panel, facts }) {
  const { unit, before, now } = facts;
  if (!unit.exact) return null;
  const rows = [["target", before.v], ["prediction", before.y], now !== before && ["without", now.y]].filter(
    (row) => row && row[1],
  );
  const scale = scaleOf(rows.map(([, vector]) => vector).concat([[-1e-9]]));
  return h(
    "div",
    { class: "vectors" },
    rows.map(([name, vector]) => {
      const [strip, pen] = canvas(unit.dim, 1, {
        role: "img",
        "aria-label": `${name}, ${unit.dim} numbers`,
      });
      pen.setTransform(1, 0, 0, 1, 0, 0);
      strip.width = unit.dim;
      strip.height = 1;
      strip.removeAttribute("style");
      vector.forEach((x, d) => {
        pen.fillStyle = css(scale.rgb(x));
        pen.fillRect(d, 0, 1, 1);
      });
      return h("div", {}, h("span", {}, name), strip);
    }),
  );
}
