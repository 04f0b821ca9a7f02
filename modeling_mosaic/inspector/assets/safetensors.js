// Files of tensors, embedded in the page or dropped on it. Only what is asked for is read.

const BYTES = { F64: 8, F32: 4, F16: 2, BF16: 2, I64: 8, I32: 4, I16: 2, U16: 2, I8: 1, U8: 1, BOOL: 1 };

let halves = null;

/** All 65,536 numbers of half precision. */
function halfTable() {
  if (halves) return halves;
  halves = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const exponent = (bits >> 10) & 31,
      fraction = bits & 1023;
    const size =
      exponent === 0
        ? fraction * 2 ** -24
        : exponent === 31
          ? fraction
            ? NaN
            : Infinity
          : (1 + fraction / 1024) * 2 ** (exponent - 15);
    halves[bits] = bits & 32768 ? -size : size;
  }
  return halves;
}

/** Numbers of a buffer, as Float32Array or as integers that JavaScript counts exactly. */
function decode(dtype, buffer) {
  switch (dtype) {
    case "F64":
      return new Float64Array(buffer);
    case "F32":
      return new Float32Array(buffer);
    case "F16": {
      const table = halfTable();
      return Float32Array.from(new Uint16Array(buffer), (bits) => table[bits]);
    }
    case "BF16":
      return new Float32Array(Uint32Array.from(new Uint16Array(buffer), (bits) => bits << 16).buffer);
    case "I64":
      return Float64Array.from(new BigInt64Array(buffer), Number);
    case "I32":
      return new Int32Array(buffer);
    case "I16":
      return new Int16Array(buffer);
    case "U16":
      return new Uint16Array(buffer);
    case "I8":
      return new Int8Array(buffer);
    case "U8":
    case "BOOL":
      return new Uint8Array(buffer);
    default:
      throw new Error(`tensors of type ${dtype} are not known here`);
  }
}

const product = (shape) => shape.reduce((total, size) => total * size, 1);

/** One file: `read(from, to)` gives a promise of its bytes. */
export class TensorFile {
  static async open(read) {
    const file = new TensorFile();
    const length = Number(new DataView(await read(0, 8)).getBigUint64(0, true));
    if (length > 100_000_000) throw new Error("not a safetensors file");
    file.entries = JSON.parse(new TextDecoder().decode(await read(8, 8 + length)));
    file.metadata = file.entries.__metadata__ ?? {};
    delete file.entries.__metadata__;
    file.bytes = (from, to) => read(8 + length + from, 8 + length + to);
    return file;
  }

  /** Several files as one. */
  static joined(files) {
    const owner = (name) => files.find((file) => name in file.entries);
    const file = new TensorFile();
    file.metadata = Object.assign({}, ...files.map(({ metadata }) => metadata));
    file.entries = Object.assign({}, ...files.map(({ entries }) => entries));
    file.array = (name, ...leading) => owner(name).array(name, ...leading);
    return file;
  }

  has(name) {
    return name in this.entries;
  }

  shape(name) {
    return this.entries[name].shape;
  }

  /** The numbers of a tensor, or of its part under some leading indices: array("keys", 3, 4) is keys[3, 4]. */
  async array(name, ...leading) {
    const {
      dtype,
      shape,
      data_offsets: [begin],
    } = this.entries[name];
    const size = product(shape.slice(leading.length));
    const place = leading.reduce((at, index, axis) => at * shape[axis] + index, 0);
    const from = begin + place * size * BYTES[dtype];
    return decode(dtype, await this.bytes(from, from + size * BYTES[dtype]));
  }
}

/** A file on the reader's disk, of which slices are read. */
export const openFile = (file) => TensorFile.open((from, to) => file.slice(from, to).arrayBuffer());

/** A file embedded in the page as text: base64 of gzip. */
export async function openEmbedded(element) {
  const text = element.textContent;
  const packed = Uint8Array.fromBase64
    ? Uint8Array.fromBase64(text)
    : Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const buffer = await new Response(stream).arrayBuffer();
  return TensorFile.open(async (from, to) => buffer.slice(from, to));
}
