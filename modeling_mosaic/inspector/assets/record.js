// A record of memories: what the page knows of one model and one text.

import { trivialErrors } from "inspector/memory";
import { openEmbedded, openFile, TensorFile } from "inspector/safetensors";

const SLOTS = [
  "use",
  "most_used",
  "length",
  "shift",
  "worth",
  "tokens",
  "token_logits",
  "callers",
  "caller_weights",
];
const EAGER = [
  "loss",
  "entropy",
  "top_ids",
  "top_logprobs",
  "token_ids",
  "final_scale",
  "readout.token_ids",
  "readout.rows",
  "readout.raw_values",
  "contextual.mix",
  "contextual.value_scale",
  ...["persistent", "corpus"].flatMap((source) => SLOTS.map((name) => `${source}.slot_${name}`)),
];
const DETAILS = [
  "tokens",
  "config",
  "kinds",
  "num_persistent_units",
  "model_name",
  "self_check",
  "vocabulary",
];
/** What the measures are called and mean; the same for all records. */
const catalogue = JSON.parse(atob(document.getElementById("catalogue").textContent));
const PAIRS = ["pair_index", "pair_weight", "pair_effect"];

/** Mean of what is observable in each stretch of `length` numbers. */
function means(array, length) {
  return Float32Array.from({ length: array.length / length }, (_, unit) => {
    let sum = 0,
      count = 0;
    for (const x of array.subarray(unit * length, (unit + 1) * length))
      if (Number.isFinite(x)) {
        sum += x;
        count++;
      }
    return count ? sum / count : NaN;
  });
}

export class Record {
  /** The record embedded in the page at a place, 0 or 1. Packs of single units are opened when they are wanted. */
  static async embedded(place) {
    const packs = new Map(
      Array.from(document.querySelectorAll(`script[data-pack^="${place}."]`), (element) => [
        element.dataset.pack.slice(2),
        element,
      ]),
    );
    const now = [...packs.keys()].filter((name) => !name.startsWith("unit."));
    const files = await Promise.all(now.map((name) => openEmbedded(packs.get(name))));
    const openUnit = (name) => (packs.has(name) ? openEmbedded(packs.get(name)) : null);
    const record = await new Record(TensorFile.joined(files), openUnit).load();
    record.whole = [...packs.keys()].filter((name) => name.startsWith("unit.")).map((name) => name.slice(5));
    return record;
  }

  /** A record file of the reader. */
  static async dropped(file) {
    const tensors = await openFile(file);
    if (tensors.metadata.format !== "memory-mosaics-record")
      throw new Error(`${file.name} holds no record of memories`);
    if (!tensors.metadata.kinds) throw new Error(`${file.name} is of an older version; record it again`);
    return new Record(tensors, null).load();
  }

  constructor(file, openUnit) {
    this.file = file;
    this.openUnit = openUnit;
    this.units = new Map();
    this.data = {};
    /** Units whose keys and values a page has, the dearest first; files have those of all. */
    this.whole = null;
    for (const key of DETAILS) this[key] = JSON.parse(file.metadata[key]);
    this.sentences = JSON.parse(file.metadata.sentences ?? "[]");
    /** Slots over many texts: { contexts, vocabulary, num_texts, num_tokens }, or null. */
    this.corpus = JSON.parse(file.metadata.corpus ?? "null");
    Object.assign(this.vocabulary, this.corpus?.vocabulary);
    this.leading = catalogue.leading;
    this.measures = catalogue.measures
      .filter(({ name }) => file.has(`measure.${name}`) || file.has(`mean.${name}`))
      .map((one) => ({ ...one }));
    this.name = this.model_name.split(/[\\/]/).filter(Boolean).at(-1) ?? "model";
    this.T = this.tokens.length;
    this.L = this.config.num_hidden_layers;
    this.H = this.kinds.length;
    this.P = this.num_persistent_units;
    this.same = (other) =>
      other && other.T === this.T && other.tokens.every((token, i) => token === this.tokens[i]);
  }

  async load() {
    const names = this.measures.map(({ name }) => name);
    const eager = [...EAGER, ...names.flatMap((name) => [`measure.${name}`, `mean.${name}`])];
    await Promise.all(
      eager
        .filter((name) => this.file.has(name))
        .map(async (name) => {
          this.data[name] = await this.file.array(name);
        }),
    );
    this.byName = Object.fromEntries(this.measures.map((measure) => [measure.name, measure]));
    this.candidate = new Map(Array.from(this.data["readout.token_ids"] ?? [], (id, place) => [id, place]));
    for (const measure of this.measures)
      measure.perToken = measure.shape === "token" && this.has(`measure.${measure.name}`);
    return this;
  }

  has(name) {
    return name in this.data;
  }

  named(id) {
    return this.vocabulary[id] ?? `#${id}`;
  }

  get meanLoss() {
    const seen = this.data.loss.filter(Number.isFinite);
    return seen.length ? seen.reduce((sum, x) => sum + x, 0) / seen.length : NaN;
  }

  /** All units' names, layer by layer. */
  get unitNames() {
    return Array.from({ length: this.L * this.H }, (_, i) => `${Math.floor(i / this.H)}.${i % this.H}`);
  }

  /** Which pairs a unit sees: { name, youngest, oldest }. */
  kind(unit) {
    return this.kinds[Number(unit.split(".")[1])];
  }

  /** Whether units are of several kinds. */
  get isMixed() {
    return new Set(this.kinds.map(({ name }) => name)).size > 1;
  }

  /** A unit's name, with its kind where there are several. */
  title(unit) {
    return this.isMixed && this.unitNames.includes(unit) ? `${unit} (${this.kind(unit).name})` : unit;
  }

  place(unit, width = this.H) {
    const [layer, head] = unit.split(".").map(Number);
    return layer * width + head;
  }

  /** One number a unit: the measure, or its mean over the text. */
  perUnit(name) {
    const key = `mean.${name}`;
    if (!this.has(key)) {
      const array = this.data[`measure.${name}`];
      if (!array) return null;
      this.data[key] = this.byName[name].shape === "token" ? means(array, this.T) : array;
    }
    return this.data[key];
  }

  unitValue(name, unit) {
    const values = this.perUnit(name);
    return values
      ? values[this.place(unit, this.byName[name].memory === "persistent" ? this.P : this.H)]
      : NaN;
  }

  /** A measure of one unit along the text; `loss` and `entropy` belong to the model. */
  along(name, unit) {
    if (name === "loss" || name === "entropy") return this.data[name];
    const array = this.data[`measure.${name}`];
    if (!array || this.byName[name].shape !== "token") return null;
    const width = this.byName[name].memory === "persistent" ? this.P : this.H,
      from = this.place(unit, width) * this.T;
    return array.subarray(from, from + this.T);
  }

  /** What is kept of a unit: keys, values, output projection where the page has them, and the strongest pairs. */
  unit(unit) {
    if (!this.units.has(unit)) {
      if (this.units.size > 16) this.units.delete(this.units.keys().next().value);
      this.units.set(unit, this.#read(unit));
    }
    return this.units.get(unit);
  }

  async #read(name) {
    const leading = name.split(".").map(Number);
    const file = this.openUnit ? await this.openUnit(`unit.${name}`) : this.file;
    const part = (key) => (this.openUnit ? file.array(key) : file.array(key, ...leading));
    const unit = { name, T: this.T, pairs: Math.max(0, this.T - 1), kind: this.kind(name), exact: false };
    if (file && this.T) {
      const [keys, scale, values, output] = await Promise.all(
        ["keys", "query_scale", "values", "output"].map((one) => part(`contextual.${one}`)),
      );
      Object.assign(unit, { keys, scale, values, output, dim: keys.length / this.T, exact: true });
    }
    if (unit.exact || !this.file.has("contextual.pair_index")) return unit;
    unit.kept = this.file.shape("contextual.pair_index")[3];
    for (const key of PAIRS) unit[key] = await this.file.array(`contextual.${key}`, ...leading);
    return unit;
  }

  /** The vector whose product with an answer is what the answer adds to the logit of a token; null if not here. */
  readout(unit, t, id) {
    const place = this.candidate.get(id),
      rows = this.data["readout.rows"];
    if (!unit.exact || place === undefined || !rows) return null;
    const size = rows.length / this.candidate.size,
      { output, dim } = unit,
      vector = new Float64Array(dim);
    for (let c = 0; c < size; c++) {
      const weight = rows[place * size + c] * this.data.final_scale[t];
      for (let d = 0; d < dim; d++) vector[d] += weight * output[c * dim + d];
    }
    return vector;
  }

  /** What an answer adds to the logits of all candidate tokens. */
  pushed(unit, t, y) {
    const rows = this.data["readout.rows"];
    if (!unit.exact || !rows) return null;
    const size = rows.length / this.candidate.size,
      { output, dim } = unit,
      stream = new Float64Array(size);
    for (let c = 0; c < size; c++) for (let d = 0; d < dim; d++) stream[c] += output[c * dim + d] * y[d];
    return Float64Array.from({ length: this.candidate.size }, (_, b) => {
      let logit = 0;
      for (let c = 0; c < size; c++) logit += rows[b * size + c] * stream[c];
      return logit * this.data.final_scale[t];
    });
  }

  /** Errors of predictors without a memory, as far as what they need is here. */
  trivial(unit) {
    const known = this.along("known_error", unit.name);
    return { ...(unit.exact ? trivialErrors(unit) : {}), ...(known ? { known } : {}) };
  }

  /** Raw values of the candidate tokens in a unit of the first layer. */
  rawValues(unit) {
    const [layer, head] = unit.name.split(".").map(Number),
      raw = this.data["readout.raw_values"];
    if (layer || !raw || !unit.exact) return null;
    const size = raw.length / this.H;
    return raw.subarray(head * size, (head + 1) * size);
  }
}
