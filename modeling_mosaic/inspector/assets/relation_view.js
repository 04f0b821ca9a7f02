// How the units of a layer relate: does each answer its own question best, do they ask and fail alike?

import { h, redraw } from "inspector/dom";
import { scaleOf } from "inspector/colours";
import { matrix } from "inspector/charts";
import { number } from "inspector/words";
import { stacked } from "inspector/export";

export class RelationView {
  constructor(panel) {
    this.panel = panel;
    this.host = h("div", { class: "relations" });
  }

  /** The matrices of the chosen unit's layer. */
  matrices() {
    const { record, state } = this.panel,
      layer = Number(state.unit.split(".")[0]);
    return record.measures
      .filter(({ name, shape }) => shape === "relation" && record.has(`measure.${name}`))
      .map((measure) => {
        const all = record.data[`measure.${measure.name}`],
          size = all.length / record.L,
          values = all.subarray(layer * size, (layer + 1) * size);
        const columns = Array.from({ length: record.H }, (_, i) => `${layer}.${i}`),
          rows = [...columns, ...["joint", "uniform"].slice(0, size / record.H - record.H)];
        return { measure, rows, columns, values };
      });
  }

  update(changed) {
    if (!["unit", "tab", "theme"].some((name) => changed.has(name))) return;
    const { panel } = this,
      { record, state } = panel,
      layer = state.unit.split(".")[0],
      mine = Number(state.unit.split(".")[1]);
    const all = this.matrices();
    this.charts = all.map(({ measure, rows, columns, values }) =>
      matrix({
        rows,
        columns,
        values,
        label: measure.title,
        marked: mine,
        scale: scaleOf(
          panel.app.records.map((r) => r.data[`measure.${measure.name}`] ?? []),
          measure.range,
        ),
        cell: record.H > 8 ? 40 : 52,
        onpick: (row) => row < record.H && state.set({ unit: `${layer}.${row}` }),
      }),
    );
    if (!all.length) {
      redraw(this.host, h("p", { class: "quiet" }, "This record holds no relations of units."));
      return;
    }
    redraw(
      this.host,
      all.map(({ measure, columns, rows, values }, i) =>
        h(
          "section",
          {},
          h("h2", {}, `Layer ${layer}: ${measure.title}`),
          h("p", { class: "quiet" }, measure.description),
          h(
            "div",
            {
              class: "wide",
              tabindex: "0",
              role: "region",
              "aria-label": measure.title,
              "data-scroll": measure.name,
            },
            this.charts[i],
          ),
          h("p", {}, this.summary(measure.name, values, rows.length, columns.length)),
        ),
      ),
    );
  }

  /** Own entries against the others', in words. */
  summary(name, values, rows, width) {
    if (width < 2) return "";
    const mean = (keep) => {
      const part = Array.from(values).filter(
        (x, i) => Number.isFinite(x) && keep(Math.floor(i / width), i % width),
      );
      return part.reduce((sum, x) => sum + x, 0) / part.length;
    };
    const own = mean((r, c) => r === c),
      others = mean((r, c) => r < width && r !== c);
    if (name !== "cross_retrieval") return `Mean over pairs of units: ${number(others)}.`;
    const joint =
      rows > width
        ? `; one joint memory reaches ${number(mean((r) => r === width))}, uniform weights ${number(mean((r) => r === width + 1))}`
        : "";
    return `Own weights reach ${number(own)} on average, other units' weights ${number(others)}${joint}.`;
  }

  table() {
    return {
      columns: ["measure", "row", "column", "value"],
      rows: this.matrices().flatMap(({ measure, rows, columns, values }) =>
        rows.flatMap((row, r) =>
          columns.map((column, c) => [measure.title, row, column, values[r * columns.length + c]]),
        ),
      ),
    };
  }

  figure() {
    return stacked(`Layer ${this.panel.state.unit.split(".")[0]} of ${this.panel.name}`, this.charts);
  }
}
