/**
 * Thrift's compact protocol as far as Parquet uses it: checks that a struct ends within its bytes and that its lists can
 * have as many items as they claim, before hyparquet decodes it, and gives its integers.
 * https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
 */

/** What is wrong with a struct, for the message of an error. */
export class ThriftFault extends Error {}

/** Fields by their numbers: integers, bools as 0 and 1, and structs; others are left out. Integers past 2^53 are NaN. */
export interface ThriftStruct {
  readonly numbers: ReadonlyMap<number, number>;
  readonly structs: ReadonlyMap<number, ThriftStruct>;
}

const deepest = 32;

const kinds = {
  true: 1,
  false: 2,
  byte: 3,
  i16: 4,
  i32: 5,
  i64: 6,
  double: 7,
  binary: 8,
  list: 9,
  struct: 12,
};

export class ThriftReader {
  readonly #bytes: Uint8Array;
  offset: number;

  constructor(bytes: Uint8Array, offset = 0) {
    this.#bytes = bytes;
    this.offset = offset;
  }

  #byte(): number {
    const byte = this.#bytes[this.offset++];
    if (byte === undefined) throw new ThriftFault('it ends within a struct');
    return byte;
  }

  #skip(length: number): void {
    if (length > this.#bytes.length - this.offset) throw new ThriftFault('a value reaches beyond its end');
    this.offset += length;
  }

  /** An unsigned integer of groups of 7 bits, at most 64 of them. */
  varint(): number {
    let value = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      const byte = this.#byte();
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    throw new ThriftFault('an integer has more than 64 bits');
  }

  /** A signed integer, the sign in the last bit. NaN past 2^53. */
  #zigzag(): number {
    const value = this.varint();
    if (value > Number.MAX_SAFE_INTEGER) return NaN;
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
  }

  #length(): number {
    const length = this.varint();
    // hyparquet reads 32 bits.
    if (length >= 2 ** 31) throw new ThriftFault('a length is past 2^31');
    return length;
  }

  struct(depth = 0): ThriftStruct {
    if (depth > deepest) throw new ThriftFault('its structs are nested too deeply');
    const numbers = new Map<number, number>();
    const structs = new Map<number, ThriftStruct>();
    let field = 0;
    for (;;) {
      const head = this.#byte();
      if (head === 0) return { numbers, structs };
      const delta = head >> 4;
      field = delta > 0 ? field + delta : this.#zigzag();
      const kind = head & 15;
      if (kind === 0) throw new ThriftFault('a field has no type');
      if (kind === kinds.struct) structs.set(field, this.struct(depth + 1));
      else if (kind === kinds.true || kind === kinds.false) numbers.set(field, kind === kinds.true ? 1 : 0);
      else if (kind >= kinds.byte && kind <= kinds.i64) numbers.set(field, this.#integer(kind));
      else this.#value(kind, depth);
    }
  }

  #integer(kind: number): number {
    return kind === kinds.byte ? (this.#byte() << 24) >> 24 : this.#zigzag();
  }

  #value(kind: number, depth: number): void {
    switch (kind) {
      case kinds.true:
      case kinds.false:
      case kinds.byte:
        this.#skip(1);
        break;
      case kinds.i16:
      case kinds.i32:
      case kinds.i64:
        this.varint();
        break;
      case kinds.double:
        this.#skip(8);
        break;
      case kinds.binary:
        this.#skip(this.#length());
        break;
      case kinds.struct:
        this.struct(depth + 1);
        break;
      case kinds.list: {
        if (depth > deepest) throw new ThriftFault('its lists are nested too deeply');
        const head = this.#byte();
        const items = head >> 4 === 15 ? this.#length() : head >> 4;
        // No item takes less than a byte.
        if (items > this.#bytes.length - this.offset)
          throw new ThriftFault('a list has more items than bytes');
        for (let i = 0; i < items; i++) this.#value(head & 15, depth + 1);
        break;
      }
      default:
        throw new ThriftFault(`a value has the type ${kind}, which Parquet doesn't use`);
    }
  }
}
