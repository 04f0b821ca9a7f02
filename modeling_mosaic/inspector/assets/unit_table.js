// One row a unit. Columns that tell trained units from untrained ones lead; a sentence says what they add up to.

import { button, h, redraw } from "inspector/dom";
import { number } from "inspector/words";
import { tableFigure } from "inspector/export";

const MORE = [
  "newest_mass",
  "same_token_mass",
  "effective_pairs",
  "age",
  "half_life",
  "key_scale",
  "certainty",
  "mix",
];

export class UnitTable {
  constructor(panel) {
    this.panel = panel;
    this.host = h("div", { class: "units" });
    this.body = h("div", {});
    this.input = h("input", {
      type: "search",
      placeholder: "carries, worth>0.1 …",
      "data-focus": `${panel.id}-filter`,
      oninput: () => panel.app.state.set({ filter: this.input.value }),
    });
    this.host.append(h("label", { class: "filter" }, h("span", {}, "Filter"), this.input), this.body);
  }

  get columns() {
    const { record } = this.panel;
    return [...record.leading, ...MORE]
      .filter((name) => record.perUnit(name))
      .map((name) => record.byName[name]);
  }

  get order() {
    return this.panel.state.order || `-${this.columns[0]?.name ?? "unit"}`;
  }

  /** Units in the order and with the filter of the reader. */
  rows() {
    const { record, state } = this.panel,
      name = this.order.replace(/^-/, "");
    const sign = this.order.startsWith("-") ? -1 : 1;
    const worth = (unit) => (record.byName[name] ? record.unitValue(name, unit) : record.place(unit));
    const keep = filterOf(state.filter, record);
    return record.unitNames.filter(keep).sort((a, b) => {
      const [x, y] = [worth(a), worth(b)];
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
      return sign * (x - y);
    });
  }

  update(changed) {
    if (!["unit", "order", "filter", "tab", "theme"].some((name) => changed.has(name))) return;
    const { panel } = this,
      { record, state } = panel,
      columns = this.columns,
      rows = this.rows();
    if (document.activeElement !== this.input) this.input.value = state.filter;
    const [by, down] = [this.order.replace(/^-/, ""), this.order.startsWith("-")];
    const head = (name, title, measure) =>
      h(
        "th",
        {
          scope: "col",
          "aria-sort": by === name ? (down ? "descending" : "ascending") : "none",
          class: measure ? "figure" : "unitName",
        },
        button(
          [title, measure?.unit && h("small", {}, measure.unit)],
          () => state.set({ order: by === name && down ? name : `-${name}` }),
          {
            title: measure?.description ?? "Layer and place in the layer",
            "data-focus": `${panel.id}-by-${name}`,
          },
        ),
      );
    const most = Object.fromEntries(
      columns.map(({ name }) => [
        name,
        Math.max(
          ...panel.app.records.flatMap((r) =>
            Array.from(r.perUnit(name) ?? [])
              .filter(Number.isFinite)
              .map(Math.abs),
          ),
          1e-9,
        ),
      ]),
    );
    redraw(
      this.body,
      h(
        "div",
        {
          class: "wide",
          "data-scroll": "units",
          tabindex: "0",
          role: "region",
          "aria-label": "Table of units",
        },
        h(
          "table",
          {},
          h(
            "thead",
            {},
            h(
              "tr",
              {},
              head("unit", "Unit"),
              record.isMixed && h("th", { scope: "col", class: "unitName" }, "Kind"),
              columns.map((measure) => head(measure.name, measure.title, measure)),
            ),
          ),
          rows.map((unit) => this.row(unit, columns, most)),
        ),
      ),
      h(
        "p",
        { class: "quiet" },
        `${rows.length} of ${record.unitNames.length} units. `,
        "Cost and shares are means over this text.",
      ),
    );
  }

  row(unit, columns, most) {
    const { panel } = this,
      { record, state } = panel,
      chosen = unit === state.unit;
    const cell = ({ name }, place) => {
      const value = record.unitValue(name, unit);
      const fill = place < 4 || name === "error" ? Math.abs(value) / most[name] : NaN;
      const td = h("td", { class: "figure", "data-measure": name }, number(value));
      if (Number.isFinite(fill)) td.style.setProperty("--fill", `${Math.round(100 * Math.min(1, fill))}%`);
      return td;
    };
    const [layer, head] = unit.split(".");
    return h(
      "tbody",
      { class: chosen ? "chosen" : "", onclick: () => state.set({ unit }) },
      h(
        "tr",
        {},
        h(
          "th",
          { scope: "row", class: "unitName" },
          button(unit, () => state.set({ unit }), {
            "aria-pressed": String(chosen),
            "data-focus": `${panel.id}-unit-${unit}`,
            "aria-label": `Unit ${unit}`,
          }),
        ),
        record.isMixed && h("td", { class: "unitName" }, record.kind(unit).name),
        columns.map(cell),
      ),
      h(
        "tr",
        { class: "sentence" },
        h("td", { colspan: columns.length + 1 + record.isMixed }, h("span", {}, record.sentences?.[layer]?.[head] ?? "")),
      ),
    );
  }

  table() {
    const { record } = this.panel,
      columns = this.columns;
    return {
      columns: [
        "unit",
        ...(record.isMixed ? ["kind"] : []),
        ...columns.map(({ title, unit }) => (unit ? `${title} (${unit})` : title)),
        "in words",
      ],
      rows: this.rows().map((unit) => {
        const [layer, head] = unit.split(".");
        return [
          unit,
          ...(record.isMixed ? [record.kind(unit).name] : []),
          ...columns.map(({ name }) => record.unitValue(name, unit)),
          record.sentences?.[layer]?.[head] ?? "",
        ];
      }),
    };
  }

  figure() {
    const { columns, rows } = this.table();
    return tableFigure({ columns: columns.slice(0, -1), rows: rows.map((row) => row.slice(0, -1)) });
  }
}

/** Words look into names and sentences; "title<number" compares a column. */
function filterOf(text, record) {
  const tests = text
    .trim()
    .split(/\s+/)
    .filter(Boolean)
    .map((part) => {
      const match = part.match(/^([\p{L}_]+)([<>])(-?[\d.]+)$/u);
      if (!match) {
        return (unit) => {
          const [layer, head] = unit.split(".");
          return (
            unit.startsWith(part) ||
            record.kind(unit).name === part ||
            (record.sentences?.[layer]?.[head] ?? "").toLowerCase().includes(part.toLowerCase())
          );
        };
      }
      const measure = record.measures.find(
        ({ name, title }) =>
          record.perUnit(name) && (name.startsWith(match[1]) || title.startsWith(match[1])),
      );
      return (unit) =>
        measure &&
        (match[2] === "<"
          ? record.unitValue(measure.name, unit) < Number(match[3])
          : record.unitValue(measure.name, unit) > Number(match[3]));
    });
  return (unit) => tests.every((test) => test(unit));
}
