export { listArrays, openRows, type ListOptions, type OpenRowsOptions } from './open.js';
export { RowReader, type ArrayInfo, type BlockOptions, type FileFormat } from './rows.js';
export type { ByteSource, FileLike } from './source.js';
export {
  NpyWriter,
  writeNpy,
  writeSafetensors,
  type NpyWriterOptions,
  type RowBlocks,
  type WriteOptions,
  type WriteSafetensorsOptions,
} from './write.js';
