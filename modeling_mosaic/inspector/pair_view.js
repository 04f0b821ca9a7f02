// One unit at one token: what it was asked for, what it answered, from which pairs, and what each pair is worth.

import { button, canvas, h, meter, redraw } from "inspector/dom";
import { css, scaleOf } from "inspector/colours";
import { bars } from "inspector/charts";
import { context, number, percent, quoted, signed } from "inspector/words";
import { contributions, expectations, largest, recall } from "inspector/memory";
import { tableFigure } from "inspector/export";
import { LivePanel } from "inspector/live";

const SHOWN = 12;
const RANKINGS = { weight: "weight", share: "share of the answer", effect: "effect on the error", logit: "share of the logit" };

export class PairView {
  constructor(panel) {
    this.panel = panel;
    this.host = h("div", { class: "pairs" });
    this.live = new LivePanel(panel);
    this.shown = SHOWN;
  }

  async update(changed) {
    if (!["unit", "token", "token2", "hover", "forgotten", "ranking", "row", "tab", "theme", "live"].some((name) => changed.has(name))) return;
    if (changed.has("hover") && !["tab", "unit", "token", "forgotten"].some((name) => changed.has(name))) return;
    if (changed.has("unit") || changed.has("token") || changed.has("token2")) this.shown = SHOWN;
    const unit = await this.panel.unitNow();
    this.facts = this.look(unit, this.panel.token);
    this.draw();
  }

  /** Everything that is shown, as numbers. */
  look(unit, t) {
    const { record, forgottenSet } = this.panel, v = { unit, t };
    if (t < 0 || !record.T) return v;
    if (!unit.exact) {
      const at = Array.from({ length: unit.kept ?? 0 }, (_, k) => t * unit.kept + k).filter((i) => unit.pair_index[i] >= 0);
      v.pairs = at.map((i) => ({ pair: unit.pair_index[i], weight: unit.pair_weight[i], share: unit.pair_share?.[i] ?? NaN, effect: unit.pair_effect?.[i] ?? NaN, logit: NaN }));
      v.error = record.along("error", unit.name)?.[t] ?? NaN;
      v.certainty = record.along("certainty", unit.name)?.[t] ?? NaN;
      v.cosine = record.along("cosine", unit.name)?.[t] ?? NaN;
      return v;
    }
    v.before = recall(unit, t);
    v.now = forgottenSet.size ? recall(unit, t, forgottenSet) : v.before;
    const next = record.data.token_ids[t + 1], readout = next === undefined ? null : record.readout(unit, t, next);
    const part = contributions(unit, v.now, readout), first = contributions(unit, v.before, readout);
    v.pairs = Array.from({ length: t }, (_, i) => {
      const from = forgottenSet.has(i) ? [v.before, first] : [v.now, part];
      return { pair: i, weight: from[0].row[i], share: from[1].share[i], effect: from[1].effect[i], logit: from[1].logit[i], gone: forgottenSet.has(i) };
    });
    Object.assign(v, { error: v.now.error, certainty: v.now.certainty, cosine: v.now.cosine });
    v.logit = readout ? part.logit.reduce((sum, x) => sum + x, 0) : NaN;
    const logits = record.pushed(unit, t, v.now.y), ids = record.data["readout.token_ids"];
    if (logits && t) v.pushed = largest(logits, 8).map((b) => [ids[b], logits[b]]);
    const raw = record.rawValues(unit), place = record.candidate.get(record.data.token_ids[t]);
    if (raw && place !== undefined && t) {
      const cosine = expectations(raw, v.now.y, place, record.data["contextual.mix"][record.place(unit.name)], unit.dim);
      v.expected = largest(cosine, 8).map((b) => [ids[b], cosine[b]]);
    }
    return v;
  }

  ranked() {
    const { state } = this.panel, by = state.ranking, size = by === "weight" ? (x) => x : Math.abs;
    const value = (one) => (Number.isFinite(one[by]) ? size(one[by]) : -1);
    return [...(this.facts.pairs ?? [])].sort((a, b) => value(b) - value(a) || b.weight - a.weight);
  }

  draw() {
    const { panel } = this, { record, state } = panel, { unit, t } = this.facts;
    if (!record.T || t < 0) { redraw(this.host, h("p", { class: "quiet" }, "Choose a token: click one in the text, or move with the arrows and press Enter.")); return; }
    redraw(this.host, this.heading(), t === 0
      ? h("p", { class: "quiet" }, "At the first token the memory is empty: it answers nothing.")
      : [this.verdict(), this.vectors(), this.pairTable(), this.whole(), this.tokens(), this.live.element(this.facts)]);
  }

  heading() {
    const { record } = this.panel, { unit, t } = this.facts, next = record.tokens[t + 1];
    return h("h3", {}, `Unit ${unit.name} at ${t}: `, h("q", { class: "plain" }, context(record, t, 40)),
      h("small", {}, next === undefined ? " the next token is not known, so no target can be observed yet"
        : [" asked for the value that peeks at ", h("b", {}, quoted(next))]));
  }

  /** The error beside what the unit stated, what trivial predictors would do, and what the unit is worth here. */
  verdict() {
    const { record } = this.panel, { unit, t, before, now } = this.facts, changed = now && now !== before;
    const along = (name) => record.along(name, unit.name)?.[t] ?? NaN;
    const amount = (label, value, title, more = null, name = null) => h("div", { title }, h("dt", {}, label), h("dd", { "data-fact": name }, value, more && h("small", {}, more)));
    const references = [["this unit", this.facts.error, "own"], ["mean of the values", along("error_of_mean"), ""],
      ["newest value", along("error_of_newest"), ""], ["known part", along("error_of_known"), ""]].filter(([, x]) => Number.isFinite(x));
    return h("div", { class: "verdict" }, h("dl", {},
      amount("prediction error", number(this.facts.error), "|y − v| / |v|: 0 is perfect, 1 no better than silence", changed ? ` was ${number(before.error)}` : null, "error"),
      amount("stated beforehand", number(Math.sqrt(Math.max(0, 1 - this.facts.certainty ** 2))), "The error that the spread of the recalled values states: √(1 − certainty²)", ` certainty ${number(this.facts.certainty)}`, "stated"),
      amount("worth here", signed(along("ablation_cost")), "Loss at this token without the unit, minus loss", " nats", "worth"),
      amount("direct logit", signed(Number.isFinite(this.facts.logit) ? this.facts.logit : along("direct_logit")), "What the answer adds to the logit of the true next token, above the mean logit", null, "logit"),
      Number.isFinite(along("next_token_rank")) && amount("rank of what came", number(along("next_token_rank")), "Place of the true next token in the vocabulary by the unit's own target", null, "rank")),
    references.length > 1 && h("ul", { class: "references", "aria-label": "Error beside trivial predictors" }, references.map(([name, value, kind]) =>
      h("li", {}, h("span", {}, name), meter(value / 2, kind), h("b", {}, number(value))))));
  }

  /** Target and prediction, a cell a dimension. */
  vectors() {
    const { unit, before, now } = this.facts;
    if (!unit.exact) return null;
    const rows = [["target", before.v], ["prediction", before.y], now !== before && ["without", now.y]].filter((row) => row && row[1]);
    const scale = scaleOf(rows.map(([, vector]) => vector).concat([[-1e-9]]));
    return h("div", { class: "vectors" }, rows.map(([name, vector]) => {
      const [strip, pen] = canvas(unit.dim, 1, { role: "img", "aria-label": `${name}, ${unit.dim} numbers` });
      pen.setTransform(1, 0, 0, 1, 0, 0);
      strip.width = unit.dim; strip.height = 1; strip.removeAttribute("style");
      vector.forEach((x, d) => { pen.fillStyle = css(scale.rgb(x)); pen.fillRect(d, 0, 1, 1); });
      return h("div", {}, h("span", {}, name), strip);
    }));
  }

  pairTable() {
    const { panel } = this, { record, state } = panel, { unit } = this.facts, ranked = this.ranked(), rows = ranked.slice(0, this.shown);
    const rest = ranked.slice(this.shown).filter(({ gone }) => !gone).reduce((sum, { weight }) => sum + weight, 0);
    const most = Math.max(1e-9, ...rows.map(({ effect }) => Math.abs(this.change(effect))).filter(Number.isFinite));
    const forgotten = panel.forgottenSet;
    return h("section", { "aria-label": "Pairs" }, h("div", { class: "ranking", role: "group", "aria-label": "Rank pairs by" }, h("span", {}, "Pairs by"),
      Object.entries(RANKINGS).map(([key, name]) => button(name, () => state.set({ ranking: key }), {
        "aria-pressed": String(state.ranking === key), "data-focus": `rank-${key}`, disabled: key === "logit" && !unit.exact }))),
    h("div", { class: "wide", "data-scroll": "pairs" }, h("table", { class: "pairTable" },
      h("thead", {}, h("tr", {}, [["kept", "Forget or keep the pair"], ["pair"], ["weight"], ["of answer", "Share of the answer: w v·y / |y|²"],
        ["error without it", "Prediction error if this unit forgets the pair: (y − w v) / (1 − w)"], ["logit", "What the pair adds to the logit of the true next token"]]
        .map(([name, title]) => h("th", { scope: "col", title, class: ["kept", "pair"].includes(name) ? "" : "figure" }, name)))),
      h("tbody", {}, rows.map((one) => this.pairRow(one, most, unit.exact))))),
    h("p", { class: "rest" }, ranked.length > rows.length ? [`${ranked.length - rows.length} more pairs hold `, h("b", {}, percent(rest)), " ",
      button("Show 50 more", () => { this.shown += 50; this.draw(); }, { "data-focus": "more" })] : null,
    forgotten.size ? button(`Restore ${forgotten.size} forgotten`, () => state.set({ forgotten: [] }), { "data-focus": "restore" }) : null),
    h("p", { class: "quiet" }, unit.exact
      ? "Forgetting here is one unit's pair with everything else as it was: exact for this unit's answer. Later tokens keep what they took over from it."
      : "The keys and values of this unit are not in this page, so that only its strongest pairs show and none can be forgotten. Drop the record file on the page for all of them."));
  }

  /** Change of the error if a pair goes. */
  change(effect) {
    return Math.sqrt(Math.max(0, this.facts.error ** 2 + effect)) - this.facts.error;
  }

  pairRow({ pair, weight, share, effect, logit, gone }, most, exact) {
    const { panel } = this, { record, state } = panel, change = this.change(effect);
    const kind = change > 0 ? "helps" : "hurts";
    const without = Number.isFinite(effect) ? this.facts.error + change : NaN;
    return h("tr", { class: gone ? "gone" : "", "data-pair": pair, onpointerenter: () => panel.app.show(panel, pair), onpointerleave: () => panel.app.show(panel, -1) },
      h("td", {}, h("input", { type: "checkbox", role: "switch", checked: !gone, disabled: !exact, "data-focus": `pair-${pair}`, "aria-label": `Keep pair ${pair}`,
        onchange: () => state.set({ forgotten: gone ? state.forgotten.filter((i) => i !== pair) : [...state.forgotten, pair] }) })),
      h("td", { class: "words" }, "after ", h("q", { class: "plain" }, `«${context(record, pair)}»`), " came ", h("b", {}, quoted(record.tokens[pair + 1] ?? "")), h("small", {}, ` ${this.facts.t - pair} back`)),
      h("td", { class: "figure", "data-fact": "weight", "data-label": "weight" }, meter(weight), percent(weight)),
      h("td", { class: "figure", "data-fact": "share", "data-label": "of answer" }, percent(share)),
      h("td", { class: "figure", "data-fact": "without", "data-label": "error without" }, number(without), h("span", { class: `change ${kind}`, title: change > 0 ? "The pair helps" : "The pair hurts" },
        Number.isFinite(change) ? `${signed(change)} ${change > 0 ? "▲" : "▽"}` : "")),
      h("td", { class: "figure", "data-fact": "logit", "data-label": "logit" }, signed(logit)));
  }

  /** All weights at this token, with what each pair does to the error. */
  whole() {
    const { panel } = this, { state } = panel, { unit, t, pairs } = this.facts;
    if (!unit.exact) return null;
    if (!state.row) return h("p", {}, button(`Show all ${t} weights`, () => state.set({ row: 1 }), { "data-focus": "row" }));
    const marks = [0, Math.floor(t / 2), t - 1].filter((i, k, all) => all.indexOf(i) === k).map((i) => [i, String(i)]);
    const kindOf = (i) => (pairs[i].gone ? "none" : this.change(pairs[i].effect) >= 0 ? "helps" : "hurts");
    const width = this.panel.width;
    this.charts = [bars({ width, values: pairs.map(({ weight, gone }) => (gone ? 0 : weight)), label: `Weights of all ${t} pairs`, x: "weight by pair; blue helps, orange hurts", kindOf, marks }),
      bars({ width, values: pairs.map(({ effect, gone }) => (gone ? 0 : this.change(effect))), label: "Change of the error without each pair", x: "change of the error without the pair", kindOf, marks })];
    return h("div", { class: "whole" }, this.charts, button("Hide the weights", () => state.set({ row: 0 }), { "data-focus": "row" }));
  }

  /** Two readings of the answer as tokens. */
  tokens() {
    const { record } = this.panel, { pushed, expected, t } = this.facts, actual = record.data.token_ids[t + 1];
    const list = (title, note, entries, amount) => entries && h("div", {}, h("h4", {}, title), h("p", { class: "quiet" }, note), h("ol", { class: "chances" },
      entries.map(([id, value]) => h("li", { class: id === actual ? "actual" : "" }, h("span", { class: "what" }, quoted(record.named(id))), meter(value / entries[0][1]),
        h("span", { class: "amount" }, amount(value)), h("span", { class: "mark" }, id === actual ? "came" : "")))));
    if (!pushed && !expected) return null;
    return h("div", { class: "readings" },
      list("It expects", "next tokens whose target would be nearest to the answer (cosine)", expected, (x) => number(x)),
      list("It pushes up", "logits that the answer raises by itself, above their mean", pushed, (x) => signed(x)));
  }

  table() {
    const { record } = this.panel;
    return {
      columns: ["pair", "after", "came", "weight", "share of answer", "error without it", "logit", "forgotten"],
      rows: this.ranked().map(({ pair, weight, share, effect, logit, gone }) => [pair, context(record, pair), record.tokens[pair + 1] ?? "", weight, share,
        this.facts.error + this.change(effect), logit, gone ? "yes" : ""]),
    };
  }

  figure() {
    const { columns, rows } = this.table();
    return tableFigure({ columns, rows: rows.slice(0, this.shown) });
  }
}
