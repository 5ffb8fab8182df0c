import { devices, diagnose } from '../device.js';
import { parseArguments, print, showBytes, table, toJson, UsageError } from './terminal.js';

const help = `surprisal devices [--json]

Lists the devices that losses can be computed on, and what is missing for others.

  --json   an object with the list, for programs

Example:
  surprisal devices`;

export const command = {
  help,
  async run(args: readonly string[]): Promise<number> {
    const { values, positionals } = parseArguments(args, { json: { type: 'boolean' } });
    if (positionals.length > 0) throw new UsageError(`devices takes no argument, got '${positionals[0]!}'`);
    const found = devices();
    if (values['json']) {
      await print(toJson({ devices: found, diagnosis: diagnose().split('\n') }));
      return 0;
    }
    const rows = found.map(({ device, name, memory, capability }) => [
      device,
      name,
      showBytes(memory),
      capability,
    ]);
    await print(`${table([['device', 'name', 'memory', 'capability'], ...rows])}\n\n${diagnose()}`);
    return 0;
  },
};
