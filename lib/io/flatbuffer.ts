/**
 * Checks a FlatBuffers buffer against its schema, as flatc's verifier does, before a decoder follows its offsets: every
 * table, string and vector lies within it, and following them all takes no longer than its size allows.
 * https://flatbuffers.dev/internals
 */

export type FieldKind =
  /** A number or a struct of so many bytes. */
  | number
  | 'string'
  /** A vector of numbers or structs of so many bytes. */
  | { readonly vectorOf: number }
  | { readonly table: TableType }
  | { readonly tables: TableType }
  /** A table whose type is said by the byte in the field before; others than these are not looked into. */
  | { readonly union: Readonly<Record<number, TableType>> };

/** A table's fields in order. A function, where a table has others of its own kind. */
export type TableType = readonly FieldKind[] | (() => readonly FieldKind[]);

const deepest = 64;

/** What is wrong with a buffer, for the message of an error. */
export class FlatbufferFault extends Error {}

class Verifier {
  readonly #view: DataView;
  /**
   * Bytes that may still be visited. Tables and strings can be shared, which lets a small buffer describe an exponential
   * tree; writers share strings and little else.
   */
  #budget: number;

  constructor(bytes: Uint8Array) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.#budget = 4096 + 8 * bytes.length;
  }

  #need(offset: number, length: number): void {
    if (offset < 0 || offset + length > this.#view.byteLength)
      throw new FlatbufferFault('an offset leads out of it');
    this.#budget -= length;
    if (this.#budget < 0) throw new FlatbufferFault('its parts are shared too often');
  }

  /** Where the offset that is stored at `at` leads. */
  follow(at: number): number {
    this.#need(at, 4);
    return at + this.#view.getUint32(at, true);
  }

  /** Checks a vector; gives the offset of its items and their number. */
  #vector(at: number, itemSize: number): { start: number; length: number } {
    this.#need(at, 4);
    const length = this.#view.getUint32(at, true);
    this.#need(at + 4, length * itemSize);
    return { start: at + 4, length };
  }

  table(at: number, type: TableType, depth = 0): void {
    if (depth > deepest) throw new FlatbufferFault('its tables are nested too deeply');
    const view = this.#view;
    this.#need(at, 4);
    const vtable = at - view.getInt32(at, true);
    this.#need(vtable, 4);
    const vtableLength = view.getUint16(vtable, true);
    const tableLength = view.getUint16(vtable + 2, true);
    if (vtableLength < 4) throw new FlatbufferFault('a table has no fields');
    this.#need(vtable, vtableLength);
    this.#need(at, tableLength);
    const fields = typeof type === 'function' ? type() : type;
    const place = (field: number): number => {
      const slot = 4 + 2 * field;
      return slot + 2 > vtableLength ? 0 : view.getUint16(vtable + slot, true);
    };
    fields.forEach((kind, field) => {
      const offset = place(field);
      if (offset === 0) return;
      const length = typeof kind === 'number' ? kind : 4;
      if (offset + length > tableLength) throw new FlatbufferFault('a field leads out of its table');
      if (typeof kind === 'number') return;
      const target = this.follow(at + offset);
      if (kind === 'string') {
        this.#vector(target, 1);
      } else if ('vectorOf' in kind) {
        this.#vector(target, kind.vectorOf);
      } else if ('table' in kind) {
        this.table(target, kind.table, depth + 1);
      } else if ('tables' in kind) {
        const { start, length: items } = this.#vector(target, 4);
        for (let i = 0; i < items; i++) this.table(this.follow(start + 4 * i), kind.tables, depth + 1);
      } else {
        const tag = place(field - 1);
        const member = tag === 0 ? undefined : kind.union[view.getUint8(at + tag)];
        if (member !== undefined) this.table(target, member, depth + 1);
      }
    });
  }
}

/** Throws a FlatbufferFault unless `bytes` can be followed as a root table of this type. */
export function verifyFlatbuffer(bytes: Uint8Array, root: TableType): void {
  const verifier = new Verifier(bytes);
  verifier.table(verifier.follow(0), root);
}

const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.length);

/** Where a verified buffer has `field` of the table that the fields of `path` lead to from the root; 0 where it has not. */
function fieldAt(view: DataView, path: readonly number[], field: number): number {
  const place = (table: number, index: number): number => {
    const vtable = table - view.getInt32(table, true);
    const slot = 4 + 2 * index;
    const offset = slot + 2 > view.getUint16(vtable, true) ? 0 : view.getUint16(vtable + slot, true);
    return offset === 0 ? 0 : table + offset;
  };
  let table = view.getUint32(0, true);
  for (const step of path) {
    const at = place(table, step);
    if (at === 0) return 0;
    table = at + view.getUint32(at, true);
  }
  return place(table, field);
}

/** A number of a verified buffer; 0 by default. */
export function readInt16(bytes: Uint8Array, path: readonly number[], field: number): number {
  const view = viewOf(bytes);
  const at = fieldAt(view, path, field);
  return at === 0 ? 0 : view.getInt16(at, true);
}

/** Where a verified buffer has the table that is `field` of its root. Throws a FlatbufferFault where it has none. */
export function tableAt(bytes: Uint8Array, field: number): number {
  const view = viewOf(bytes);
  const at = fieldAt(view, [], field);
  if (at === 0) throw new FlatbufferFault('a table is missing');
  return at + view.getUint32(at, true);
}

/** The items of a vector of structs, `field` of the root of a verified buffer. */
export function readStructs(bytes: Uint8Array, field: number, itemSize: number): DataView[] {
  const view = viewOf(bytes);
  const at = fieldAt(view, [], field);
  if (at === 0) return [];
  const vector = at + view.getUint32(at, true);
  const start = bytes.byteOffset + vector + 4;
  return Array.from(
    { length: view.getUint32(vector, true) },
    (_, i) => new DataView(bytes.buffer, start + i * itemSize, itemSize),
  );
}
