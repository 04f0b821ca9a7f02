// Persistent memories: trained pairs by use, what they are worth, the tokens they speak for, and what calls them.

import { button, h, menu, meter, redraw } from "inspector/dom";
import { bars } from "inspector/charts";
import { context, number, percent, quoted, signed, tail } from "inspector/words";
import { stacked, tableFigure } from "inspector/export";
import { ask } from "inspector/live";
import { facts, measuresOf, WITHOUT_SLOTS } from "inspector/persistent_facts";

export class SlotView {
  constructor(panel) {
    this.panel = panel;
    this.host = h("div", { class: "slots" });
    this.shown = 16;
    /** What the server has found slots to be worth, by unit and slot. */
    this.weighed = new Map();
  }

  /** Whether slots are counted over many texts. */
  get overCorpus() {
    return this.panel.record.corpus && this.panel.state.counted !== "text";
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

  /** The numbers of the chosen unit, of this text or of many. */
  part(name) {
    const array = this.panel.record.data[`${this.overCorpus ? "corpus" : "persistent"}.${name}`],
      size = array ? array.length / (this.panel.record.L * this.panel.record.P) : 0;
    const place = this.panel.record.place(this.unit, this.panel.record.P);
    return array?.subarray(place * size, (place + 1) * size);
  }

  /** The most used slots, as numbers. */
  slots() {
    const { record } = this.panel,
      most = this.part("slot_most_used"),
      use = this.part("slot_use");
    if (!most || !use) return [];
    const each = (name, k) => {
      const array = this.part(name) ?? [],
        size = array.length / most.length;
      return Array.from(array.slice(k * size, (k + 1) * size));
    };
    // Pages have the lengths of the listed slots, record files those of all.
    const one = (name, k) => {
      const array = this.part(name);
      return array?.[array.length === most.length ? k : most[k]] ?? NaN;
    };
    return Array.from(most)
      .map((slot, k) => {
        const logits = each("slot_token_logits", k);
        return {
          slot,
          use: use[slot],
          length: one("slot_length", k),
          shift: one("slot_shift", k),
          worth: this.weighed.get(`${this.unit}.${slot}`) ?? each("slot_worth", k)[0] ?? NaN,
          tokens: each("slot_tokens", k).map((id, i) => [record.named(id), logits[i]]),
          callers: this.callers(k, each("slot_callers", k), each("slot_caller_weights", k)),
        };
      })
      .filter(({ slot }) => slot >= 0);
  }

  /** Where the k-th slot weighs most: [words, weight, place in the text]. */
  callers(k, places, weights) {
    const { record } = this.panel;
    if (!this.overCorpus)
      return places
        .map((t, i) => [context(record, t, 18), weights[i], t])
        .filter(([, weight, t]) => t >= 0 && weight > 0);
    const [layer, unit] = this.unit.split(".").map(Number);
    return record.corpus.contexts[layer][unit][k]
      .map(([before, came], i) => [`${tail(before, 24)} → ${quoted(came)}`, weights[i]])
      .filter(([, weight]) => weight > 0);
  }

  update(changed) {
    if (!["bank", "counted", "tab", "theme", "live"].some((name) => changed.has(name))) return;
    const { panel } = this,
      { record } = panel,
      use = this.part("slot_use"),
      slots = this.slots(),
      { unit } = this;
    this.chart = null;
    if (!use) {
      redraw(this.host, this.chooser(unit), facts(record, unit), h("p", { class: "quiet" }, WITHOUT_SLOTS));
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
      h("div", { class: "buttons" }, this.chooser(unit), this.source()),
      facts(record, unit),
      this.chart,
      h(
        "p",
        { class: "quiet" },
        `The ${slots.length} most used slots hold ${percent(slots.reduce((sum, one) => sum + one.use, 0) / total)} of the weight on ${this.overCorpus ? `${record.corpus.num_tokens.toLocaleString("en")} tokens of these texts; the facts above are of this text` : "this text"}. Persistent memories have no target that could be observed: no prediction error.`,
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

  /** Over which texts slots are counted, where there is a choice. */
  source() {
    const { record, state } = this.panel;
    if (!record.corpus) return null;
    return menu(
      "Counted over",
      [
        ["", `${record.corpus.num_texts.toLocaleString("en")} texts`],
        ["text", "this text"],
      ],
      this.overCorpus ? "" : "text",
      (counted) => state.set({ counted }),
    );
  }

  slot({ slot, use, length, shift, worth, tokens, callers }, most) {
    const { panel } = this;
    return h(
      "li",
      { "data-slot": slot },
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
        h("span", { class: "quiet" }, "without it "),
        h(
          "span",
          {
            title:
              "Mean distance of the unit's answer without the slot from the answer, relative to it: exact",
          },
          "the answer moves by ",
          h("b", { "data-fact": "shift" }, percent(shift)),
        ),
        this.worth(slot, worth),
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
          callers.slice(0, 4).map(([words, weight, t]) => {
            const inside = [words, h("small", {}, ` ${percent(weight)}`)];
            return t === undefined
              ? h("span", { class: "chip" }, inside)
              : button(inside, () => panel.pin(t), { class: "call" });
          }),
        ),
    );
  }

  /** The loss without a slot minus the loss, where the model was run without it, or a button that does that. */
  worth(slot, worth) {
    if (this.overCorpus) return null;
    if (Number.isFinite(worth))
      return h(
        "span",
        {
          title:
            "Mean loss of this text without the slot, minus its loss: from a run of the model without it",
        },
        "the loss changes by ",
        h("b", { "data-fact": "worth" }, signed(worth, 5)),
        " nats",
      );
    const { app, index } = this.panel;
    if (!app.server || index) return null;
    return button(`Run without slot ${slot}`, (event) => this.weigh(slot, event.target), {
      class: "call",
      "data-focus": `weigh-${slot}`,
    });
  }

  async weigh(slot, button) {
    const name = this.unit,
      [layer, unit] = name.split(".").map(Number);
    button.textContent = "Running …";
    try {
      const answer = await ask("edit", { removals: [{ layer, unit, slots: [slot] }] });
      this.weighed.set(`${name}.${slot}`, answer.mean_loss - answer.recorded_mean_loss);
      this.update(new Set(["live"]));
    } catch (error) {
      button.textContent = error.message;
    }
  }

  table() {
    const { record } = this.panel;
    if (!this.part("slot_use"))
      return {
        columns: ["measure", "value"],
        rows: measuresOf(record).map(({ name, title }) => [title, record.unitValue(name, this.unit)]),
      };
    return {
      columns: ["slot", "use", "key length", "shift of the answer", "worth", "speaks for", "called by"],
      rows: this.slots().map(({ slot, use, length, shift, worth, tokens, callers }) => [
        slot,
        use,
        length,
        shift,
        worth,
        tokens.map(([token]) => quoted(token)).join(" "),
        callers.map(([words]) => words).join(" | "),
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
