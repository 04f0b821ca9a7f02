// One unit at one token: what it was asked for, what it answered, from which pairs, and what each pair is worth.

import { button, h, meter, redraw } from "inspector/dom";
import { bars } from "inspector/charts";
import { context, number, quoted, signed } from "inspector/words";
import { changeWithout, lookAt, ranked } from "inspector/pair_facts";
import { heading, vectors, verdict } from "inspector/pair_summary";
import { pairTable } from "inspector/pair_table";
import { tableFigure } from "inspector/export";
import { LivePanel } from "inspector/live";

const SHOWN = 12;

export class PairView {
  constructor(panel) {
    this.panel = panel;
    this.host = h("div", { class: "pairs" });
    this.live = new LivePanel(panel);
    this.shown = SHOWN;
  }

  async update(changed) {
    if (
      ![
        "unit",
        "token",
        "token2",
        "hover",
        "forgotten",
        "added",
        "ranking",
        "row",
        "tab",
        "theme",
        "live",
      ].some((name) => changed.has(name))
    )
      return;
    if (
      changed.has("hover") &&
      !["tab", "unit", "token", "forgotten", "added"].some((name) => changed.has(name))
    )
      return;
    if (changed.has("unit") || changed.has("token") || changed.has("token2")) this.shown = SHOWN;
    const unit = await this.panel.unitNow();
    this.facts = lookAt(this.panel, unit, this.panel.token);
    this.draw();
  }

  draw() {
    const { panel } = this,
      { record, state } = panel,
      { unit, t } = this.facts;
    if (!record.T || t < 0) {
      redraw(
        this.host,
        h(
          "p",
          { class: "quiet" },
          "Choose a token: click one in the text, or move with the arrows and press Enter.",
        ),
      );
      return;
    }
    redraw(
      this.host,
      heading(this),
      this.facts.empty
        ? h("p", { class: "quiet" }, this.emptiness())
        : [
            verdict(this),
            vectors(this),
            pairTable(this),
            this.whole(),
            this.tokens(),
            this.live.element(this.facts),
          ],
    );
  }

  /** Why the unit answers nothing here. */
  emptiness() {
    const { youngest } = this.facts.unit.kind;
    return youngest === 1
      ? "At the first token the memory is empty: it answers nothing."
      : `This memory holds pairs from ${youngest} tokens ago on; until then it is empty and answers nothing.`;
  }

  /** All weights at this token, with what each pair does to the error. */
  whole() {
    const { panel } = this,
      { state } = panel,
      { unit, pairs } = this.facts;
    if (!unit.exact) return null;
    if (!state.row)
      return h(
        "p",
        {},
        button(`Show all ${pairs.length} weights`, () => state.set({ row: 1 }), { "data-focus": "row" }),
      );
    const marks = [0, Math.floor(pairs.length / 2), pairs.length - 1]
      .filter((i, k, all) => all.indexOf(i) === k)
      .map((i) => [i, String(pairs[i].pair)]);
    const kindOf = (i) =>
      pairs[i].gone ? "none" : changeWithout(this.facts, pairs[i].effect) >= 0 ? "helps" : "hurts";
    const width = this.panel.width;
    this.charts = [
      bars({
        width,
        values: pairs.map(({ weight, gone }) => (gone ? 0 : weight)),
        label: `Weights of all ${pairs.length} pairs`,
        x: "weight by pair; blue helps, orange hurts",
        kindOf,
        marks,
      }),
      bars({
        width,
        values: pairs.map(({ effect, gone }) => (gone ? 0 : changeWithout(this.facts, effect))),
        label: "Change of the error without each pair",
        x: "change of the error without the pair",
        kindOf,
        marks,
      }),
    ];
    return h(
      "div",
      { class: "whole" },
      this.charts,
      button("Hide the weights", () => state.set({ row: 0 }), { "data-focus": "row" }),
    );
  }

  /** Two readings of the answer as tokens. */
  tokens() {
    const { record } = this.panel,
      { pushed, expected, t } = this.facts,
      actual = record.data.token_ids[t + 1];
    const list = (title, note, entries, amount) =>
      entries &&
      h(
        "div",
        {},
        h("h3", {}, title),
        h("p", { class: "quiet" }, note),
        h(
          "ol",
          { class: "chances" },
          entries.map(([id, value]) =>
            h(
              "li",
              { class: id === actual ? "actual" : "" },
              h("span", { class: "what" }, quoted(record.named(id))),
              meter(value / entries[0][1]),
              h("span", { class: "amount" }, amount(value)),
              h("span", { class: "mark" }, id === actual ? "came" : ""),
            ),
          ),
        ),
      );
    if (!pushed && !expected) return null;
    return h(
      "div",
      { class: "readings" },
      list("It expects", "next tokens whose target would be nearest to the answer (cosine)", expected, (x) =>
        number(x),
      ),
      list("It pushes up", "logits that the answer raises by itself, above their mean", pushed, (x) =>
        signed(x),
      ),
    );
  }

  table() {
    const { record } = this.panel;
    return {
      columns: [
        "pair",
        "after",
        "came",
        "weight",
        "share of answer",
        "error without it",
        "logit",
        "forgotten",
      ],
      rows: ranked(this.facts, this.panel.state.ranking).map(
        ({ pair, weight, share, effect, logit, gone }) => [
          pair,
          context(record, pair),
          record.tokens[pair + 1] ?? "",
          weight,
          share,
          this.facts.error + changeWithout(this.facts, effect),
          logit,
          gone ? "yes" : "",
        ],
      ),
    };
  }

  figure() {
    const { columns, rows } = this.table();
    return tableFigure({ columns, rows: rows.slice(0, this.shown) });
  }
}
