// What needs the model again. A page from `--serve` finds its server; any other page shows none of this.

import { button, h } from "inspector/dom";
import { bars } from "inspector/charts";
import { AddedPairs } from "inspector/added_pairs";
import { number, percent, quoted, signed } from "inspector/words";

/** Whether a server answers, and for which record. Pages from files never ask. */
export async function findServer() {
  if (!location.protocol.startsWith("http")) return null;
  try {
    const answer = await fetch("api/status");
    return answer.ok ? await answer.json() : null;
  } catch {
    return null;
  }
}

export async function ask(path, question) {
  const answer = await fetch(`api/${path}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(question),
  });
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error);
  return content;
}

export class LivePanel {
  constructor(panel) {
    this.panel = panel;
    this.output = h("div", { role: "status", class: "answer" });
    this.added = new AddedPairs(panel, (name, question) => this.run(name, question));
  }

  element(facts) {
    if (!this.panel.app.server || this.panel.index) return null;
    const { state } = this.panel,
      [layer, unit] = state.unit.split(".").map(Number),
      pairs = state.forgotten;
    const none = pairs.length ? null : "Forget pairs with their switches first";
    const edit = (name, question, title) =>
      button(name, () => this.run(name, question), { disabled: Boolean(none), title: none ?? title });
    return h(
      "section",
      { class: "live", "aria-label": "Run the model again" },
      h("h3", {}, "Run the model again"),
      h(
        "div",
        { class: "buttons" },
        edit(
          "Forgotten in this unit",
          { deletions: [{ layer, unit, pairs }] },
          "The rest of the model runs on with the changed answer",
        ),
        edit(
          "Forgotten in all memories",
          { deletions: [{ layer: null, unit: null, pairs }] },
          "These pairs go from all units of all layers",
        ),
        edit(
          "Their tokens out of the text",
          { without: pairs.map((pair) => pair + 1) },
          "As if what came had never been written",
        ),
        button(
          "Without this unit",
          () =>
            this.run("Without this unit", {
              ablations: [{ memory: "contextual", layer, unit, how: "mean" }],
            }),
          { title: "Its answer replaced by its mean" },
        ),
        button("Likely next tokens, by this unit", () => this.candidates(layer, unit, facts.t)),
      ),
      this.added.element(layer, unit, facts.t),
      this.output,
    );
  }

  /** The likeliest tokens after the chosen one, now and before. */
  likely(answer) {
    const { record, token } = this.panel,
      place = answer.positions.indexOf(token);
    if (place < 0) return null;
    const chance = (text, logprob) => `${quoted(text)} ${percent(Math.exp(logprob))}`;
    const now = answer.top_texts[place]
      .slice(0, 3)
      .map((text, i) => chance(text, answer.top_logprobs[place][i]));
    const size = record.data.top_ids.length / record.T,
      was = token * size;
    return h(
      "p",
      { "data-fact": "likely" },
      `Likeliest after token ${token}: ${now.join(", ")}; it was `,
      chance(record.named(record.data.top_ids[was]), record.data.top_logprobs[was]),
      ".",
    );
  }

  async run(name, question) {
    this.output.replaceChildren(h("p", {}, "Running the model …"));
    try {
      const answer = await ask("edit", question),
        { record } = this.panel;
      const changes = answer.positions.map((at, j) => [at, (answer.loss[j] ?? NaN) - record.data.loss[at]]);
      const worst = changes
        .filter(([, x]) => Number.isFinite(x))
        .sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]))
        .slice(0, 6);
      const all = new Array(record.T).fill(NaN);
      for (const [at, x] of changes) all[at] = x;
      this.output.replaceChildren(
        h(
          "p",
          {},
          `${name}: mean loss `,
          h("b", {}, number(answer.mean_loss, 4)),
          `, was ${number(answer.recorded_mean_loss, 4)}.`,
        ),
        this.likely(answer) ?? "",
        bars({
          width: this.panel.width,
          values: all,
          label: "Change of the loss along the text",
          x: "change of the loss, nats",
          kindOf: (i) => (all[i] > 0 ? "hurts" : "helps"),
          marks: [
            [0, "0"],
            [record.T - 1, String(record.T - 1)],
          ],
        }),
        h(
          "ul",
          { class: "plainList" },
          worst.map(([at, x]) =>
            h(
              "li",
              {},
              `${at} ${quoted(record.tokens[at])}, then ${quoted(record.tokens[at + 1] ?? "")}: ${signed(x)} nats`,
            ),
          ),
        ),
      );
    } catch (error) {
      this.output.replaceChildren(h("p", { class: "problem" }, error.message));
    }
  }

  async candidates(layer, unit, token) {
    this.output.replaceChildren(h("p", {}, "Running the model …"));
    try {
      const { candidates, actual } = await ask("candidates", { layer, unit, token, count: 20 });
      this.output.replaceChildren(
        h(
          "p",
          {},
          "The model's likeliest next tokens, by the cosine of the unit's answer and the target that each would make:",
        ),
        h(
          "ol",
          { class: "chances" },
          candidates.map(({ id, text, probability, score }) =>
            h(
              "li",
              { class: id === actual ? "actual" : "" },
              h("span", { class: "what" }, quoted(text)),
              h("span", { class: "amount" }, number(score)),
              h("span", { class: "mark" }, id === actual ? "came" : `p ${number(probability)}`),
            ),
          ),
        ),
      );
    } catch (error) {
      this.output.replaceChildren(h("p", { class: "problem" }, error.message));
    }
  }
}
