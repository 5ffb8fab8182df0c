/** What the bench runs on. */

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, release, totalmem, type } from 'node:os';
import { join } from 'node:path';
import type { Cache, Machine } from './results.js';

const cacheFolder = '/sys/devices/system/cpu/cpu0/cache';

/** '32K' or '1024K' or '32M', as Linux writes sizes. */
function bytesOf(size: string): number {
  const [, digits = '0', unit = ''] = /^(\d+)([KMG]?)$/.exec(size) ?? [];
  return Number(digits) * 1024 ** ' KMG'.indexOf(unit || ' ');
}

/** The caches of the first processor, where Linux tells of them. */
function caches(): Cache[] {
  if (!existsSync(cacheFolder)) return [];
  return readdirSync(cacheFolder)
    .filter((name) => name.startsWith('index'))
    .sort()
    .map((name) => {
      const read = (file: string) => readFileSync(join(cacheFolder, name, file), 'utf8').trim();
      return {
        level: Number(read('level')),
        type: read('type'),
        bytes: bytesOf(read('size')),
        sharedBy: read('shared_cpu_list'),
      };
    });
}

/** A field of /proc/cpuinfo. Hypervisors hide a CPU's name; its family and model still tell what it is. */
function cpuinfo(field: string): number {
  if (!existsSync('/proc/cpuinfo')) return 0;
  const match = new RegExp(`^${field}\\s*: (\\d+)$`, 'm').exec(readFileSync('/proc/cpuinfo', 'utf8'));
  return Number(match?.[1] ?? 0);
}

export function describeMachine(): Machine {
  return {
    cpu: cpus()[0]?.model.trim() || process.arch,
    family: cpuinfo('cpu family'),
    model: cpuinfo('model'),
    processors: availableParallelism(),
    caches: caches(),
    memory: totalmem(),
    os: `${type()} ${release()}`,
    load: loadavg()[0]!,
  };
}

/** The machine's name as a file name: results of two kinds of machines don't overwrite each other. */
export function fileNameOf({ cpu, family, model, processors }: Machine): string {
  const parts = [cpu, ...(family > 0 ? [`family ${family} model ${model}`] : []), `${processors} processors`];
  return parts
    .join(' ')
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, '_');
}
