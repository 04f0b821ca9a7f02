// The page: header, tool bar, text, and one of the views; the parts meet in the state.

import { h, onFrame } from "inspector/dom";
import { checked } from "inspector/checked";
import { header, toolbar } from "inspector/header";
import { onKey, onTabKey } from "inspector/keyboard";
import { scaleOf } from "inspector/colours";
import { csv, png, save, standalone } from "inspector/export";
import { findServer } from "inspector/live";
import { Panel, TABS } from "inspector/panel";
import { Record } from "inspector/record";
import { State } from "inspector/state";
import { quoted } from "inspector/words";

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
    Object.assign(this.state, checked(this.state.read(), this.records));
    const frame = onFrame(() => this.flush());
    this.state.subscribe((changed) => {
      // Units differ in their pairs, and so does what was forgotten.
      if (changed.has("unit") && !changed.has("forgotten") && this.state.forgotten.length) {
        this.state.forgotten = [];
        changed.add("forgotten");
      }
      this.changed = new Set([...(this.changed ?? []), ...changed]);
      frame();
    });
    addEventListener("hashchange", () => this.state.set(checked(this.state.read(), this.records)));
    addEventListener("keydown", (event) => onKey(this, event));
    addEventListener("dragover", (event) => event.preventDefault());
    addEventListener("drop", (event) => {
      event.preventDefault();
      this.openFiles(event.dataTransfer.files);
    });
    this.build();
  }

  /** One scale of colours for a measure in all records and units. */
  scale(name) {
    if (!this.scales.has(name)) {
      const arrays = this.records
        .map((record) => record.data[name] ?? record.data[`measure.${name}`])
        .filter(Boolean);
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
    const tabs = Object.entries(TABS).map(([key, [name]]) =>
      h(
        "button",
        {
          type: "button",
          role: "tab",
          id: `tab-${key}`,
          "aria-controls": "views",
          onclick: () => this.state.set({ tab: key }),
          onkeydown: (event) => onTabKey(this, event, key),
        },
        name,
      ),
    );
    this.tabs = h("div", { class: "tabs", role: "tablist", "aria-label": "Views" }, tabs);
    this.views = h("div", { id: "views", role: "tabpanel", class: "views" });
    this.notice = h("p", { class: "notice", role: "status" });
    this.sentence = h("p", { class: "about", "aria-live": "polite" });
    this.host.className = this.records.length > 1 ? "app two" : "app";
    this.host.replaceChildren(
      header(this),
      toolbar(this),
      this.notice,
      h(
        "div",
        { class: "body" },
        h(
          "div",
          { class: "texts" },
          this.panels.map(({ text }) => text.host),
        ),
        h("div", { class: "work card" }, this.sentence, this.tabs, this.views),
      ),
    );
    this.redrawAll();
    document.documentElement.dataset.ready = "true";
  }

  redrawAll() {
    this.apply(new Set([...this.state.names, "theme", "hover", "live"]));
  }

  apply(changed) {
    if (!changed) return;
    const {
        state,
        panels: [panel],
      } = this,
      { record } = panel,
      [layer, head] = state.unit.split(".");
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
    this.unitName.textContent = record.title(state.unit);
    this.tokenName.textContent =
      panel.cursor < 0 ? "–" : `${panel.cursor} ${quoted(record.tokens[panel.cursor])}`;
    if (changed.has("unit"))
      this.sentence.replaceChildren(
        ...this.panels.map((one) =>
          h(
            "span",
            {},
            h("b", {}, `Unit ${one.record.title(state.unit)} `),
            this.panels.length > 1 && h("small", {}, `of ${one.name} `),
            one.record.sentences[layer]?.[head] ?? "is not in this model",
          ),
        ),
      );
    for (const one of this.panels) one.update(changed);
    if (changed.has("search"))
      this.count.textContent = state.search ? `${panel.text.found.length} found` : "";
  }

  /** Draws what has changed since the last frame. */
  flush() {
    const { changed } = this;
    this.changed = null;
    this.apply(changed);
  }

  stepUnit(by) {
    const names = this.records[0].unitNames,
      place = names.indexOf(this.state.unit);
    this.state.set({ unit: names[(place + by + names.length) % names.length] });
  }

  stepToken(by) {
    const [panel] = this.panels;
    if (panel.record.T) panel.pin(Math.min(panel.record.T - 1, Math.max(0, panel.token + by)));
  }

  /** Pins the next place that was searched for. */
  findNext(by) {
    this.flush();
    const [panel] = this.panels,
      starts = panel.text.found.map(([first]) => first);
    if (!starts.length) return;
    const after =
      by > 0
        ? (starts.find((i) => i > panel.token) ?? starts[0])
        : (starts.findLast((i) => i < panel.token) ?? starts.at(-1));
    panel.pin(after);
    panel.text.spans[after].scrollIntoView({ block: "center" });
  }

  /** Outlines a pair of a list in the text. */
  show(panel, pair) {
    panel.text.box.querySelector(".shown")?.classList.remove("shown");
    if (pair >= 0) panel.text.spans[pair + 1]?.classList.add("shown");
  }

  say(text) {
    this.notice.textContent = text;
  }

  async copyLink() {
    const address = location.href.split("#")[0] + this.state.link();
    try {
      await navigator.clipboard.writeText(address);
      this.say("The address of this view is copied.");
    } catch {
      this.say(address);
    }
  }

  /** Saves the view, or the text, as a file for each record. */
  async export(kind, part = this.state.tab) {
    for (const panel of this.panels) {
      const view = part === "text" ? panel.text : panel.view;
      const place = part === "pairs" ? `-${panel.unit}-${panel.token}` : "";
      const name = `${panel.name}-${part}${place}`.replace(/[^\p{L}\p{N}.-]+/gu, "_");
      try {
        save(`${name}.${kind}`, await this.file(kind, view));
      } catch (error) {
        this.say(`Nothing to save here: ${error.message}`);
      }
    }
  }

  async file(kind, view) {
    // Spreadsheets take a file without the mark at its beginning for one in another alphabet.
    if (kind === "csv") return new Blob(["\ufeff", csv(view.table())], { type: "text/csv" });
    const svg = standalone(view.figure());
    return kind === "svg" ? new Blob([svg], { type: "image/svg+xml" }) : png(svg);
  }

  async openFiles(files) {
    try {
      const records = await Promise.all(
        Array.from(files)
          .slice(0, 2)
          .map((file) => Record.dropped(file)),
      );
      if (!records.length) return;
      this.records = records;
      this.server = null;
      Object.assign(this.state, checked(this.state.read(), this.records));
      this.build();
    } catch (error) {
      this.say(`This file cannot be shown: ${error.message}`);
    }
  }
}
