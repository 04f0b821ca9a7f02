// Pairs that a reader adds: after a place of the text came a token that did not. The server makes keys and values.

import { button, h } from "inspector/dom";
import { context, quoted, visible } from "inspector/words";

export class AddedPairs {
  /** `run(name, question)` asks the server. */
  constructor(panel, run) {
    this.panel = panel;
    this.run = run;
  }

  element(layer, unit, t) {
    const { state } = this.panel,
      { added, forgotten } = state,
      none = added.length ? null : "Add a pair first";
    const remembered = (name, where, title) =>
      button(
        name,
        () =>
          this.run(name, {
            additions: added.map(([after, came]) => ({ ...where, after, came })),
            deletions: forgotten.length ? [{ ...where, pairs: forgotten }] : [],
          }),
        { disabled: Boolean(none), title: none ?? title },
      );
    return h(
      "section",
      { class: "added", "aria-label": "Add pairs" },
      h("h3", {}, "Add a pair"),
      this.form(t),
      added.length > 0 &&
        h(
          "ul",
          { class: "plainList" },
          added.map((pair, place) => this.item(pair, place)),
        ),
      h(
        "div",
        { class: "buttons" },
        remembered("Remembered by this unit", { layer, unit }, "The rest of the model runs on with it"),
        remembered(
          "Remembered by all memories",
          { layer: null, unit: null },
          "A pair in each unit of each layer",
        ),
      ),
      h(
        "p",
        { class: "quiet" },
        "The pair is what a unit would have stored there. All tokens see it, as if it stood in front of the text; pairs with their switches off stay forgotten.",
      ),
    );
  }

  form(t) {
    const { record, id } = this.panel;
    const where = h("q", { class: "plain" }, context(record, t)),
      problem = h("span", { class: "problem", role: "alert" });
    const after = h("input", {
      type: "number",
      min: 0,
      max: record.T - 1,
      required: true,
      "data-focus": "after",
      oninput: () => {
        where.textContent =
          record.tokens[after.value] === undefined ? "" : context(record, Number(after.value));
      },
    });
    after.value = String(t);
    const came = h("input", {
      list: `${id}-named`,
      required: true,
      autocomplete: "off",
      "data-focus": "came",
    });
    const add = (event) => {
      event.preventDefault();
      const token = this.find(came.value);
      if (token === undefined)
        problem.textContent = `${quoted(came.value)} is no token that this record names.`;
      else this.panel.state.set({ added: [...this.panel.state.added, [Number(after.value), token]] });
    };
    return h(
      "form",
      { onsubmit: add },
      h("label", { class: "menu" }, h("span", {}, "After token"), after),
      where,
      h("label", { class: "menu" }, h("span", {}, "came"), came),
      h(
        "datalist",
        { id: `${id}-named` },
        Array.from(record.candidate.keys(), (one) => h("option", { value: record.named(one) })),
      ),
      h("button", { type: "submit", "data-focus": "add" }, "Add"),
      problem,
    );
  }

  /** The id of a token by its text, with the blank in front that words have, or without. */
  find(text) {
    const { record } = this.panel,
      ids = [...record.candidate.keys()];
    return [text, ` ${text}`]
      .map((name) => ids.find((one) => [record.named(one), visible(record.named(one))].includes(name)))
      .find((one) => one !== undefined);
  }

  item([after, came], place) {
    const { record, state } = this.panel;
    return h(
      "li",
      {},
      `after «${context(record, after)}» came `,
      h("b", { class: "came" }, quoted(record.named(came))),
      " ",
      button("Remove", () => state.set({ added: state.added.filter((_, i) => i !== place) }), {
        class: "call",
        "aria-label": `Remove the added pair ${quoted(record.named(came))}`,
        "data-focus": `added-${place}`,
      }),
    );
  }
}
