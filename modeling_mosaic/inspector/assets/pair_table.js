// The table of pairs: each in words, with what it weighs, what it does, and a switch that forgets it.

import { button, h, meter } from "inspector/dom";
import { changeWithout, ranked } from "inspector/pair_facts";
import { context, number, percent, quoted, signed } from "inspector/words";

const RANKINGS = {
  weight: "weight",
  share: "share of the answer",
  effect: "effect on the error",
  logit: "share of the logit",
};

/** The table of a view's pairs, as many as the view shows. */
export function pairTable(view) {
  const { panel, facts } = view,
    { state } = panel,
    { unit } = facts,
    all = ranked(facts, state.ranking),
    rows = all.slice(0, view.shown);
  const rest = all
    .slice(view.shown)
    .filter(({ gone }) => !gone)
    .reduce((sum, { weight }) => sum + weight, 0);
  const forgotten = panel.forgottenSet;
  return h(
    "section",
    { "aria-label": "Pairs" },
    h(
      "div",
      { class: "ranking", role: "group", "aria-label": "Rank pairs by" },
      h("span", {}, "Pairs by"),
      Object.entries(RANKINGS).map(([key, name]) =>
        button(name, () => state.set({ ranking: key }), {
          "aria-pressed": String(state.ranking === key),
          "data-focus": `rank-${key}`,
          disabled: key === "logit" && !unit.exact,
        }),
      ),
    ),
    h(
      "div",
      { class: "wide", "data-scroll": "pairs" },
      h(
        "table",
        { class: "pairTable" },
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            [
              ["kept", "Forget or keep the pair"],
              ["pair"],
              ["weight"],
              ["of answer", "Share of the answer: w v·y / |y|²"],
              ["error without it", "Prediction error if this unit forgets the pair: (y − w v) / (1 − w)"],
              ["logit", "What the pair adds to the logit of the true next token"],
            ].map(([name, title]) =>
              h("th", { scope: "col", title, class: ["kept", "pair"].includes(name) ? "" : "figure" }, name),
            ),
          ),
        ),
        h(
          "tbody",
          {},
          rows.map((one) => pairRow(view, one)),
        ),
      ),
    ),
    h(
      "p",
      { class: "rest" },
      all.length > rows.length
        ? [
            `${all.length - rows.length} more pairs hold `,
            h("b", {}, percent(rest)),
            " ",
            button(
              "Show 50 more",
              () => {
                view.shown += 50;
                view.draw();
              },
              { "data-focus": "more" },
            ),
          ]
        : null,
      forgotten.size
        ? button(`Restore ${forgotten.size} forgotten`, () => state.set({ forgotten: [] }), {
            "data-focus": "restore",
          })
        : null,
    ),
    h(
      "p",
      { class: "quiet" },
      unit.exact
        ? "Forgetting here is one unit's pair with everything else as it was: exact for this unit's answer. Later tokens keep what they took over from it."
        : "The keys and values of this unit are not in this page, so that only its strongest pairs show and none can be forgotten. Drop the record file on the page for all of them.",
    ),
  );
}

function pairRow({ panel, facts }, { pair, weight, share, effect, logit, gone }) {
  const { record, state } = panel,
    { exact } = facts.unit,
    change = changeWithout(facts, effect);
  const kind = change > 0 ? "helps" : "hurts";
  const without = Number.isFinite(effect) ? facts.error + change : NaN;
  return h(
    "tr",
    {
      class: gone ? "gone" : "",
      "data-pair": pair,
      onpointerenter: () => panel.app.show(panel, pair),
      onpointerleave: () => panel.app.show(panel, -1),
    },
    h(
      "td",
      {},
      h("input", {
        type: "checkbox",
        role: "switch",
        checked: !gone,
        disabled: !exact,
        "data-focus": `pair-${pair}`,
        "aria-label": `Keep pair ${pair}`,
        onchange: () =>
          state.set({
            forgotten: gone ? state.forgotten.filter((i) => i !== pair) : [...state.forgotten, pair],
          }),
      }),
    ),
    h(
      "td",
      { class: "words" },
      "after ",
      h("q", { class: "plain" }, `«${context(record, pair)}»`),
      " came ",
      h("b", { class: "came" }, quoted(record.tokens[pair + 1] ?? "")),
      h("small", {}, ` ${facts.t - pair} back`),
    ),
    h(
      "td",
      { class: "figure", "data-fact": "weight", "data-label": "weight" },
      meter(weight),
      percent(weight),
    ),
    h("td", { class: "figure", "data-fact": "share", "data-label": "of answer" }, percent(share)),
    h(
      "td",
      { class: "figure", "data-fact": "without", "data-label": "error without" },
      number(without, 4),
      h(
        "span",
        { class: `change ${kind}`, title: change > 0 ? "The pair helps" : "The pair hurts" },
        Number.isFinite(change) ? `${signed(change, 4)} ${change > 0 ? "▲" : "▽"}` : "",
      ),
    ),
    h("td", { class: "figure", "data-fact": "logit", "data-label": "logit" }, signed(logit)),
  );
}
