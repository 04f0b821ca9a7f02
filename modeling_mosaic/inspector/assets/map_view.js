// All units and tokens at once: one row a unit, one column a token.

import { button, canvas, h, redraw, s } from "inspector/dom";
import { css, gradient } from "inspector/colours";
import { number, quoted } from "inspector/words";
import { drawing } from "inspector/charts";

const LEFT = 40,
  TOP = 4,
  BOTTOM = 22;

export class MapView {
  constructor(panel) {
    this.panel = panel;
    this.host = h("div", { class: "map" });
    new ResizeObserver(() => {
      if (this.host.offsetWidth && this.host.offsetWidth !== this.width) this.draw();
    }).observe(this.host);
  }

  /** Stretch of tokens that is shown. */
  get zoom() {
    const { record, state } = this.panel,
      [from = 0, to = record.T] = state.zoom;
    return [Math.max(0, Math.min(from, record.T - 1)), Math.min(record.T, Math.max(to, from + 1))];
  }

  get measure() {
    const { record, state } = this.panel;
    const one = record.byName[state.measure];
    return one?.perToken && one.memory !== "persistent"
      ? one.name
      : record.measures.find((m) => m.perToken && m.memory !== "persistent")?.name;
  }

  update(changed) {
    if (["measure", "zoom", "tab", "theme"].some((name) => changed.has(name)) || !this.overlay) this.draw();
    else if (["hover", "token", "token2", "unit"].some((name) => changed.has(name))) this.mark();
  }

  draw() {
    const { panel } = this,
      { record, state } = panel,
      name = this.measure;
    this.width = this.host.offsetWidth;
    if (!this.width) return;
    if (!name || record.T < 2) {
      redraw(this.host, h("p", { class: "quiet" }, "Nothing can be observed in this text yet."));
      return;
    }
    const rows = record.unitNames.length,
      [from, to] = this.zoom;
    this.rowHeight = Math.max(3, Math.min(26, Math.floor(560 / rows)));
    this.size = [Math.max(200, this.width - LEFT - 4), rows * this.rowHeight + 3 * (record.L - 1)];
    this.scale = panel.scale(name);
    const [image, context] = canvas(this.size[0] + LEFT, this.size[1] + TOP + BOTTOM, {
      "aria-hidden": "true",
    });
    this.paint(context, from, to, name);
    const [overlay, marks] = canvas(this.size[0] + LEFT, this.size[1] + TOP + BOTTOM, {
      tabindex: "0",
      role: "application",
      "aria-label": "Map of units and tokens: arrows move, Enter pins",
      "data-focus": `${panel.id}-map`,
      onpointermove: (event) => this.point(event),
      onpointerleave: () => panel.hover(-1),
      onclick: (event) => this.pick(event),
      onkeydown: (event) => this.key(event),
    });
    Object.assign(this, { image, overlay, marks });
    const bar = h("i", { class: "ramp" });
    bar.style.backgroundImage = gradient(this.scale);
    this.said = h("p", { class: "said", "aria-live": "polite" });
    const zoomed = (factor) => () => {
      const middle = panel.token >= from && panel.token < to ? panel.token : (from + to) / 2,
        half = Math.max(8, (to - from) * factor) / 2;
      const start = Math.max(0, Math.round(Math.min(middle - half, record.T - 2 * half)));
      const end = Math.min(record.T, Math.round(start + 2 * half));
      state.set({ zoom: start === 0 && end === record.T ? [] : [start, end] });
    };
    redraw(
      this.host,
      h(
        "div",
        { class: "legend" },
        h("span", {}, panel.title(name)),
        h("span", { class: "ends" }, number(this.scale.low, 2), bar, number(this.scale.high, 2)),
        h(
          "span",
          { class: "buttons" },
          button("+", zoomed(0.5), { "aria-label": "Zoom in", "data-focus": "in" }),
          button("−", zoomed(2), { "aria-label": "Zoom out", "data-focus": "out" }),
          button("all", () => state.set({ zoom: [] }), { "data-focus": "all" }),
        ),
      ),
      h("div", { class: "layers" }, image, overlay),
      this.said,
    );
    this.mark();
  }

  /** Colours one pixel a number, then stretches the picture to its place. */
  paint(context, from, to, name) {
    const { record } = this.panel,
      count = to - from;
    record.unitNames.forEach((unit, row) => {
      const picture = new ImageData(count, 1),
        array = record.along(name, unit);
      for (let i = 0; i < count; i++) {
        const value = array[from + i];
        if (Number.isFinite(value)) picture.data.set([...this.scale.rgb(value), 255], 4 * i);
      }
      const line = new OffscreenCanvas(count, 1);
      line.getContext("2d").putImageData(picture, 0, 0);
      // Wider than the place: neighbours are averaged. Narrower: each token keeps its edges.
      context.imageSmoothingEnabled = count > this.size[0];
      context.drawImage(
        line,
        LEFT,
        this.top(row),
        this.size[0],
        this.rowHeight - (this.rowHeight > 6 ? 1 : 0),
      );
    });
    const style = getComputedStyle(document.documentElement);
    context.fillStyle = style.getPropertyValue("--quiet");
    context.font = "11px system-ui, sans-serif";
    context.textAlign = "right";
    const each = this.rowHeight >= 12;
    record.unitNames.forEach((unit, row) => {
      if (each || row % record.H === 0)
        context.fillText(
          each ? unit : `layer ${unit.split(".")[0]}`.replace("layer ", "L"),
          LEFT - 7,
          this.top(row) + (each ? this.rowHeight / 2 + 4 : 10),
        );
    });
    context.textAlign = "center";
    for (const share of [0, 0.25, 0.5, 0.75, 1])
      context.fillText(
        String(Math.min(to - 1, Math.round(from + share * count))),
        Math.min(LEFT + this.size[0] - 13, Math.max(LEFT + 6, LEFT + share * this.size[0])),
        this.size[1] + TOP + 16,
      );
  }

  top(row) {
    return TOP + row * this.rowHeight + 3 * Math.floor(row / this.panel.record.H);
  }

  /** Unit and token under the pointer. */
  under({ offsetX, offsetY }) {
    const { record } = this.panel,
      [from, to] = this.zoom;
    const token = Math.floor(from + ((offsetX - LEFT) / this.size[0]) * (to - from));
    let row = record.unitNames.length - 1;
    while (row > 0 && this.top(row) > offsetY) row--;
    return { unit: record.unitNames[row], token: Math.min(to - 1, Math.max(from, token)) };
  }

  point(event) {
    const { unit, token } = this.under(event);
    this.over = unit;
    this.panel.hover(token);
    this.mark();
  }

  pick(event) {
    const { unit, token } = this.under(event);
    this.panel.pin(token, { unit });
  }

  key(event) {
    const { panel } = this,
      { record, state } = panel,
      names = record.unitNames,
      row = names.indexOf(state.unit);
    const [across, along] =
      { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key] ?? [];
    if (event.key === "Enter") panel.pin(panel.cursor);
    else if (across) state.set({ unit: names[Math.min(names.length - 1, Math.max(0, row + across))] });
    else if (along) panel.hover(Math.min(record.T - 1, Math.max(0, panel.cursor + along)));
    else return;
    event.preventDefault();
  }

  /** The cross hairs and the number under them. */
  mark() {
    const { panel, marks } = this,
      { record, state } = panel,
      [from, to] = this.zoom;
    if (!marks) return;
    const unit = state.hover >= 0 && this.over ? this.over : state.unit,
      token = panel.cursor;
    marks.clearRect(0, 0, this.size[0] + LEFT, this.size[1] + TOP + BOTTOM);
    marks.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--mark");
    marks.lineWidth = 1.5;
    const width = this.size[0] / (to - from),
      row = record.unitNames.indexOf(unit);
    if (token >= from && token < to)
      marks.strokeRect(
        LEFT + (token - from) * width - 0.5,
        TOP - 2,
        Math.max(2, width) + 1,
        this.size[1] + 4,
      );
    marks.strokeRect(LEFT - 1, this.top(row) - 1, this.size[0] + 2, this.rowHeight + 1);
    const name = this.measure,
      value = record.along(name, unit)?.[token];
    this.said.textContent =
      token < 0
        ? ""
        : `unit ${record.title(unit)} at ${token} ${quoted(record.tokens[token])}: ${panel.title(name)} ${number(value)}`;
  }

  table() {
    const { record } = this.panel,
      [from, to] = this.zoom,
      name = this.measure;
    return {
      columns: ["token", "text", ...record.unitNames],
      rows: Array.from({ length: to - from }, (_, i) => [
        from + i,
        record.tokens[from + i],
        ...record.unitNames.map((unit) => record.along(name, unit)?.[from + i] ?? NaN),
      ]),
    };
  }

  figure() {
    const width = this.image.width / (globalThis.devicePixelRatio || 1),
      height = this.image.height / (globalThis.devicePixelRatio || 1);
    const ends = [0, 1].map((x) => css(this.scale.rgb(x ? this.scale.high : this.scale.low)));
    return drawing(
      width,
      height + 26,
      this.panel.title(this.measure),
      s("image", { href: this.image.toDataURL(), width, height }),
      ends.map((fill, i) =>
        s("rect", { x: LEFT + i * 110, y: height + 6, width: 14, height: 14, fill, class: "cell" }),
      ),
      [this.scale.low, this.scale.high].map((x, i) =>
        s("text", { x: LEFT + i * 110 + 20, y: height + 18, class: "label" }, number(x, 2)),
      ),
    );
  }
}
