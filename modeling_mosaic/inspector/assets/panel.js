// One record with its views; two panels stand side by side when records are compared.

import { TextView } from "inspector/text_view";
import { UnitTable } from "inspector/unit_table";
import { MapView } from "inspector/map_view";
import { PairView } from "inspector/pair_view";
import { CurveView } from "inspector/curve_view";
import { SlotView } from "inspector/slot_view";
import { RelationView } from "inspector/relation_view";

export const TABS = {
  units: ["Units", UnitTable],
  map: ["Map", MapView],
  pairs: ["Pairs", PairView],
  curves: ["Context", CurveView],
  slots: ["Persistent", SlotView],
  relations: ["Relations", RelationView],
};

export class Panel {
  constructor(app, index) {
    this.app = app;
    this.index = index;
    this.id = `r${index}`;
    this.record = app.records[index];
    this.state = app.state;
    const twins = app.records.filter(({ name }) => name === this.record.name).length > 1;
    this.name = twins ? `${this.record.name} (${index + 1})` : this.record.name;
    // Records of the same text share their place in it; others have one each.
    this.own = index > 0 && !this.record.same(app.records[0]);
    this.text = new TextView(this);
    this.views = Object.fromEntries(Object.entries(TABS).map(([key, [, View]]) => [key, new View(this)]));
  }

  /** Room for a chart. */
  get width() {
    return Math.max(300, Math.min(760, this.view.host.offsetWidth || 700));
  }

  get view() {
    return this.views[this.state.tab];
  }

  get token() {
    return Math.min(this.own ? this.state.token2 : this.state.token, this.record.T - 1);
  }

  get hovered() {
    return this.own ? this.state.hover2 : this.state.hover;
  }

  /** The token that is looked at: under the pointer, or pinned. */
  get cursor() {
    return this.hovered >= 0 ? this.hovered : this.token;
  }

  hover(i) {
    this.state.set({ [this.own ? "hover2" : "hover"]: i });
  }

  pin(i, more = {}) {
    this.state.set({ [this.own ? "token2" : "token"]: i, [this.own ? "hover2" : "hover"]: -1, ...more });
  }

  get forgottenSet() {
    return new Set(this.state.forgotten);
  }

  get unit() {
    return this.record.unitNames.includes(this.state.unit) ? this.state.unit : this.record.unitNames[0];
  }

  unitNow() {
    return this.record.unit(this.unit);
  }

  title(name) {
    return (
      { loss: "loss of each token", entropy: "entropy of the next token" }[name] ??
      this.record.byName[name]?.title ??
      name
    );
  }

  scale(name) {
    return this.app.scale(name);
  }

  /** Tells the views what changed; only those in sight are drawn. */
  update(changed) {
    this.text.update(changed);
    this.view.update(changed);
  }
}
