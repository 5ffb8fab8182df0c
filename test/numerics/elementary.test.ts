import assert from 'node:assert/strict';
import { tensor } from 'surprisal';
import * as F from 'surprisal/functional';
import { BinaryCrossEntropy, KLDivLoss } from 'surprisal/loss';
import { nativeBinding } from '../support/losses.js';

/**
 * The elementary functions of native/loss/math.h, seen through the losses that are little else. Their bound is 1 ulp;
 * what the loss does besides is said beside each bound. An ulp of float32 is at most 2^-23 of the value.
 */
const ulp = 2 ** -23;

/** Every 2^14th float32 from `from` down to `to`, which have the same sign. */
function floatsBetween(from: number, to: number): Float32Array {
  const bits = (x: number) => new Uint32Array(new Float32Array([x]).buffer)[0]!;
  const [first, last] = [bits(from), bits(to)].sort((a, b) => a - b) as [number, number];
  const step = 1 << 14;
  return new Float32Array(
    Uint32Array.from({ length: Math.floor((last - first) / step) }, (_, i) => first + i * step).buffer,
  );
}

function assertRelative(
  got: ArrayLike<number>,
  truth: (i: number) => number,
  bound: number,
  what: (i: number) => string,
) {
  for (let i = 0; i < got.length; i++) {
    const expected = truth(i);
    const error = Math.abs(got[i]! - expected) / Math.abs(expected);
    assert.ok(error <= bound, `${what(i)}: expected ${expected}, got ${got[i]}, off by ${error / ulp} ulp`);
  }
}

const native = nativeBinding();
const used = native.getInstructionSet();

for (const instructionSet of native.instructionSets) {
  describe(`elementary functions of ${instructionSet}`, () => {
    before(() => native.setInstructionSet(instructionSet));
    after(() => native.setInstructionSet(used));

    it('e^x, as softmax of [0, x]: one ulp, and half for the product with 1/(1 + e^x)', () => {
      const x = floatsBetween(-1e-6, -87.3);
      assert.ok(x.length > 10_000);
      const rows = Float32Array.from({ length: 2 * x.length }, (_, i) => (i % 2 === 0 ? 0 : x[i >> 1]!));
      const p = F.softmax(tensor(rows, { shape: [x.length, 2] })).data as Float32Array;
      const second = Float32Array.from(x, (_, i) => p[2 * i + 1]!);
      // p of e^-87.3 is normal, so its ulp is relative.
      assertRelative(
        second,
        (i) => Math.exp(x[i]!) / (1 + Math.exp(x[i]!)),
        1.5 * ulp,
        (i) => `x = ${x[i]}`,
      );
    });

    it('e^x below the smallest normal number is 0, of NaN NaN', () => {
      const p = F.softmax([
        [0, -88],
        [0, -1e30],
        [0, -Infinity],
        [0, NaN],
      ]).toArray() as number[][];
      assert.deepEqual(
        p.map((row) => row[1]),
        [0, 0, 0, NaN],
      );
    });

    it('log(1 + e^x), as binary cross entropy of target 0: an ulp each of e^x and of the logarithm, half for the sum', () => {
      const x = floatsBetween(-1e-3, -80);
      const loss = new BinaryCrossEntropy({ reduction: 'none' }).forward(
        tensor(x, { shape: [x.length, 1] }),
        tensor(new Float32Array(x.length), { shape: [x.length, 1] }),
      );
      assertRelative(
        loss.data as Float32Array,
        (i) => Math.log1p(Math.exp(x[i]!)),
        2.5 * ulp,
        (i) => `x = ${x[i]}`,
      );
    });

    it('log t, as KL divergence of t from 1: an ulp, and half for the product with t', () => {
      for (const [from, to] of [
        [1.2e-38, 0.9999],
        [1.0001, 3e38 / 90],
      ] as const) {
        const t = floatsBetween(from, to);
        const loss = new KLDivLoss({ reduction: 'none' }).forward(
          tensor(new Float32Array(t.length)),
          tensor(t),
        );
        const truth = (i: number) => t[i]! * Math.log(t[i]!);
        // Products below the smallest normal number are subnormal or 0: their error is absolute.
        const kept = Array.from(t.keys()).filter((i) => Math.abs(truth(i)) > 2 ** -126);
        assert.ok(kept.length > 10_000);
        assertRelative(
          kept.map((i) => (loss.data as Float32Array)[i]!),
          (i) => truth(kept[i]!),
          1.5 * ulp,
          (i) => `t = ${t[kept[i]!]}`,
        );
      }
    });
  });
}
