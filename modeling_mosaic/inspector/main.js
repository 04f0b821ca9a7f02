// The page: header, tool bar, text, and one of the views; the parts meet in the state.

import { button, h, menu, onFrame } from "inspector/dom";
import { scaleOf } from "inspector/colours";
import { csv, png, save, standalone } from "inspector/export";
import { findServer } from "inspector/live";
import { Panel, TABS } from "inspector/panel";
import { Record } from "inspector/record";
import { State } from "inspector/state";
import { number, quoted } from "inspector/words";

const EVERYTHING = new Set(["measure", "search", "token", "token2", "unit", "forgotten", "tab", "ranking", "order", "filter", "zoom", "bank", "row", "theme", "hover", "live"]);

/** Opens the page on the records that it carries. */
export async function open() {
  const places = [0, 1].filter((place) => document.querySelector(`script[data-pack="${place}.record"]`));
  const app = new App(await Promise.all(places.map((place) => Record.embedded(place))));
  app.start();
  app.server = await findServer();
  if (app.server) app.redrawAll();
}

class App {
  constructor(records) {
    this.records = records;
    this.state = new State();
    this.host = document.getElementById("app");
    this.scales = new Map();
  }

  start() {
    this.setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    Object.assign(this.state, this.checked(this.state.read()));
    const frame = onFrame(() => { const changed = this.changed; this.changed = null; this.apply(changed); });
    this.state.subscribe((changed) => {
      // Units differ in their pairs, and so does what was forgotten.
      if (changed.has("unit") && !changed.has("forgotten") && this.state.forgotten.length) { this.state.forgotten = []; changed.add("forgotten"); }
      this.changed = new Set([...(this.changed ?? []), ...changed]);
      frame();
    });
    addEventListener("hashchange", () => this.state.set(this.checked(this.state.read())));
    addEventListener("keydown", (event) => this.key(event));
    addEventListener("dragover", (event) => event.preventDefault());
    addEventListener("drop", (event) => { event.preventDefault(); this.openFiles(event.dataTransfer.files); });
    this.build();
  }

  /** A state without what these records do not have. */
  checked(patch) {
    const [first] = this.records, known = first.unitNames.includes(patch.unit);
    const dearest = first.leading.find((name) => first.perUnit(name)), values = dearest && first.perUnit(dearest);
    const best = values ? first.unitNames.reduce((a, b) => (first.unitValue(dearest, b) > first.unitValue(dearest, a) ? b : a)) : first.unitNames[0];
    const place = (t, record) => (Number.isInteger(t) && t >= 0 && t < record.T ? t : Math.min(record.T - 1, Math.floor(0.6 * record.T)));
    return {
      ...patch,
      unit: known ? patch.unit : best,
      tab: patch.tab in TABS ? patch.tab : "units",
      measure: ["loss", "entropy"].includes(patch.measure) || first.byName[patch.measure]?.perToken ? patch.measure : "loss",
      token: place(patch.token, first),
      token2: place(patch.token2, this.records.at(-1)),
      forgotten: patch.forgotten.filter((i) => Number.isInteger(i) && i >= 0 && i < first.T - 1),
      zoom: patch.zoom.length === 2 && patch.zoom.every(Number.isFinite) ? patch.zoom : [],
      hover: -1, hover2: -1,
    };
  }

  /** One scale of colours for a measure in all records and units. */
  scale(name) {
    if (!this.scales.has(name)) {
      const arrays = this.records.map((record) => record.data[name] ?? record.data[`measure.${name}`]).filter(Boolean);
      this.scales.set(name, scaleOf(arrays, this.records[0].byName[name]?.range ?? null));
    }
    return this.scales.get(name);
  }

  setTheme(name) {
    document.documentElement.dataset.theme = name;
    this.state.set({ theme: name });
  }

  build() {
    this.scales.clear();
    this.panels = this.records.map((_, index) => new Panel(this, index));
    const tabs = Object.entries(TABS).map(([key, [name]]) => h("button", {
      type: "button", role: "tab", id: `tab-${key}`, "aria-controls": "views", onclick: () => this.state.set({ tab: key }),
      onkeydown: (event) => this.tabKey(event, key),
    }, name));
    this.tabs = h("div", { class: "tabs", role: "tablist", "aria-label": "Views" }, tabs);
    this.views = h("div", { id: "views", role: "tabpanel", class: "views" });
    this.notice = h("p", { class: "notice", role: "status" });
    this.sentence = h("p", { class: "about", "aria-live": "polite" });
    this.host.className = this.records.length > 1 ? "app two" : "app";
    this.host.replaceChildren(this.header(), this.toolbar(), this.notice, h("div", { class: "body" },
      h("div", { class: "texts" }, this.panels.map(({ text }) => text.host)),
      h("div", { class: "work card" }, this.sentence, this.tabs, this.views)));
    this.redrawAll();
    document.documentElement.dataset.ready = "true";
  }

  redrawAll() { this.apply(EVERYTHING); }

  header() {
    const check = ({ self_check: found }) => {
      const numbers = Object.entries(found ?? {}).filter(([, x]) => typeof x === "number"), worst = Math.max(0, ...numbers.map(([, x]) => x));
      return h("details", { class: worst < 1e-3 ? "check good" : "check bad" }, h("summary", {}, worst < 1e-3 ? "numbers check" : "numbers differ", h("small", {}, ` ${worst.toExponential(0)}`)),
        h("div", { class: "card" }, h("p", {}, "Recomputed against the model itself, the largest differences are:"), h("ul", { class: "plainList" }, numbers.map(([name, x]) => h("li", {}, `${name.replaceAll("_", " ")}: ${x.toExponential(1)}`)))));
    };
    const file = h("input", { type: "file", accept: ".safetensors", hidden: true, onchange: () => this.openFiles(file.files) });
    return h("header", { class: "top" }, h("h1", {}, "Memory inspector"),
      this.records.map((record) => h("div", { class: "model" }, h("b", {}, record.name), h("span", {}, `${record.T} tokens`), h("span", {}, `${record.L} × ${record.H} units`),
        h("span", {}, `loss ${number(record.meanLoss)} nats`), check(record))),
      h("div", { class: "buttons" }, button("PNG", () => this.export("png")), button("SVG", () => this.export("svg")), button("CSV", () => this.export("csv")),
        button("Link", () => this.copyLink(), { title: "Copies the address of this view" }), button("Open", () => file.click(), { title: "Opens a record file; dropping one on the page does the same" }), file,
        button("◐", () => this.setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"), { "aria-label": "Light or dark", title: "Light or dark" }),
        button("?", () => this.help(), { "aria-label": "Keys", title: "What the keyboard does" })));
  }

  toolbar() {
    const [first] = this.records, { state } = this, perToken = first.measures.filter(({ perToken, memory }) => perToken && memory !== "persistent");
    this.measure = menu("Colour by", [["The model", [["loss", "loss of each token"], ["entropy", "entropy"]]], ["The unit", perToken.map(({ name, title }) => [name, title])]], state.measure, (measure) => state.set({ measure }));
    this.input = h("input", { type: "search", placeholder: "a word of the text", oninput: () => state.set({ search: this.input.value }), onkeydown: (event) => event.key === "Enter" && this.findNext(event.shiftKey ? -1 : 1) });
    this.count = h("small", { role: "status" });
    const stepper = (label, back, forward) => {
      const middle = h("output", {});
      return [middle, h("div", { class: "stepper", role: "group", "aria-label": label }, h("span", {}, label), button("‹", back, { "aria-label": `Previous ${label.toLowerCase()}` }), middle, button("›", forward, { "aria-label": `Next ${label.toLowerCase()}` }))];
    };
    const [unitName, unitStep] = stepper("Unit", () => this.stepUnit(-1), () => this.stepUnit(1));
    const [tokenName, tokenStep] = stepper("Token", () => this.stepToken(-1), () => this.stepToken(1));
    Object.assign(this, { unitName, tokenName });
    return h("div", { class: "tools" }, this.measure, h("label", { class: "search" }, h("span", {}, "Find"), this.input, this.count), unitStep, tokenStep);
  }

  apply(changed) {
    if (!changed) return;
    const { state, panels: [panel] } = this, { record } = panel, [layer, head] = state.unit.split(".");
    if (changed.has("tab")) {
      this.views.replaceChildren(...this.panels.map(({ view }) => view.host));
      this.views.setAttribute("aria-labelledby", `tab-${state.tab}`);
      for (const tab of this.tabs.children) {
        const chosen = tab.id === `tab-${state.tab}`;
        tab.setAttribute("aria-selected", String(chosen));
        tab.tabIndex = chosen ? 0 : -1;
      }
    }
    this.measure.querySelector("select").value = state.measure;
    if (document.activeElement !== this.input) this.input.value = state.search;
    this.unitName.textContent = state.unit;
    this.tokenName.textContent = panel.cursor < 0 ? "–" : `${panel.cursor} ${quoted(record.tokens[panel.cursor])}`;
    if (changed.has("unit")) this.sentence.replaceChildren(...this.panels.map((one) => h("span", {}, h("b", {}, `Unit ${state.unit} `), this.panels.length > 1 && h("small", {}, `of ${one.name} `), one.record.sentences[layer]?.[head] ?? "is not in this model")));
    for (const one of this.panels) one.update(changed);
    if (changed.has("search")) this.count.textContent = state.search ? `${panel.text.found.length} found` : "";
  }

  stepUnit(by) {
    const names = this.records[0].unitNames, place = names.indexOf(this.state.unit);
    this.state.set({ unit: names[(place + by + names.length) % names.length] });
  }

  stepToken(by) {
    const [panel] = this.panels;
    if (panel.record.T) panel.pin(Math.min(panel.record.T - 1, Math.max(0, panel.token + by)));
  }

  /** Pins the next place that was searched for. */
  findNext(by) {
    const [panel] = this.panels, starts = panel.text.found.map(([first]) => first);
    if (!starts.length) return;
    const after = by > 0 ? starts.find((i) => i > panel.token) ?? starts[0] : starts.findLast((i) => i < panel.token) ?? starts.at(-1);
    panel.pin(after);
    panel.text.spans[after].scrollIntoView({ block: "center" });
  }

  /** Outlines a pair of a list in the text. */
  show(panel, pair) {
    panel.text.box.querySelector(".shown")?.classList.remove("shown");
    if (pair >= 0) panel.text.spans[pair + 1]?.classList.add("shown");
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName)) return;
    const act = {
      "/": () => this.input.focus(), "[": () => this.stepUnit(-1), "]": () => this.stepUnit(1), ",": () => this.stepToken(-1), ".": () => this.stepToken(1), "?": () => this.help(),
    }[event.key] ?? (Number(event.key) >= 1 && Number(event.key) <= 6 ? () => this.state.set({ tab: Object.keys(TABS)[Number(event.key) - 1] }) : null);
    if (act) { event.preventDefault(); act(); }
  }

  tabKey(event, key) {
    const names = Object.keys(TABS), by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    const next = names[(names.indexOf(key) + by + names.length) % names.length];
    this.state.set({ tab: next });
    document.getElementById(`tab-${next}`).focus();
  }

  help() {
    const keys = [["arrows", "move in the text and in the map"], ["Enter", "pins the token"], ["Escape", "back to the pinned token"], ["[ ]", "other unit"], [", .", "other token"], ["/", "find in the text; Enter goes on"], ["1 … 6", "other view"], ["?", "this list"]];
    const dialog = h("dialog", { "aria-label": "Keys", onclose: () => dialog.remove() }, h("h2", {}, "Keys"), h("dl", { class: "keys" }, keys.map(([key, what]) => h("div", {}, h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)))), button("Close", () => dialog.close()));
    document.body.append(dialog);
    dialog.showModal();
  }

  say(text) { this.notice.textContent = text; }

  async copyLink() {
    const address = location.href.split("#")[0] + this.state.link();
    try { await navigator.clipboard.writeText(address); this.say("The address of this view is copied."); } catch { this.say(address); }
  }

  /** Saves what is shown, one file a record. */
  async export(kind) {
    for (const panel of this.panels) {
      const name = `${panel.name}-${this.state.tab}${this.state.tab === "pairs" ? `-${panel.unit}-${panel.token}` : ""}`.replace(/[^\p{L}\p{N}.-]+/gu, "_");
      try {
        if (kind === "csv") save(`${name}.csv`, new Blob(["\ufeff", csv(panel.view.table())], { type: "text/csv" }));
        else {
          const svg = standalone(panel.view.figure());
          save(`${name}.${kind}`, kind === "svg" ? new Blob([svg], { type: "image/svg+xml" }) : await png(svg));
        }
      } catch (error) { this.say(`Nothing to save here: ${error.message}`); }
    }
  }

  async openFiles(files) {
    try {
      const records = await Promise.all(Array.from(files).slice(0, 2).map((file) => Record.dropped(file)));
      if (!records.length) return;
      this.records = records;
      this.server = null;
      Object.assign(this.state, this.checked(this.state.read()));
      this.build();
    } catch (error) { this.say(`This file cannot be shown: ${error.message}`); }
  }
}
