// The top of the page: what is shown, and what can be done with it.

import { button, h, menu } from "inspector/dom";
import { help } from "inspector/keyboard";
import { number } from "inspector/words";

/** Names and numbers of the records, and the buttons. */
export function header(app) {
  const check = ({ self_check: found }) => {
    const numbers = Object.entries(found ?? {}).filter(([, x]) => typeof x === "number"),
      worst = Math.max(0, ...numbers.map(([, x]) => x));
    return h(
      "details",
      { class: worst < 1e-3 ? "check good" : "check bad" },
      h(
        "summary",
        {},
        worst < 1e-3 ? "numbers check" : "numbers differ",
        h("small", {}, ` ${worst.toExponential(0)}`),
      ),
      h(
        "div",
        { class: "card" },
        h("p", {}, "Recomputed against the model itself, the largest differences are:"),
        h(
          "ul",
          { class: "plainList" },
          numbers.map(([name, x]) => h("li", {}, `${name.replaceAll("_", " ")}: ${x.toExponential(1)}`)),
        ),
      ),
    );
  };
  const file = h("input", {
    type: "file",
    accept: ".safetensors",
    hidden: true,
    onchange: () => app.openFiles(file.files),
  });
  return h(
    "header",
    { class: "top" },
    h("h1", {}, "Memory inspector"),
    app.records.map((record) =>
      h(
        "div",
        { class: "model" },
        h("b", {}, record.name),
        h("span", {}, `${record.T} tokens`),
        h("span", {}, `${record.L} × ${record.H} units`),
        h("span", {}, `loss ${number(record.meanLoss)} nats`),
        check(record),
      ),
    ),
    h(
      "div",
      { class: "buttons" },
      button("PNG", () => app.export("png")),
      button("SVG", () => app.export("svg")),
      button("CSV", () => app.export("csv")),
      button("Link", () => app.copyLink(), { title: "Copies the address of this view" }),
      button("Open", () => file.click(), {
        title: "Opens a record file; dropping one on the page does the same",
      }),
      file,
      button("◐", () => app.setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"), {
        "aria-label": "Light or dark",
        title: "Light or dark",
      }),
      button("?", () => help(), { "aria-label": "Keys", title: "What the keyboard does" }),
    ),
  );
}

/** What colours the text, what is searched, which unit and token are looked at. */
export function toolbar(app) {
  const [first] = app.records,
    { state } = app,
    perToken = first.measures.filter(({ perToken, memory }) => perToken && memory !== "persistent");
  app.measure = menu(
    "Colour by",
    [
      [
        "The model",
        [
          ["loss", "loss of each token"],
          ["entropy", "entropy"],
        ],
      ],
      ["The unit", perToken.map(({ name, title }) => [name, title])],
    ],
    state.measure,
    (measure) => state.set({ measure }),
  );
  app.input = h("input", {
    type: "search",
    placeholder: "a word of the text",
    oninput: () => state.set({ search: app.input.value }),
    onkeydown: (event) => event.key === "Enter" && app.findNext(event.shiftKey ? -1 : 1),
  });
  app.count = h("small", { role: "status" });
  const stepper = (label, back, forward) => {
    const middle = h("output", {});
    return [
      middle,
      h(
        "div",
        { class: "stepper", role: "group", "aria-label": label },
        h("span", {}, label),
        button("‹", back, { "aria-label": `Previous ${label.toLowerCase()}` }),
        middle,
        button("›", forward, { "aria-label": `Next ${label.toLowerCase()}` }),
      ),
    ];
  };
  const [unitName, unitStep] = stepper(
    "Unit",
    () => app.stepUnit(-1),
    () => app.stepUnit(1),
  );
  const [tokenName, tokenStep] = stepper(
    "Token",
    () => app.stepToken(-1),
    () => app.stepToken(1),
  );
  Object.assign(app, { unitName, tokenName });
  return h(
    "div",
    { class: "tools" },
    app.measure,
    h("label", { class: "search" }, h("span", {}, "Find"), app.input, app.count),
    unitStep,
    tokenStep,
  );
}
