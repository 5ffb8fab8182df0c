import { describe, fileError, typeError, unsupportedFile } from '../errors.js';
import { checkOptions, choiceOption } from '../options.js';
import { listArrow, openArrow } from './arrow.js';
import { listNpz, openNpz } from './npz.js';
import { npyDTypeName, npyMagic, openNpy, readNpyHeader } from './npy.js';
import { listParquet, openParquet } from './parquet.js';
import { fileFormats, RowReader, type ArrayInfo, type ArrayRows, type FileFormat } from './rows.js';
import { listSafetensors, openSafetensors } from './safetensors.js';
import { openSource, readBytes, type ByteSource, type FileLike } from './source.js';

export interface ListOptions {
  /** By default the file's first bytes tell, or else its name. */
  format?: FileFormat;
}

export interface OpenRowsOptions extends ListOptions {
  /** The array, tensor or column of a file that has several. */
  name?: string;
  /** Columns of an Arrow or Parquet file, one for each class: together they are [N, C]. */
  columns?: readonly string[];
}

const extensions: readonly (readonly [RegExp, FileFormat])[] = [
  [/\.npy$/i, 'npy'],
  [/\.npz$/i, 'npz'],
  [/\.safetensors$/i, 'safetensors'],
  [/\.(?:arrow|arrows|feather|ipc)$/i, 'arrow'],
  [/\.(?:parquet|pq)$/i, 'parquet'],
];

const startsWith = (bytes: Uint8Array, start: Uint8Array | string): boolean =>
  bytes.length >= start.length &&
  [...(typeof start === 'string' ? Buffer.from(start, 'latin1') : start)].every(
    (byte, i) => bytes[i] === byte,
  );

async function detectFormat(source: ByteSource): Promise<FileFormat> {
  const bytes = await readBytes(source, 0, Math.min(source.size, 9), 'the first bytes');
  if (startsWith(bytes, npyMagic)) return 'npy';
  if (startsWith(bytes, 'PK\x03\x04') || startsWith(bytes, 'PK\x05\x06')) return 'npz';
  if (startsWith(bytes, 'ARROW1') || startsWith(bytes, '\xff\xff\xff\xff')) return 'arrow';
  if (startsWith(bytes, 'PAR1') || startsWith(bytes, 'PARE')) return 'parquet';
  const byName = extensions.find(([pattern]) => pattern.test(source.name))?.[1];
  if (byName !== undefined) return byName;
  // A length below 2^32 and the brace that a header starts with.
  if (bytes.length === 9 && bytes[8] === 0x7b && bytes.subarray(4, 8).every((byte) => byte === 0))
    return 'safetensors';
  if (startsWith(bytes, 'FEA1')) {
    throw unsupportedFile(
      `${source.name}: is a Feather file of version 1; write version 2, which is Arrow's file format`,
    );
  }
  throw fileError(
    `${source.name}: expected a file of ${fileFormats.join(', ')}, but neither its first bytes nor its name tell which ` +
      `(${bytes.length === 0 ? 'it is empty' : `it starts with ${Buffer.from(bytes).toString('hex')}`})`,
  );
}

async function formatOf(owner: string, source: ByteSource, format: unknown): Promise<FileFormat> {
  return format === undefined ? detectFormat(source) : choiceOption(owner, 'format', format, fileFormats);
}

/** Runs `work` on the source of `file`, which is closed where that fails. */
async function withSource<T>(
  owner: string,
  file: unknown,
  work: (source: ByteSource) => Promise<T>,
): Promise<T> {
  const source = await openSource(owner, file);
  try {
    return await work(source);
  } catch (error) {
    await source.close?.();
    throw error;
  }
}

function checkColumns(owner: string, columns: unknown): readonly string[] | undefined {
  if (columns === undefined) return undefined;
  if (Array.isArray(columns) && columns.length > 0 && columns.every((column) => typeof column === 'string')) {
    return columns;
  }
  throw typeError('ERR_OPTION', `${owner}: expected names of columns for columns, got ${describe(columns)}`);
}

interface OpenArray {
  readonly name: string | undefined;
  readonly rows: ArrayRows;
}

function openArray(
  source: ByteSource,
  format: FileFormat,
  name: string | undefined,
  columns: readonly string[] | undefined,
): Promise<OpenArray> {
  if (columns !== undefined && format !== 'arrow' && format !== 'parquet') {
    throw typeError(
      'ERR_OPTION',
      `openRows: ${source.name} is a ${format} file, which has no columns; use { name }`,
    );
  }
  switch (format) {
    case 'npy':
      if (name !== undefined) {
        throw typeError(
          'ERR_OPTION',
          `openRows: ${source.name} is a .npy file: it has one array, without a name`,
        );
      }
      return openNpy(source).then((rows) => ({ name, rows }));
    case 'npz':
      return openNpz(source, name);
    case 'safetensors':
      return openSafetensors(source, name);
    case 'arrow':
      return openArrow(source, columns ?? name);
    case 'parquet':
      return openParquet(source, columns ?? name);
  }
}

/**
 * Opens an array of a file of any size, to be read in blocks of rows: .npy, .npz (stored or deflated), safetensors,
 * Arrow IPC (file or stream; with the package apache-arrow) or Parquet (with hyparquet, and hyparquet-compressors for
 * LZ4 and, before Node 22.15, Zstandard). Everything that the file says of itself is checked against its size first.
 *
 * @param file A path, a `file:` URL, the bytes, or a `ByteSource` of your own, which the reader closes.
 * @throws ERR_FILE for a file that is damaged, cut off or contradicts itself; ERR_FILE_UNSUPPORTED for one that holds what
 * is not read here; ERR_PACKAGE_MISSING; ERR_OPTION, also for a name that is not there; and the file system's own errors.
 */
export async function openRows(file: FileLike, options?: OpenRowsOptions): Promise<RowReader> {
  const owner = 'openRows';
  const checked = checkOptions(owner, options, ['name', 'columns', 'format']);
  const { name } = checked;
  const columns = checkColumns(owner, checked.columns);
  if (name !== undefined && typeof name !== 'string') {
    throw typeError('ERR_OPTION', `${owner}: expected a string for name, got ${describe(name)}`);
  }
  if (name !== undefined && columns !== undefined) {
    throw typeError('ERR_OPTION', `${owner}: expected name or columns, got both`);
  }
  return withSource(owner, file, async (source) => {
    const format = await formatOf(owner, source, checked.format);
    const array = await openArray(source, format, name, columns);
    return new RowReader(format, array.name, array.rows, source);
  });
}

/**
 * The arrays, tensors or columns of a file, without reading their elements: those that `openRows` takes by name, and others.
 *
 * @throws as `openRows` does
 */
export async function listArrays(file: FileLike, options?: ListOptions): Promise<ArrayInfo[]> {
  const owner = 'listArrays';
  const checked = checkOptions(owner, options, ['format']);
  return withSource(owner, file, async (source) => {
    const format = await formatOf(owner, source, checked.format);
    const arrays = await listFormat(source, format);
    await source.close?.();
    return arrays;
  });
}

async function listFormat(source: ByteSource, format: FileFormat): Promise<ArrayInfo[]> {
  switch (format) {
    case 'npy': {
      const { shape, descr } = await readNpyHeader(source);
      return [{ name: undefined, shape, dtype: npyDTypeName(descr) }];
    }
    case 'npz':
      return listNpz(source);
    case 'safetensors':
      return listSafetensors(source);
    case 'arrow':
      return listArrow(source);
    case 'parquet':
      return listParquet(source);
  }
}
