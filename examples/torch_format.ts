import type { NestedArray, Tensor } from 'surprisal';

const lineWidth = 80;
const indent = 'tensor('.length;

/** A function that writes every number as torch does beside these. */
function elementFormat(numbers: readonly number[], isInteger: boolean): (x: number) => string {
  if (isInteger) return String;
  const sizes = numbers.map(Math.abs).filter((x) => x > 0 && x < Infinity);
  const largest = Math.max(...sizes);
  const smallest = Math.min(...sizes);
  const whole = numbers.every((x) => Number.isInteger(x));
  if (sizes.length > 0 && (largest / smallest > 1000 || largest > 1e8 || (!whole && smallest < 1e-4))) {
    return (x) => x.toExponential(4).replace(/e([+-])(\d)$/, 'e$10$2');
  }
  return whole ? (x) => `${x}.` : (x) => x.toFixed(4);
}

const flatten = (value: number | NestedArray<number>): number[] =>
  typeof value === 'number' ? [value] : value.flatMap(flatten);

/** A tensor as `print(tensor)` shows it in PyTorch with its default print options. */
export function show(tensor: Tensor): string {
  const numbers = flatten(tensor.toArray());
  const format = elementFormat(numbers, !tensor.dtype.includes('float'));
  const width = Math.max(...numbers.map((x) => format(x).length));

  const nested = (value: number | NestedArray<number>, depth: number): string => {
    if (typeof value === 'number') return format(value);
    const margin = ' '.repeat(indent + depth + 1);
    if (typeof value[0] !== 'number') {
      const gap = '\n'.repeat(tensor.shape.length - depth - 1);
      return `[${value.map((item) => nested(item, depth + 1)).join(`,${gap}${margin}`)}]`;
    }
    const perLine = Math.max(1, Math.floor((lineWidth - indent - depth) / (width + 2)));
    const lines: string[] = [];
    for (let i = 0; i < value.length; i += perLine) {
      const line = value.slice(i, i + perLine) as number[];
      lines.push(line.map((x) => format(x).padStart(width)).join(', '));
    }
    return `[${lines.join(`,\n${margin}`)}]`;
  };
  return `tensor(${nested(tensor.toArray(), 0)})`;
}

/** A tensor's shape as torch prints it. */
export const showSize = ({ shape }: Tensor): string => `torch.Size([${shape.join(', ')}])`;
