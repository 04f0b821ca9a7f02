// What is measured of persistent units, whether they have slots or not.

import { h } from "inspector/dom";
import { number, percent } from "inspector/words";

export const WITHOUT_SLOTS =
  "The persistent memory of a layer is a feed-forward network, one unit without pairs to look at. What it is " +
  "worth, and what it adds to the logits, is measured like that of any unit.";

/** The measures of persistent units that a record holds. */
export const measuresOf = (record) =>
  record.measures.filter(({ memory, shape }) => memory === "persistent" && shape !== "relation");

/** A unit's numbers. */
export function facts(record, unit) {
  const value = (name) => record.unitValue(name, unit);
  return h(
    "dl",
    { class: "facts" },
    measuresOf(record).map(({ name, title, unit: of, description }) =>
      h(
        "div",
        { title: description },
        h("dt", {}, title),
        h(
          "dd",
          {},
          name === "persistent_dead_slots" ? percent(value(name)) : number(value(name)),
          h("small", {}, of && ` ${of}`),
        ),
      ),
    ),
  );
}
