import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { temporaryFolder } from '../io/files.js';
import { json, output } from './command.js';

/** α·JSD of softmaxes, by its definition. */
function divergence(logits: number[][], alpha: number): number {
  const rows = logits.map((z) => {
    const e = z.map(Math.exp);
    const sum = e.reduce((a, b) => a + b);
    return e.map((x) => x / sum);
  });
  const mixture = rows[0]!.map((_, c) => rows.reduce((sum, p) => sum + p[c]!, 0) / rows.length);
  const kl = rows.map((p) => p.reduce((sum, x, c) => sum + x * Math.log(x / mixture[c]!), 0));
  return (alpha * kl.reduce((a, b) => a + b)) / rows.length;
}

describe('surprisal curve jsd', () => {
  const path = temporaryFolder();

  it('gives what the divergence adds to cross entropy', () => {
    for (const [k, alpha] of [
      [3, 12],
      [2, 5],
    ] as const) {
      const { points } = json(...['curve', 'jsd', '--num-splits', String(k), '--alpha', String(alpha)]) as {
        points: { change: number; divergence: number }[];
      };
      assert.equal(points.length, 21);
      const equal = Array.from({ length: 10 }, (_, c) => Number(c === 0));
      points.forEach(({ change, divergence: found }, i) => {
        assert.equal(change, (i - 10) / 10);
        const moved = equal.map((z, c) => (c === 0 ? z - change : c === 1 ? z + change : z));
        const expected = divergence([...Array.from({ length: k - 1 }, () => equal), moved], alpha);
        // The difference of two losses near 1 in float64.
        assert.ok(Math.abs(found - expected) < 1e-13, `${change}: ${found}, not ${expected}`);
      });
    }
  });

  it('draws it: every point in its place, for light and dark', () => {
    assert.equal(output('curve', 'jsd', '--out', path('curve.svg')), '');
    const svg = readFileSync(path('curve.svg'), 'utf8');
    assert.ok(svg.startsWith('<svg xmlns="http://www.w3.org/2000/svg"') && svg.endsWith('</svg>\n'));
    assert.ok(svg.includes('@media (prefers-color-scheme: dark)'));
    const line = /<polyline class="line" points="([^"]*)"/.exec(svg)![1]!;
    const pixels = line.split(' ').map((pair) => pair.split(',').map(Number) as [number, number]);
    assert.equal(pixels.length, 21);
    const { points } = json('curve', 'jsd') as { points: { change: number; divergence: number }[] };
    // Equal steps to the right; heights in proportion, up to the rounding to a hundredth of a pixel.
    const [lowest, highest] = [pixels[10]![1], pixels[0]![1]];
    pixels.forEach(([x, y], i) => {
      assert.ok(Math.abs(x - (pixels[0]![0] + (i / 20) * (pixels[20]![0] - pixels[0]![0]))) < 0.02);
      const share = points[i]!.divergence / points[0]!.divergence;
      assert.ok(Math.abs(lowest - y - share * (lowest - highest)) < 0.03, `point ${i}`);
    });
    assert.match(svg, /loss above cross entropy \(nats\)/);
  });
});
