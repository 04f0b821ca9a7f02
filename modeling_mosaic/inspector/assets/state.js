// What the reader looks at. It lives in the address after the #, so that a copied link brings the same view back.

// name in the link: [name here, read, write, value when absent]
const text = [(x) => x, (x) => x];
const whole = [Number, String];
const pairs = [
  (x) => (x ? x.split(",").map((pair) => pair.split(":").map(Number)) : []),
  (x) => x.map((pair) => pair.join(":")).join(","),
];
const list = [(x) => (x ? x.split(",").map(Number) : []), (x) => x.join(",")];
const FIELDS = {
  v: ["tab", ...text, "units"],
  u: ["unit", ...text, ""],
  t: ["token", ...whole, -1],
  t2: ["token2", ...whole, -1],
  m: ["measure", ...text, "loss"],
  k: ["ranking", ...text, "weight"],
  x: ["forgotten", ...list, []],
  a: ["added", ...pairs, []],
  o: ["order", ...text, ""],
  f: ["filter", ...text, ""],
  q: ["search", ...text, ""],
  z: ["zoom", ...list, []],
  p: ["bank", ...text, ""],
  c: ["counted", ...text, ""],
  w: ["row", ...whole, 0],
};

const equal = (a, b) => a === b || (Array.isArray(a) && Array.isArray(b) && String(a) === String(b));

export class State {
  constructor() {
    this.listeners = [];
    for (const [name, , , fallback] of Object.values(FIELDS)) this[name] = fallback;
    this.hover = this.hover2 = -1;
  }

  /** Takes what the address says. */
  read() {
    const link = new URLSearchParams(location.hash.slice(1));
    const patch = {};
    for (const [key, [name, read, , fallback]] of Object.entries(FIELDS)) {
      patch[name] = link.has(key) ? read(link.get(key)) : fallback;
    }
    return patch;
  }

  /** The address of the present view. */
  link() {
    const link = new URLSearchParams();
    for (const [key, [name, , write, fallback]] of Object.entries(FIELDS)) {
      if (!equal(this[name], fallback)) link.set(key, write(this[name]));
    }
    return `#${link}`;
  }

  get names() {
    return Object.values(FIELDS).map(([name]) => name);
  }

  subscribe(listener) {
    this.listeners.push(listener);
  }

  /** Changes some fields, tells the views which ones, and writes the link. */
  set(patch) {
    const changed = new Set(Object.keys(patch).filter((name) => !equal(this[name], patch[name])));
    if (!changed.size) return;
    Object.assign(this, patch);
    for (const listener of this.listeners) listener(changed);
    if (![...changed].every((name) => ["hover", "hover2", "theme"].includes(name))) {
      // A page inside another one may not be allowed to have an address of its own.
      try {
        history.replaceState(null, "", this.link());
      } catch {
        /* the link button still works */
      }
    }
  }
}
