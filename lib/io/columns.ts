import type { DType } from '../dtype.js';
import { rangeError, unsupportedFile } from '../errors.js';
import { chooseArray, listNames } from './choice.js';
import type { ByteSource } from './source.js';

/** A column of an Arrow or Parquet file, as rows of it would be. */
export interface Column {
  readonly name: string;
  /** Undefined where it is not read here. */
  readonly dtype: DType | undefined;
  /** What the file calls its type. */
  readonly type: string;
  /** [] of a number in each row, [C] of a list of C numbers. */
  readonly rowShape: readonly number[];
}

export interface Selection<C> {
  /** The name of the one column; several have none together. */
  readonly name: string | undefined;
  readonly columns: readonly C[];
  readonly dtype: DType;
  readonly rowShape: readonly number[];
}

function readable(source: ByteSource, { name, dtype, type }: Column): DType {
  if (dtype !== undefined) return dtype;
  throw unsupportedFile(
    `${source.name}: expected a column of numbers, or of lists that are all as long, but ${JSON.stringify(name)} is ${type}; ` +
      `cast it before writing the file`,
  );
}

/** One column by its name, or several of one dtype that are classes side by side: [N, C]. */
export function selectColumns<C extends Column>(
  source: ByteSource,
  all: readonly C[],
  wanted: string | readonly string[] | undefined,
): Selection<C> {
  const byName = new Map<string, C>();
  const doubled = new Set<string>();
  for (const column of all) {
    if (byName.has(column.name)) doubled.add(column.name);
    byName.set(column.name, column);
  }
  const names = typeof wanted === 'string' ? [wanted] : (wanted ?? [undefined]);
  const columns = names.map((name) => chooseArray(source, 'column', byName, name));
  const ambiguous = columns.find(({ name }) => doubled.has(name));
  if (ambiguous !== undefined) {
    throw unsupportedFile(
      `${source.name}: has several columns with the name ${JSON.stringify(ambiguous.name)}; rename them`,
    );
  }
  const [first] = columns as [C];
  const dtype = readable(source, first);
  if (wanted === undefined || typeof wanted === 'string') {
    return { name: first.name, columns, dtype, rowShape: first.rowShape };
  }
  for (const column of columns) {
    if (readable(source, column) !== dtype || column.rowShape.length > 0) {
      throw rangeError(
        'ERR_OPTION',
        `${source.name}: expected columns of one number a row and one dtype as classes, got ` +
          listNames(columns.map((each) => `${each.name}: ${each.type}`)),
      );
    }
  }
  return { name: undefined, columns, dtype, rowShape: [columns.length] };
}
