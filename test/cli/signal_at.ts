/**
 * Loaded into the command line by `--import`, it sends the process a signal at a moment of a file's replacement:
 * SURPRISAL_SIGNAL_AT is '<signal> <moment> <n>', for the n-th time that the moment comes. So a process is killed with a
 * half-written file, or before or after a rename, on a machine of any speed.
 */
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { isMainThread } from 'node:worker_threads';

export const moments = ['opened', 'half written', 'synced', 'renamed'] as const;
export type Moment = (typeof moments)[number];

const given = /^(\w+) ([\w ]+) (\d+)$/.exec(process.env['SURPRISAL_SIGNAL_AT'] ?? '');
if (isMainThread && given !== null) {
  const [, signal, wanted, last] = given;
  let seen = 0;
  const at = (moment: Moment): boolean => moment === wanted && ++seen === Number(last);
  const send = () => process.kill(process.pid, signal);

  const { open, rename } = fs.promises;
  fs.promises.rename = async (from, to) => {
    await rename(from, to);
    if (at('renamed')) send();
  };
  fs.promises.open = async (path, flags, mode) => {
    const file = await open(path, flags, mode);
    if (flags !== 'wx') return file;
    if (at('opened')) send();
    const write = file.write.bind(file) as (bytes: Uint8Array, ...where: number[]) => Promise<unknown>;
    const sync = file.sync.bind(file);
    file.write = (async (bytes: Uint8Array, offset: number, length: number, position: number) => {
      if (at('half written')) {
        await write(bytes, offset, length >> 1, position);
        send();
      }
      return write(bytes, offset, length, position);
    }) as typeof file.write;
    file.sync = async () => {
      await sync();
      if (at('synced')) send();
    };
    return file;
  };
  syncBuiltinESMExports();
}
