// Persistent memories: trained pairs by use, the tokens they speak for, and the places of the text that call them.

import { button, h, menu, meter, redraw } from "inspector/dom";
import { bars } from "inspector/charts";
import { context, number, percent, quoted, signed } from "inspector/words";
import { stacked, tableFigure } from "inspector/export";

const WITHOUT_SLOTS =
  "The persistent memory of a layer is a feed-forward network, one unit without pairs to look at. What it is " +
  "worth, and what it adds to the logits, is measured like that of any unit.";

export class SlotView {
  constructor(panel) {
    this.panel = panel;
    this.host = h("div", { class: "slots" });
    this.shown = 16;
  }

  get names() {
    const { record } = this.panel;
    return Array.from(
      { length: record.L * record.P },
      (_, i) => `${Math.floor(i / record.P)}.${i % record.P}`,
    );
  }

  get unit() {
    return this.names.includes(this.panel.state.bank) ? this.panel.state.bank : this.names[0];
  }

  part(name, ...shape) {
    const array = this.panel.record.data[`persistent.${name}`],
      size = array ? array.length / (this.panel.record.L * this.panel.record.P) : 0;
    const place = this.panel.record.place(this.unit, this.panel.record.P);
    return array?.subarray(place * size, (place + 1) * size);
  }

  /** The most used slots, as numbers. */
  slots() {
    const { record } = this.panel,
      most = this.part("slot_most_used"),
      use = this.part("slot_use"),
      lengths = this.part("slot_length");
    if (!most || !use) return [];
    const [tokens, logits, callers, weights] = [
      "slot_tokens",
      "slot_token_logits",
      "slot_callers",
      "slot_caller_weights",
    ].map((name) => this.part(name));
    return Array.from(most)
      .map((slot, k) => {
        const each = (array) =>
          array
            ? Array.from(
                array.subarray((k * array.length) / most.length, ((k + 1) * array.length) / most.length),
              )
            : [];
        const heavy = each(weights);
        return {
          slot,
          use: use[slot],
          length: lengths?.[lengths.length === most.length ? k : slot] ?? NaN,
          tokens: each(tokens).map((id, i) => [record.named(id), each(logits)[i]]),
          callers: each(callers)
            .map((t, i) => [t, heavy[i]])
            .filter(([t, w]) => t >= 0 && w > 0),
        };
      })
      .filter(({ slot }) => slot >= 0);
  }

  update(changed) {
    if (!["bank", "tab", "theme"].some((name) => changed.has(name))) return;
    const { panel } = this,
      use = this.part("slot_use"),
      slots = this.slots(),
      { unit } = this;
    this.chart = null;
    if (!use) {
      redraw(this.host, this.chooser(unit), this.facts(unit), h("p", { class: "quiet" }, WITHOUT_SLOTS));
      return;
    }
    const sorted = Float32Array.from(use).sort().reverse(),
      total = sorted.reduce((sum, x) => sum + x, 0);
    this.chart = bars({
      width: panel.width,
      values:
        sorted.length > 600 ? sorted.filter((_, i) => i % Math.ceil(sorted.length / 600) === 0) : sorted,
      label: "Use of all slots, most used first",
      x: `use of ${sorted.length} slots, most used first`,
      height: 90,
    });
    redraw(
      this.host,
      this.chooser(unit),
      this.facts(unit),
      this.chart,
      h(
        "p",
        { class: "quiet" },
        `The ${slots.length} most used slots hold ${percent(slots.reduce((sum, one) => sum + one.use, 0) / total)} of the weight on this text. Persistent memories have no target that could be observed: no prediction error.`,
      ),
      h(
        "ol",
        { class: "slotList" },
        slots.slice(0, this.shown).map((one) => this.slot(one, sorted[0])),
      ),
      slots.length > this.shown &&
        h(
          "p",
          { class: "rest" },
          button(
            "Show all",
            () => {
              this.shown = Infinity;
              this.update(new Set(["bank"]));
            },
            { "data-focus": "slots" },
          ),
        ),
    );
  }

  chooser(unit) {
    return menu(
      "Persistent unit",
      this.names.map((name) => [name, name]),
      unit,
      (bank) => this.panel.state.set({ bank }),
    );
  }

  /** What is measured of persistent units. */
  get measures() {
    return this.panel.record.measures.filter(
      ({ memory, shape }) => memory === "persistent" && shape !== "relation",
    );
  }

  facts(unit) {
    const value = (name) => this.panel.record.unitValue(name, unit);
    return h(
      "dl",
      { class: "facts" },
      this.measures.map(({ name, title, unit, description }) =>
        h(
          "div",
          { title: description },
          h("dt", {}, title),
          h(
            "dd",
            {},
            name === "persistent_dead_slots" ? percent(value(name)) : number(value(name)),
            h("small", {}, unit && ` ${unit}`),
          ),
        ),
      ),
    );
  }

  slot({ slot, use, length, tokens, callers }, most) {
    const { panel } = this,
      { record } = panel;
    return h(
      "li",
      {},
      h(
        "header",
        {},
        h("b", {}, `Slot ${slot}`),
        meter(use / most),
        h("span", {}, percent(use)),
        h("small", {}, `key length ${number(length)}`),
      ),
      h(
        "p",
        {},
        h("span", { class: "quiet" }, "speaks for "),
        tokens
          .slice(0, 8)
          .map(([token, logit]) =>
            h("span", { class: "chip", title: `${signed(logit)} logits` }, quoted(token)),
          ),
      ),
      callers.length > 0 &&
        h(
          "p",
          {},
          h("span", { class: "quiet" }, "called by "),
          callers
            .slice(0, 4)
            .map(([t, weight]) =>
              h(
                "button",
                { type: "button", class: "call", onclick: () => panel.pin(t) },
                context(record, t, 18),
                h("small", {}, ` ${percent(weight)}`),
              ),
            ),
        ),
    );
  }

  table() {
    const { record } = this.panel;
    if (!this.part("slot_use"))
      return {
        columns: ["measure", "value"],
        rows: this.measures.map(({ name, title }) => [title, record.unitValue(name, this.unit)]),
      };
    return {
      columns: ["slot", "use", "key length", "speaks for", "called by"],
      rows: this.slots().map(({ slot, use, length, tokens, callers }) => [
        slot,
        use,
        length,
        tokens.map(([token]) => quoted(token)).join(" "),
        callers.map(([t]) => context(record, t, 18)).join(" | "),
      ]),
    };
  }

  figure() {
    return stacked(`Persistent unit ${this.unit} of ${this.panel.name}`, [
      ...(this.chart ? [this.chart] : []),
      tableFigure(this.table()),
    ]);
  }
}
