// What the keyboard does outside of text and map, which have arrows of their own.

import { button, h } from "inspector/dom";
import { TABS } from "inspector/panel";

/** A key pressed anywhere but in a field. */
export function onKey(app, event) {
  if (
    event.ctrlKey ||
    event.metaKey ||
    event.altKey ||
    event.target.matches("input:not([type=checkbox]), select")
  )
    return;
  const act =
    {
      "/": () => app.input.focus(),
      "[": () => app.stepUnit(-1),
      "]": () => app.stepUnit(1),
      ",": () => app.stepToken(-1),
      ".": () => app.stepToken(1),
      "?": () => help(),
    }[event.key] ??
    (Number(event.key) >= 1 && Number(event.key) <= 6
      ? () => app.state.set({ tab: Object.keys(TABS)[Number(event.key) - 1] })
      : null);
  if (act) {
    event.preventDefault();
    act();
  }
}

/** Arrows move along the tabs. */
export function onTabKey(app, event, key) {
  const names = Object.keys(TABS),
    by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!by) return;
  const next = names[(names.indexOf(key) + by + names.length) % names.length];
  app.state.set({ tab: next });
  document.getElementById(`tab-${next}`).focus();
}

/** The list of keys. */
export function help() {
  const keys = [
    ["arrows", "move in the text and in the map"],
    ["Enter", "pins the token"],
    ["Escape", "back to the pinned token"],
    ["[ ]", "other unit"],
    [", .", "other token"],
    ["/", "find in the text; Enter goes on"],
    ["1 … 6", "other view"],
    ["?", "this list"],
  ];
  const dialog = h(
    "dialog",
    { "aria-label": "Keys", onclose: () => dialog.remove() },
    h("h2", {}, "Keys"),
    h(
      "dl",
      { class: "keys" },
      keys.map(([key, what]) => h("div", {}, h("dt", {}, h("kbd", {}, key)), h("dd", {}, what))),
    ),
    button("Close", () => dialog.close()),
  );
  document.body.append(dialog);
  dialog.showModal();
}
