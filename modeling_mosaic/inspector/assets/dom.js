// Elements of the page. Text enters as text nodes only, so that no token can become markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style")
      for (const [key, part] of Object.entries(value)) element.style.setProperty(key, part);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}

/** An HTML element: h("p", { class: "note" }, "text", child). */
export function h(tag, properties, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** The same for SVG. */
export function s(tag, properties, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

/** A button with a visible name, and a longer one for tooltips. */
export function button(label, onclick, properties = {}) {
  return h("button", { type: "button", onclick, ...properties }, label);
}

/** A labelled menu; options are [value, text], or [group, [[value, text], ...]]. */
export function menu(label, options, value, onchange) {
  const option = ([key, text]) =>
    Array.isArray(text)
      ? h("optgroup", { label: key }, text.map(option))
      : h("option", { value: key, selected: key === value }, text);
  return h(
    "label",
    { class: "menu" },
    h("span", {}, label),
    h(
      "select",
      { onchange: (event) => onchange(event.target.value), "data-focus": `menu-${label}` },
      options.map(option),
    ),
  );
}

/** A canvas of a size in CSS pixels, sharp on dense screens. */
export function canvas(width, height, properties = {}) {
  const ratio = globalThis.devicePixelRatio || 1;
  const element = h("canvas", {
    width: Math.round(width * ratio),
    height: Math.round(height * ratio),
    ...properties,
  });
  element.style.width = `${width}px`;
  element.style.height = `${height}px`;
  const context = element.getContext("2d");
  context.scale(ratio, ratio);
  return [element, context];
}

/** Runs a function once at the next frame, however often it is asked to. */
export function onFrame(run) {
  let waiting = null;
  return (...parameters) => {
    if (waiting === null)
      requestAnimationFrame(() => {
        const last = waiting;
        waiting = null;
        run(...last);
      });
    waiting = parameters;
  };
}

/** Puts new children into a host, and leaves focus and scrolling where they were. */
export function redraw(host, ...children) {
  const key = host.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
  const scrolled = Array.from(host.querySelectorAll("[data-scroll]"), (e) => [
    e.dataset.scroll,
    e.scrollLeft,
    e.scrollTop,
  ]);
  host.replaceChildren(...children.flat(Infinity).filter(Boolean));
  for (const [name, left, top] of scrolled) {
    const element = host.querySelector(`[data-scroll="${name}"]`);
    if (element) Object.assign(element, { scrollLeft: left, scrollTop: top });
  }
  if (key) host.querySelector(`[data-focus="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}

/** A bar for a share. */
export function meter(share, kind = "") {
  const fill = h("i", { class: `fill ${kind}` });
  fill.style.width = `${100 * Math.min(1, Math.max(0, Number.isFinite(share) ? share : 0))}%`;
  return h("span", { class: "meter", "aria-hidden": "true" }, fill);
}
