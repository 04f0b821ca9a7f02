// The text, coloured by a measure. Arrows move, Enter pins; the pairs that answer at a token light up in the text.

import { button, h, meter } from "inspector/dom";
import { css, gradient, ink, pale } from "inspector/colours";
import { matches, number, percent, quoted, visible } from "inspector/words";
import { strongestPairs } from "inspector/memory";
import { textFigure } from "inspector/export";

const LIT = 6;

export class TextView {
  constructor(panel) {
    this.panel = panel;
    const { record } = panel;
    this.spans = record.tokens.map((token, i) =>
      h(
        "span",
        {
          class: token === "\ufffd" ? "token half" : "token",
          role: "option",
          id: `${panel.id}-t${i}`,
          "data-i": i,
          "aria-selected": "false",
          "aria-label": token.trim() ? null : `token ${visible(token)}`,
        },
        /^[\n\r]+$/.test(token)
          ? `${visible(token)}\n`
          : token === ""
            ? "∅"
            : visible(token).replaceAll("↵", "↵\n"),
      ),
    );
    this.box = h(
      "div",
      {
        class: "prose",
        tabindex: "0",
        role: "listbox",
        "aria-label": `Text of ${record.T} tokens`,
        dir: "auto",
        "data-scroll": "text",
        onkeydown: (event) => this.key(event),
        onpointermove: ({ target }) => this.point(target),
        onpointerleave: () => panel.hover(-1),
        onclick: ({ target }) => target.dataset.i && panel.pin(Number(target.dataset.i)),
        onblur: () => panel.hover(-1),
      },
      this.spans,
    );
    if (!record.T)
      this.box.replaceChildren(
        h("p", { class: "quiet", role: "option", "aria-selected": "false" }, "The text is empty."),
      );
    this.legend = h("div", { class: "legend" });
    this.said = h("p", { class: "said", "aria-live": "polite" });
    this.next = h("section", { class: "next", "aria-label": "Next token" });
    this.host = h(
      "section",
      { class: "textPanel card", "aria-label": "Text" },
      panel.app.records.length > 1 && h("h2", {}, panel.name),
      this.box,
      this.legend,
      this.said,
      this.next,
    );
    this.lit = [];
  }

  point(target) {
    if (target.dataset.i !== undefined) this.panel.hover(Number(target.dataset.i));
  }

  key(event) {
    const { panel } = this,
      { T } = panel.record,
      now = panel.cursor;
    const to = {
      ArrowLeft: now - 1,
      ArrowRight: now + 1,
      Home: 0,
      End: T - 1,
      PageUp: now - 50,
      PageDown: now + 50,
      ArrowUp: this.line(now, -1),
      ArrowDown: this.line(now, 1),
    }[event.key];
    if (event.key === "Enter" || event.key === " ") panel.pin(now);
    else if (event.key === "Escape") panel.hover(-1);
    else if (to === undefined) return;
    else {
      panel.hover(Math.min(T - 1, Math.max(0, to)));
      this.spans[panel.cursor]?.scrollIntoView({ block: "nearest" });
    }
    event.preventDefault();
  }

  /** The token above or below another one. */
  line(i, direction) {
    const box = this.spans[i]?.getBoundingClientRect();
    if (!box) return 0;
    let best = i,
      far = Infinity,
      row = null;
    for (let j = i + direction; j >= 0 && j < this.spans.length; j += direction) {
      const other = this.spans[j].getBoundingClientRect(),
        away = Math.abs(other.top - box.top);
      if (away < 4) continue;
      row ??= other.top;
      if (Math.abs(other.top - row) > 4) break;
      if (Math.abs(other.left - box.left) < far) [best, far] = [j, Math.abs(other.left - box.left)];
    }
    return best;
  }

  /** The measure's number at a token. A token's own loss is that of the query before it. */
  value(i) {
    const { record, state } = this.panel,
      array = record.along(state.measure, state.unit);
    if (!array) return NaN;
    return state.measure === "loss" ? (i ? array[i - 1] : NaN) : array[i];
  }

  update(changed) {
    const { panel } = this,
      has = (...names) => names.some((name) => changed.has(name));
    if (has("measure", "theme") || (has("unit") && !["loss", "entropy"].includes(panel.state.measure)))
      this.colour();
    if (has("search")) this.search();
    if (has("token", "token2")) {
      this.pinned?.setAttribute("aria-selected", "false");
      this.pinned = this.spans[panel.token];
      this.pinned?.setAttribute("aria-selected", "true");
      this.drawNext();
      if (!has("hover") || has("tab")) this.bringIntoSight();
    }
    if (has("hover", "token", "token2", "unit", "forgotten", "measure")) this.light();
  }

  /** Scrolls the text, not the page, to the pinned token. */
  bringIntoSight() {
    const { pinned: token, box } = this;
    if (!token || !box.clientHeight) return;
    const top = token.offsetTop - box.offsetTop;
    if (top < box.scrollTop || top + 28 > box.scrollTop + box.clientHeight)
      box.scrollTop = Math.max(0, top - box.clientHeight / 2);
  }

  colour() {
    const { panel } = this,
      scale = (this.scale = pale(panel.scale(panel.state.measure)));
    this.spans.forEach((span, i) => {
      const value = this.value(i),
        rgb = Number.isFinite(value) ? scale.rgb(value) : null;
      span.style.backgroundColor = rgb ? css(rgb) : "";
      span.style.color = rgb ? ink(rgb) : "";
    });
    const bar = h("i", { class: "ramp" });
    bar.style.backgroundImage = gradient(scale);
    this.legend.replaceChildren(
      h("span", {}, panel.title(panel.state.measure)),
      h("span", { class: "ends" }, number(scale.low, 2), bar, number(scale.high, 2)),
      h(
        "span",
        { class: "buttons", role: "group", "aria-label": "Save the text" },
        ["PNG", "SVG", "CSV"].map((kind) => button(kind, () => panel.app.export(kind.toLowerCase(), "text"))),
      ),
    );
  }

  /** Marks the cursor and the pairs that the unit answers from there. */
  async light() {
    const { panel } = this,
      i = panel.cursor,
      { record, state } = panel;
    this.at?.classList.remove("cursor");
    this.at = this.spans[i];
    this.at?.classList.add("cursor");
    this.box.setAttribute("aria-activedescendant", this.at ? this.at.id : "");
    const unit = await panel.unitNow();
    if (i !== panel.cursor) return;
    for (const span of this.lit) {
      span.classList.remove("lit");
      span.style.removeProperty("--lit");
      delete span.dataset.pair;
    }
    this.lit = [];
    if (!this.at || !unit) {
      this.said.textContent = "";
      return;
    }
    const strongest = strongestPairs(unit, i, panel.forgottenSet, LIT);
    for (const [pair, weight] of strongest) {
      const span = this.spans[pair + 1];
      if (!span || weight < 0.01) continue;
      span.classList.add("lit");
      span.dataset.pair = pair;
      span.style.setProperty("--lit", `${Math.round(1 + 3 * Math.sqrt(weight))}px`);
      this.lit.push(span);
    }
    this.said.textContent = this.describe(i, strongest[0]);
  }

  describe(i, strongest) {
    const { record, state } = this.panel,
      loss = record.data.loss[i - 1],
      error = record.along("error", state.unit)?.[i];
    const parts = [`${i} ${quoted(record.tokens[i])}`, `loss ${number(loss)}`];
    if (!["loss", "error"].includes(state.measure))
      parts.push(`${this.panel.title(state.measure)} ${number(this.value(i))}`);
    parts.push(`error of ${state.unit} ${number(error)}`);
    if (strongest)
      parts.push(`answers from ${quoted(record.tokens[strongest[0] + 1])} ${percent(strongest[1])}`);
    return parts.join(" · ");
  }

  drawNext() {
    const { record } = this.panel,
      i = this.panel.token,
      ids = record.data.top_ids,
      K = ids && record.T ? ids.length / record.T : 0;
    if (i < 0 || !K) {
      this.next.replaceChildren();
      return;
    }
    const actual = i + 1 < record.T ? record.data.token_ids[i + 1] : null;
    const row = (id, p, rank) =>
      h(
        "li",
        { class: id === actual ? "actual" : "" },
        h("span", { class: "what" }, quoted(record.named(id))),
        meter(p),
        h("span", { class: "amount" }, percent(p)),
        h("span", { class: "mark" }, id === actual ? "came" : (rank ?? "")),
      );
    const places = Array.from({ length: K }, (_, k) => i * K + k);
    const rows = places.map((at) => row(ids[at], Math.exp(record.data.top_logprobs[at])));
    if (actual !== null && !places.some((at) => ids[at] === actual))
      rows.push(row(actual, Math.exp(-record.data.loss[i])));
    this.next.replaceChildren(
      h(
        "h2",
        {},
        "After ",
        quoted(record.tokens[i]),
        " the model expects",
        h(
          "small",
          {},
          ` entropy ${number(record.data.entropy?.[i])} nats${actual === null ? "" : `, loss ${number(record.data.loss[i])}`}`,
        ),
      ),
      h("ol", { class: "chances" }, rows),
    );
  }

  search() {
    const words = this.panel.state.search.toLowerCase();
    this.found = words ? matches(this.panel.record.tokens, words) : [];
    const within = new Set(this.found.flat());
    this.spans.forEach((span, i) => span.classList.toggle("found", within.has(i)));
  }

  table() {
    const { record, state } = this.panel;
    return {
      columns: ["token", "text", "loss", this.panel.title(state.measure)],
      rows: record.tokens.map((token, i) => [i, token, i ? record.data.loss[i - 1] : NaN, this.value(i)]),
    };
  }

  figure() {
    return textFigure(this.panel.record.tokens, (i) =>
      Number.isFinite(this.value(i)) ? this.scale.rgb(this.value(i)) : null,
    );
  }
}
