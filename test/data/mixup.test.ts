import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { Tensor, tensor, type DType, type FloatDType, type TensorLike, type TypedArray } from 'surprisal';
import {
  FastCollateMixup,
  Mixup,
  Random,
  mixupTarget,
  oneHot,
  type MixupMode,
  type MixupOptions,
} from 'surprisal/data';
import { Script } from './script.js';

interface GoldenTensor {
  shape: number[];
  dtype: string;
  data: number[];
}

interface GoldenCase {
  name: string;
  op: string;
  args: { num_classes: number; on_value: number; off_value: number; lam?: number; smoothing?: number };
  inputs: { target: GoldenTensor; lam?: GoldenTensor };
  expected: { output: GoldenTensor };
}

const golden = (
  JSON.parse(readFileSync(new URL('../../../test/golden/functional.json', import.meta.url), 'utf8')) as {
    cases: GoldenCase[];
  }
).cases;

/** The measure of test/golden: PyTorch evaluated these in float32, with two roundings more than here. */
const goldenTolerance = 3e-7;
/** Half a step of float32 below 1 is 2^-25; twice that leaves room for the float64 sums on either side. */
const roundedOnce = 2 ** -24;

function assertClose(
  actual: ArrayLike<number | bigint>,
  expected: ArrayLike<number>,
  tolerance: number,
): void {
  assert.equal(actual.length, expected.length);
  for (let i = 0; i < expected.length; i++) {
    const error = Math.abs(Number(actual[i]) - expected[i]!);
    assert(error <= tolerance, `element ${i}: ${actual[i]}, expected ${expected[i]}`);
  }
}

const labelForms: Record<string, (labels: number[]) => TensorLike> = {
  'plain numbers': (labels) => labels,
  bigints: (labels) => labels.map(BigInt),
  'a column': (labels) => labels.map((label) => [label]),
  Uint8Array: (labels) => Uint8Array.from(labels),
  Int16Array: (labels) => Int16Array.from(labels),
  Int32Array: (labels) => Int32Array.from(labels),
  BigInt64Array: (labels) => BigInt64Array.from(labels, BigInt),
  BigUint64Array: (labels) => BigUint64Array.from(labels, BigInt),
  'a Tensor': (labels) => tensor(labels, { dtype: 'int64' }),
  'a strided tensor': (labels) => ({
    data: Int32Array.from(labels.flatMap((label) => [label, -1])),
    shape: [labels.length],
    strides: [2],
  }),
  'onnxruntime-node’s form': (labels) => ({
    data: BigInt64Array.from(labels, BigInt),
    dims: [labels.length],
    type: 'int64',
  }),
};

describe('oneHot', () => {
  for (const { name, args, inputs, expected } of golden.filter(({ op }) => op === 'one_hot')) {
    it(`golden: ${name}`, () => {
      const { num_classes, on_value, off_value } = args;
      const rows = oneHot(inputs.target.data, num_classes, { onValue: on_value, offValue: off_value });
      assert.deepEqual([rows.shape, rows.dtype], [expected.output.shape, 'float32']);
      assertClose(rows.data, expected.output.data, goldenTolerance);
    });
  }

  for (const [name, form] of Object.entries(labelForms)) {
    it(`takes labels as ${name}`, () => {
      assert.deepEqual(oneHot(form([1, 0, 2]), 3).toArray(), [
        [0, 1, 0],
        [1, 0, 0],
        [0, 0, 1],
      ]);
    });
  }

  it('flattens labels of more dimensions, and takes none', () => {
    assert.deepEqual(oneHot([[0], [1]], 2).shape, [2, 2]);
    assert.deepEqual(oneHot({ data: Int32Array.of(0, 1, 1, 0), shape: [2, 2] }, 2).shape, [4, 2]);
    assert.deepEqual(oneHot([], 5).shape, [0, 5]);
  });

  it('names the first label out of range', () => {
    assert.throws(() => oneHot([0, 2, 5, -1], 5), {
      code: 'ERR_TARGET_OUT_OF_RANGE',
      name: 'RangeError',
      message: 'oneHot: expected class indices in [0, 5) in target, but row 2 has 5',
    });
    assert.throws(() => oneHot([-100], 5), { code: 'ERR_TARGET_OUT_OF_RANGE', message: /row 0 has -100/ });
    // As a number this would be shown as 9223372036854776000.
    assert.throws(() => oneHot(BigInt64Array.of(2n ** 63n - 1n), 5), {
      message: /row 0 has 9223372036854775807/,
    });
  });

  it('refuses other labels and options', () => {
    assert.throws(() => oneHot(Float32Array.of(1), 5), {
      code: 'ERR_DTYPE',
      name: 'TypeError',
      message: /float32/,
    });
    assert.throws(() => oneHot([0.5], 5), { code: 'ERR_DTYPE', message: /target/ });
    assert.throws(() => oneHot('1' as never, 5), { code: 'ERR_DTYPE', message: /target/ });
    for (const numClasses of [0, -1, 2.5, NaN]) {
      assert.throws(() => oneHot([0], numClasses), { code: 'ERR_OPTION', message: /numClasses/ });
    }
    assert.throws(() => oneHot([0], 5, { onValue: NaN }), { code: 'ERR_OPTION', message: /onValue/ });
    assert.throws(() => oneHot([0], 5, { offValue: '0' as never }), {
      code: 'ERR_OPTION',
      message: /offValue/,
    });
    assert.throws(() => oneHot([0], 5, { smoothing: 0 } as never), {
      code: 'ERR_OPTION',
      message: /'smoothing'/,
    });
  });
});

/** Rows as timm builds them: two smoothed one-hot matrices, one of them reversed, and their weighted sum. */
function naiveTarget(
  labels: readonly number[],
  numClasses: number,
  lam: readonly number[],
  smoothing: number,
): number[][] {
  const smoothed = (label: number): number[] =>
    Array.from({ length: numClasses }, (_, c) => smoothing / numClasses + (c === label ? 1 - smoothing : 0));
  const flipped = labels.toReversed();
  return lam.map((share, i) => {
    const other = smoothed(flipped[i]!);
    return smoothed(labels[i]!).map((own, c) => own * share + other[c]! * (1 - share));
  });
}

describe('mixupTarget', () => {
  for (const { name, args, inputs, expected } of golden.filter(({ op }) => op === 'mixup_target')) {
    it(`golden: ${name}`, () => {
      const { num_classes, smoothing = 0 } = args;
      const lam = inputs.lam
        ? { data: Float32Array.from(inputs.lam.data), shape: inputs.lam.shape }
        : (args.lam ?? 1);
      const rows = mixupTarget(inputs.target.data, num_classes, { lam, smoothing });
      assert.deepEqual([rows.shape, rows.dtype], [expected.output.shape, 'float32']);
      assertClose(rows.data, expected.output.data, goldenTolerance);
    });
  }

  it('takes λ for each row in any form', () => {
    const lam = [0.25, 0.5, 1, 0];
    const forms: TensorLike[] = [
      lam,
      lam.map((x) => [x]),
      Float32Array.from(lam),
      Float64Array.from(lam),
      tensor(lam, { dtype: 'float16' }),
      tensor(lam, { dtype: 'bfloat16', shape: [4, 1] }),
    ];
    const labels = [0, 1, 2, 1];
    const expected = naiveTarget(labels, 3, lam, 0.1).flat();
    for (const form of forms) {
      assertClose(mixupTarget(labels, 3, { lam: form, smoothing: 0.1 }).data, expected, roundedOnce);
    }
  });

  it('keeps the digits of plain numbers', () => {
    // Through float32, 1 − λ would be 0: 1 − 1e-9 rounds to 1.
    const [row] = mixupTarget([0, 1], 2, { lam: [1 - 1e-9, 1] }).toArray() as number[][];
    assert.equal(row![1], Math.fround(1 - (1 - 1e-9)));
  });

  it('sums to 1 in each row', () => {
    const random = new Random(1);
    const labels = Array.from({ length: 64 }, () => random.integer(1000));
    const lam = labels.map(() => random.uniform());
    for (const smoothing of [0, 0.1, 1]) {
      const rows = mixupTarget(labels, 1000, { lam, smoothing }).toArray() as number[][];
      for (const row of rows) {
        // Each element is off by at most 2^-24 of itself, so the sum is by at most 2^-24.
        assert(Math.abs(row.reduce((sum, q) => sum + q, 0) - 1) <= roundedOnce);
      }
    }
  });

  it('takes an empty batch', () => {
    assert.deepEqual(mixupTarget([], 5).shape, [0, 5]);
    assert.deepEqual(mixupTarget([], 5, { lam: [] }).shape, [0, 5]);
  });

  it('refuses what is no label, λ or smoothing', () => {
    assert.throws(() => mixupTarget([1, 7], 5), {
      code: 'ERR_TARGET_OUT_OF_RANGE',
      message: /\[0, 5\).*row 1 has 7/,
    });
    assert.throws(() => mixupTarget([[0, 1]], 5), {
      code: 'ERR_SHAPE',
      message: /\[N\] or \[N, 1\].*got \[1, 2\]/,
    });
    assert.throws(() => mixupTarget(Float64Array.of(1), 5), { code: 'ERR_DTYPE' });
    assert.throws(() => mixupTarget([0], 0), { code: 'ERR_OPTION', message: /numClasses/ });
    for (const lam of [-0.1, 1.5, NaN]) {
      assert.throws(() => mixupTarget([0, 1], 5, { lam }), { code: 'ERR_OPTION', message: /lam/ });
      assert.throws(() => mixupTarget([0, 1], 5, { lam: [0.5, lam] }), {
        code: 'ERR_OPTION',
        message: /row 1 has/,
      });
    }
    for (const lam of [[0.5], [0.5, 0.5, 0.5], [[0.5, 0.5]]]) {
      assert.throws(() => mixupTarget([0, 1], 5, { lam }), {
        code: 'ERR_SHAPE',
        message: /\[2\] or \[2, 1\]/,
      });
    }
    assert.throws(() => mixupTarget([0, 1], 5, { lam: 'half' as never }), {
      code: 'ERR_DTYPE',
      message: /lam/,
    });
    for (const smoothing of [-0.1, 1.1, NaN]) {
      assert.throws(() => mixupTarget([0], 5, { smoothing }), { code: 'ERR_OPTION', message: /smoothing/ });
    }
    assert.throws(() => mixupTarget([0], 5, { lambda: 1 } as never), {
      code: 'ERR_OPTION',
      message: /'lambda'/,
    });
  });
});

type Image = number[][][];

/** One draw of Mixup, as the tests script it. */
type Draw =
  | { readonly kind: 'none' }
  | { readonly kind: 'mixup'; readonly lam: number }
  | { readonly kind: 'cutmix'; readonly lam: number; readonly cy: number; readonly cx: number };

const prob = 0.8;
const switchProb = 0.4;

/** A generator for Mixup with `prob`, `switchProb` and both kinds of mixing on. */
function scripted(draws: readonly Draw[]): Script {
  const uniforms = { none: [prob], mixup: [0, switchProb], cutmix: [0, switchProb - 0.01] };
  return new Script({
    uniforms: draws.flatMap(({ kind }) => uniforms[kind]),
    betas: draws.flatMap((draw) => (draw.kind === 'none' ? [] : [draw.lam])),
    integers: draws.flatMap((draw) => (draw.kind === 'cutmix' ? [draw.cy, draw.cx] : [])),
  });
}

/** timm's box, and whether a pixel is in it. */
function naiveBox({ lam, cy, cx }: { lam: number; cy: number; cx: number }, height: number, width: number) {
  const range = (center: number, size: number): number[] => {
    const half = Math.floor(Math.floor(size * Math.sqrt(1 - lam)) / 2);
    return Array.from({ length: size }, (_, at) => at).filter(
      (at) => at >= center - half && at < center + half,
    );
  };
  const [ys, xs] = [range(cy, height), range(cx, width)];
  return { has: (y: number, x: number) => ys.includes(y) && xs.includes(x), area: ys.length * xs.length };
}

/** What the mode makes of the draws, image by image and pixel by pixel. */
function naiveMix(
  images: readonly Image[],
  mode: MixupMode,
  draws: readonly Draw[],
  correctLam: boolean,
): { pixels: number[]; lam: number[] } {
  const batch = images.length;
  const [height, width] = [images[0]![0]!.length, images[0]![0]![0]!.length];
  const drawOf = {
    batch: () => 0,
    pair: (i: number) => Math.min(i, batch - 1 - i),
    elem: (i: number) => i,
    half: (i: number) => i,
  };
  const kept = mode === 'half' ? batch / 2 : batch;
  const lam: number[] = [];
  const mixed = images.slice(0, kept).map((own, i) => {
    const other = images[batch - 1 - i]!;
    const draw = draws[drawOf[mode](i)]!;
    const box = draw.kind === 'cutmix' ? naiveBox(draw, height, width) : undefined;
    const share = draw.kind === 'none' ? 1 : box && correctLam ? 1 - box.area / (height * width) : draw.lam;
    lam.push(share);
    return own.map((channel, c) =>
      channel.map((line, y) =>
        line.map((pixel, x) => {
          const partner = other[c]![y]![x]!;
          if (box) return box.has(y, x) ? partner : pixel;
          return share === 1 ? pixel : pixel * share + partner * (1 - share);
        }),
      ),
    );
  });
  return { pixels: mixed.flat(3), lam };
}

/** Half to even, as np.rint. */
function rint(x: number): number {
  const low = Math.floor(x);
  const rest = x - low;
  return rest < 0.5 || (rest === 0.5 && low % 2 === 0) ? low : low + 1;
}

const [B, C, H, W] = [4, 3, 6, 5] as const;
const shape = [B, C, H, W] as const;
const labels = [4, 1, 1, 9];
const numClasses = 10;

/** Images whose pixels every dtype holds exactly: integers in [0, 255], all different in float32 and uint8. */
const pixel = (i: number): number => (i * 37 + 11) % 256;

function build(at: (b: number, c: number, y: number, x: number) => number): Image[] {
  const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
  return range(B).map((b) => range(C).map((c) => range(H).map((y) => range(W).map((x) => at(b, c, y, x)))));
}

const images = build((b, c, y, x) => pixel(((b * C + c) * H + y) * W + x));
const flat = images.flat(3);

/** The pixels rounded once from float64. */
function rounded(pixels: number[], dtype: DType): TypedArray {
  if (dtype === 'uint8') return Uint8Array.from(pixels, rint);
  return tensor(pixels, { dtype: dtype as FloatDType }).data;
}

const draws: readonly Draw[] = [
  { kind: 'mixup', lam: 0.3 },
  { kind: 'cutmix', lam: 0.4, cy: 1, cx: 4 },
  { kind: 'none' },
  { kind: 'cutmix', lam: 0.6, cy: 3, cx: 2 },
];
const drawCount: Record<MixupMode, number> = { batch: 1, pair: 2, elem: 4, half: 2 };
const modes = Object.keys(drawCount) as MixupMode[];
const dtypes: DType[] = ['float32', 'float64', 'float16', 'bfloat16', 'uint8'];
const options: MixupOptions = {
  mixupAlpha: 0.8,
  cutmixAlpha: 0.5,
  prob,
  switchProb,
  labelSmoothing: 0.1,
  numClasses,
};

/** Each kind of draw comes first in one of these. */
const rotations = draws.map((_, k) => [...draws.slice(k), ...draws.slice(0, k)]);

describe('Mixup', () => {
  for (const mode of modes) {
    for (const dtype of dtypes) {
      it(`mixes ${dtype}, mode '${mode}'`, () => {
        for (const rotation of rotations) {
          for (const correctLam of [true, false]) {
            const taken = rotation.slice(0, drawCount[mode]);
            const random = scripted(taken);
            const source = rounded(flat, dtype);
            const before = source.slice();
            const mixup = new Mixup({ ...options, mode, correctLam, random });
            const { x, target } = mixup.apply({ data: source, shape, dtype }, labels);
            random.done();
            const expected = naiveMix(images, mode, taken, correctLam);
            const rows = expected.lam.length;
            assert.deepEqual([x.dtype, x.shape], [dtype, [rows, C, H, W]]);
            assert.deepEqual(x.data, rounded(expected.pixels, dtype));
            assert.deepEqual([target.dtype, target.shape], ['float32', [rows, numClasses]]);
            assertClose(target.data, naiveTarget(labels, numClasses, expected.lam, 0.1).flat(), roundedOnce);
            assert.deepEqual(source, before);
          }
        }
      });

      it(`mixes ${dtype} in place, mode '${mode}'`, () => {
        for (const rotation of rotations) {
          const taken = rotation.slice(0, drawCount[mode]);
          const apart = new Mixup({ ...options, mode, random: scripted(taken) });
          const inPlace = new Mixup({ ...options, mode, random: scripted(taken) });
          const x = new Tensor(rounded(flat, dtype), shape, dtype);
          const expected = apart.apply(x, labels);
          // Half a batch goes into the first half of x.
          const out =
            mode === 'half'
              ? { data: x.data.subarray(0, flat.length / 2), shape: [B / 2, C, H, W], dtype }
              : x;
          const actual = inPlace.apply(x, labels, { out });
          if (mode !== 'half') assert.equal(actual.x, x);
          assert.deepEqual(actual.x.data, expected.x.data);
          assert.deepEqual(x.data.subarray(0, actual.x.data.length), expected.x.data);
          assert.deepEqual(actual.target.data, expected.target.data);
        }
      });
    }
  }

  it('rounds uint8 half to even', () => {
    const random = scripted([{ kind: 'mixup', lam: 0.5 }]);
    const { x } = new Mixup({ ...options, random }).apply(
      { data: Uint8Array.of(0, 1, 2, 255, 1, 2, 3, 254), shape: [2, 1, 1, 4] },
      [0, 1],
    );
    assert.deepEqual([...x.data], [0, 2, 2, 254, 0, 2, 2, 254]);
  });

  it('rounds float16 once', () => {
    // 1·λ + (1 + 2^-10)·(1 − λ) lies 2^-30 above the middle of two neighbours: rounded to float32 on the way, it would
    // be the middle, and go down to the even one.
    const lam = 0.5 - 2 ** -20;
    const random = scripted([{ kind: 'mixup', lam }]);
    const x = tensor([1, 1 + 2 ** -10], { dtype: 'float16' });
    const mixed = new Mixup({ ...options, random }).apply(
      { data: x.data, shape: [2, 1, 1, 1], dtype: 'float16' },
      [0, 1],
    ).x;
    assert.deepEqual(mixed.toArray(), [[[[1 + 2 ** -10]]], [[[1]]]]);
  });

  it('takes images in any layout and form', () => {
    const expected = new Mixup({ ...options, seed: 1 }).apply(
      { data: Float32Array.from(flat), shape },
      labels,
    );
    const interleaved = new Float32Array(flat.length);
    images.forEach((image, b) =>
      image.forEach((channel, c) =>
        channel.forEach((line, y) =>
          line.forEach((value, x) => (interleaved[((b * H + y) * W + x) * C + c] = value)),
        ),
      ),
    );
    const forms: TensorLike[] = [
      images,
      { data: Float32Array.from(flat), dims: [...shape], type: 'float32' },
      { data: interleaved, shape, strides: [H * W * C, 1, W * C, C] },
      { data: new Float32Array(new SharedArrayBuffer(4 * flat.length)).fill(0), shape },
    ];
    (forms.at(-1) as { data: Float32Array }).data.set(flat);
    for (const form of forms) {
      assert.deepEqual(new Mixup({ ...options, seed: 1 }).apply(form, labels).x.data, expected.x.data);
    }
    for (const form of Object.values(labelForms)) {
      assert.deepEqual(
        new Mixup({ ...options, seed: 1 }).apply(images, form(labels)).target.data,
        expected.target.data,
      );
    }
  });

  const Float16 = (globalThis as unknown as { Float16Array?: Float32ArrayConstructor }).Float16Array;
  const itWithFloat16Array = Float16 === undefined ? () => undefined : it;
  itWithFloat16Array('takes float16 in a Float16Array', () => {
    assert.ok(Float16);
    const bits = rounded(flat, 'float16') as Uint16Array;
    const halves = new Float16(bits.buffer as ArrayBuffer) as unknown as Float32Array;
    for (const mode of modes) {
      const expected = new Mixup({ ...options, mode, seed: 1 }).apply(
        { data: bits, shape, dtype: 'float16' },
        labels,
      );
      assert.deepEqual(
        new Mixup({ ...options, mode, seed: 1 }).apply({ data: halves, shape }, labels).x.data,
        expected.x.data,
      );
      const rows = mode === 'half' ? B / 2 : B;
      const out: Float32Array<ArrayBuffer> = new Float16((rows * flat.length) / B);
      new Mixup({ ...options, mode, seed: 1 }).apply({ data: halves, shape }, labels, {
        out: { data: out, shape: [rows, C, H, W] },
      });
      assert.deepEqual(new Uint16Array(out.buffer), expected.x.data);
    }
  });

  it('writes into out and nowhere else', () => {
    const memory = new Float32Array(flat.length + 2).fill(-1);
    const out = new Tensor(memory.subarray(1, flat.length + 1), shape, 'float32');
    const { x } = new Mixup({ ...options, seed: 3 }).apply(images, labels, { out });
    assert.equal(x, out);
    assert.deepEqual(out.data, new Mixup({ ...options, seed: 3 }).apply(images, labels).x.data);
    assert.deepEqual([memory[0], memory.at(-1)], [-1, -1]);
  });

  it('draws λ from Beta(α, α) of the kind that is on', () => {
    const cases: [MixupOptions, uniforms: number[], alpha: number][] = [
      [{}, [0], 1],
      [{ mixupAlpha: 0.2 }, [0], 0.2],
      [{ mixupAlpha: 0, cutmixAlpha: 0.3 }, [0], 0.3],
      [{ mixupAlpha: 0.2, cutmixAlpha: 0.3 }, [0, 0.49], 0.3],
      [{ mixupAlpha: 0.2, cutmixAlpha: 0.3 }, [0, 0.5], 0.2],
      // As timm: α is 1 with cutmixMinmax.
      [{ mixupAlpha: 0, cutmixAlpha: 0.3, cutmixMinmax: [0.2, 0.8] }, [0], 1],
      [{ mixupAlpha: 0.2, cutmixMinmax: [0.2, 0.8] }, [0, 0], 1],
    ];
    for (const [given, uniforms, alpha] of cases) {
      const random = new Script({ uniforms, betas: [0.7], integers: [0, 0, 0, 0] });
      new Mixup({ ...given, numClasses, random }).apply(images, labels);
      assert.deepEqual(random.shapes, [alpha, alpha]);
    }
  });

  it('takes cutmixMinmax boxes and their λ', () => {
    const random = new Script({ uniforms: [0], betas: [0.9], integers: [1, 0, 2, 3] });
    const mixup = new Mixup({
      mixupAlpha: 0,
      cutmixMinmax: [0.2, 0.8],
      correctLam: false,
      labelSmoothing: 0,
      numClasses,
      random,
    });
    const { x, target } = mixup.apply(images, labels);
    // Rows from trunc(0.2·6) = 1 to 3, columns from trunc(0.2·5) = 1 to 3: a box of 2×1, at 2 of [0, 4) and 3 of [0, 4).
    assert.deepEqual(random.bounds, [3, 3, 4, 4]);
    const expected = build(
      (b, c, y, at) => images[at === 3 && (y === 2 || y === 3) ? B - 1 - b : b]![c]![y]![at]!,
    );
    assert.deepEqual(x.toArray(), expected);
    assertClose(
      target.data,
      naiveTarget(
        labels,
        numClasses,
        labels.map(() => 1 - 2 / 30),
        0,
      ).flat(),
      roundedOnce,
    );
  });

  it('draws no box for λ = 1', () => {
    const random = new Script({ uniforms: [0], betas: [1] });
    const { x } = new Mixup({ mixupAlpha: 0, cutmixAlpha: 1, numClasses, random }).apply(images, labels);
    assert.deepEqual(x.toArray(), images);
  });

  it('stops mixing with mixupEnabled = false or prob = 0', () => {
    for (const mode of modes) {
      const enabled = new Mixup({ mode, numClasses, random: new Script({}) });
      enabled.mixupEnabled = false;
      for (const mixup of [enabled, new Mixup({ mode, numClasses, prob: 0 })]) {
        const { x, target } = mixup.apply(images, labels);
        const rows = mode === 'half' ? B / 2 : B;
        assert.deepEqual(x.toArray(), images.slice(0, rows));
        assertClose(
          target.data,
          naiveTarget(labels, numClasses, new Array<number>(rows).fill(1), 0.1).flat(),
          roundedOnce,
        );
      }
    }
  });

  it('has timm’s defaults', () => {
    const mixup = new Mixup({ random: new Script({ uniforms: [0.999999], betas: [0.25] }) });
    const { x, target } = mixup.apply(images, labels);
    assert.equal(mixup.mixupEnabled, true);
    assert.deepEqual(target.shape, [B, 1000]);
    assertClose(
      target.data,
      naiveTarget(labels, 1000, new Array<number>(B).fill(0.25), 0.1).flat(),
      roundedOnce,
    );
    assert.deepEqual(
      x.data,
      rounded(naiveMix(images, 'batch', [{ kind: 'mixup', lam: 0.25 }], true).pixels, 'float32'),
    );
  });

  it('repeats itself for a seed', () => {
    const run = (given: MixupOptions): unknown[] => {
      const mixup = new Mixup({ ...options, mode: 'elem', ...given });
      return [1, 2, 3].map(() => {
        const { x, target } = mixup.apply(images, labels);
        return [x.data, target.data];
      });
    };
    assert.deepEqual(run({ seed: 5 }), run({ seed: 5 }));
    assert.deepEqual(run({ seed: 5 }), run({ random: new Random(5) }));
    assert.notDeepEqual(run({ seed: 5 }), run({ seed: 6 }));
    assert.notDeepEqual(run({}), run({}));
  });

  it('mixes each pixel as its target says', () => {
    // Images that are their label's one-hot vector: after mixup, or in a box's mean, x is the target itself.
    const random = new Random(11);
    const onehots = Array.from({ length: 16 }, () => random.integer(numClasses));
    const data = new Float64Array(16 * numClasses * 64);
    onehots.forEach((label, i) =>
      data.fill(1, (i * numClasses + label) * 64, (i * numClasses + label + 1) * 64),
    );
    for (const mode of modes) {
      const mixup = new Mixup({ ...options, prob: 1, labelSmoothing: 0, mode, random });
      const { x, target } = mixup.apply({ data, shape: [16, numClasses, 8, 8] }, onehots);
      const means = Array.from({ length: target.data.length }, (_, k) => {
        const part = (x.data as Float64Array).subarray(k * 64, (k + 1) * 64);
        return part.reduce((sum, value) => sum + value, 0) / 64;
      });
      assertClose(target.data, means, roundedOnce);
    }
  });

  it('refuses bad options', () => {
    const cases: [MixupOptions, RegExp][] = [
      [{ mixupAlpha: -1 }, /mixupAlpha/],
      [{ mixupAlpha: NaN }, /mixupAlpha/],
      [{ cutmixAlpha: -0.5 }, /cutmixAlpha/],
      [{ mixupAlpha: 0 }, /mixupAlpha > 0, cutmixAlpha > 0 or cutmixMinmax/],
      [{ cutmixMinmax: [0.5, 0.2] }, /cutmixMinmax/],
      [{ cutmixMinmax: [0.5] as never }, /cutmixMinmax/],
      [{ prob: 1.5 }, /prob/],
      [{ switchProb: -1 }, /switchProb/],
      [{ mode: 'element' as never }, /'batch', 'pair', 'elem', 'half' for mode, got 'element'/],
      [{ correctLam: 1 as never }, /correctLam/],
      [{ labelSmoothing: 2 }, /labelSmoothing/],
      [{ numClasses: 0 }, /numClasses/],
      [{ seed: 1.5 }, /seed/],
      [{ seed: 1, random: new Random(1) }, /either seed or random/],
      [{ random: { uniform: () => 0 } as never }, /uniform\(\), integer\(n\) and beta\(a, b\)/],
      [{ mixup_alpha: 1 } as never, /unknown option 'mixup_alpha'/],
      [3 as never, /options as an object/],
    ];
    for (const [given, message] of cases) {
      assert.throws(() => new Mixup(given), { code: 'ERR_OPTION', message });
      assert.throws(() => new FastCollateMixup(given), {
        code: 'ERR_OPTION',
        message: /FastCollateMixup|Random/,
      });
    }
  });

  it('refuses bad batches before it draws or writes', () => {
    const random = new Random(1);
    const { state } = random;
    const mixup = new Mixup({ ...options, random });
    const x = new Tensor(Float32Array.from(flat), shape, 'float32');
    const half = flat.length / 2;
    const twice = new Float32Array(2 * flat.length);
    const shifted = { data: twice.subarray(0, flat.length), shape };
    const cases: [code: string, message: RegExp, run: () => unknown][] = [
      [
        'ERR_SHAPE',
        /even batch.*got 3 images/,
        () => mixup.apply({ data: new Float32Array(12), shape: [3, 1, 2, 2] }, [0, 1, 2]),
      ],
      [
        'ERR_SHAPE',
        /\[B, C, H, W\].*got \[4, 90\]/,
        () => mixup.apply({ data: x.data, shape: [4, 90] }, labels),
      ],
      [
        'ERR_SHAPE',
        /\[B, C, H, W\]/,
        () => mixup.apply({ data: new Float32Array(0), shape: [0, 3, 2, 2] }, []),
      ],
      ['ERR_SHAPE', /each of the 4 images.*got 3/, () => mixup.apply(x, [0, 1, 2])],
      ['ERR_SHAPE', /target of shape \[N\]/, () => mixup.apply(x, [labels])],
      ['ERR_DTYPE', /got int32/, () => mixup.apply({ data: new Int32Array(flat.length), shape }, labels)],
      ['ERR_DTYPE', /class indices/, () => mixup.apply(x, Float32Array.from(labels))],
      ['ERR_TARGET_OUT_OF_RANGE', /\[0, 10\).*row 2 has 10/, () => mixup.apply(x, [0, 1, 10, 11])],
      ['ERR_OPTION', /unknown option 'inplace'/, () => mixup.apply(x, labels, { inplace: true } as never)],
      [
        'ERR_DTYPE',
        /out of the images' dtype float32, got float64/,
        () => mixup.apply(x, labels, { out: { data: new Float64Array(flat.length), shape } }),
      ],
      ['ERR_DTYPE', /write into as out/, () => mixup.apply(x, labels, { out: images })],
      ['ERR_DTYPE', /out/, () => mixup.apply(x, labels, { out: null as never })],
      [
        'ERR_SHAPE',
        /out of shape \[4, 3, 6, 5\], got \[360\]/,
        () => mixup.apply(x, labels, { out: new Float32Array(flat.length) }),
      ],
      [
        'ERR_SHAPE',
        /contiguous out/,
        () =>
          mixup.apply(x, labels, {
            out: { data: new Float32Array(flat.length), shape, strides: [90, 1, 15, 3] },
          }),
      ],
      [
        'ERR_ALIAS',
        /overlaps x/,
        () => mixup.apply(shifted, labels, { out: { data: twice.subarray(1, flat.length + 1), shape } }),
      ],
      [
        'ERR_ALIAS',
        /overlaps x/,
        () => mixup.apply({ ...shifted, strides: [90, 1, 15, 3] }, labels, { out: shifted }),
      ],
      [
        'ERR_ALIAS',
        /overlaps x/,
        () =>
          new Mixup({ ...options, mode: 'half', random }).apply(shifted, labels, {
            out: { data: twice.subarray(half, 2 * half), shape: [2, C, H, W] },
          }),
      ],
      [
        'ERR_SHAPE',
        /6x5 pixels is too small/,
        () => new Mixup({ numClasses, cutmixMinmax: [0.21, 0.22], random }).apply(x, labels),
      ],
    ];
    for (const [code, message, run] of cases) assert.throws(run, { code, message });
    const gone = tensor(images);
    gone.dispose();
    assert.throws(() => mixup.apply(gone, labels), { code: 'ERR_DISPOSED' });
    assert.throws(() => mixup.apply(x, labels, { out: gone }), { code: 'ERR_DISPOSED' });
    assert.deepEqual(random.state, state);
    assert.deepEqual([...x.data], flat);
    assert(twice.every((value) => value === 0));
    // Next to x in the same buffer is not an overlap.
    mixup.apply(shifted, labels, { out: { data: twice.subarray(flat.length), shape } });
  });
});

describe('FastCollateMixup', () => {
  const bytes = images.map((image) => Uint8Array.from(image.flat(2)));
  const pairs = bytes.map((data, i) => [{ data, shape: [C, H, W] }, labels[i]!] as const);

  for (const mode of modes) {
    it(`collates and mixes as Mixup does, mode '${mode}'`, () => {
      for (const rotation of rotations) {
        const taken = rotation.slice(0, drawCount[mode]);
        const random = scripted(taken);
        const { x, target } = new FastCollateMixup({ ...options, mode, random }).collate(pairs);
        random.done();
        const expected = naiveMix(images, mode, taken, true);
        const rows = expected.lam.length;
        assert.deepEqual([x.dtype, x.shape], ['uint8', [rows, C, H, W]]);
        assert.deepEqual(x.data, Uint8Array.from(expected.pixels, rint));
        assertClose(target.data, naiveTarget(labels, numClasses, expected.lam, 0.1).flat(), roundedOnce);
        // timm pastes into the caller's own images here.
        assert.deepEqual(
          bytes,
          images.map((image) => Uint8Array.from(image.flat(2))),
        );
      }
    });
  }

  it('takes images in any layout and labels as bigints', () => {
    const interleaved = images.map((image) => {
      const data = new Uint8Array(C * H * W);
      image.forEach((channel, c) =>
        channel.forEach((line, y) => line.forEach((value, x) => (data[(y * W + x) * C + c] = value))),
      );
      return { data, shape: [C, H, W], strides: [1, W * C, C] };
    });
    const clamped = bytes.map((data) => new Tensor(Uint8ClampedArray.from(data), [C, H, W], 'uint8'));
    const expected = new FastCollateMixup({ ...options, seed: 2 }).collate(pairs);
    for (const forms of [interleaved, clamped]) {
      const batch = forms.map((image, i) => [image, BigInt(labels[i]!)] as const);
      const actual = new FastCollateMixup({ ...options, seed: 2 }).collate(batch);
      assert.deepEqual(actual.x.data, expected.x.data);
      assert.deepEqual(actual.target.data, expected.target.data);
    }
  });

  it('writes into out', () => {
    const out = new Tensor(new Uint8Array(flat.length), shape, 'uint8');
    const { x } = new FastCollateMixup({ ...options, seed: 2 }).collate(pairs, { out });
    assert.equal(x, out);
    assert.deepEqual(out.data, new FastCollateMixup({ ...options, seed: 2 }).collate(pairs).x.data);
  });

  it('is a Mixup', () => {
    const mixup = new FastCollateMixup({ ...options, seed: 2 });
    assert(mixup instanceof Mixup);
    const x = { data: Uint8Array.from(flat), shape };
    assert.deepEqual(
      mixup.apply(x, labels).x.data,
      new Mixup({ ...options, seed: 2 }).apply(x, labels).x.data,
    );
  });

  it('refuses bad batches before it draws or writes', () => {
    const random = new Random(1);
    const { state } = random;
    const mixup = new FastCollateMixup({ ...options, random });
    const joined = new Uint8Array(flat);
    const views = labels.map(
      (label, i) => [{ data: joined.subarray(i * 90, (i + 1) * 90), shape: [C, H, W] }, label] as const,
    );
    const small = [{ data: new Uint8Array(4), shape: [1, 2, 2] }, 0] as const;
    const float = [{ data: new Float32Array(90), shape: [C, H, W] }, 0] as const;
    const cases: [code: string, message: RegExp, run: () => unknown][] = [
      ['ERR_SHAPE', /at least two images.*none/, () => mixup.collate([])],
      ['ERR_SHAPE', /even batch.*got 3/, () => mixup.collate(pairs.slice(1))],
      ['ERR_SHAPE', /batch\[0\]\[0\] has \[90\]/, () => mixup.collate(bytes.map((data) => [data, 0]))],
      [
        'ERR_SHAPE',
        /one shape.*\[3, 6, 5\] and batch\[1\]\[0\] \[1, 2, 2\]/,
        () => mixup.collate([pairs[0]!, small]),
      ],
      [
        'ERR_DTYPE',
        /uint8 images, but batch\[1\]\[0\] has dtype float32/,
        () => mixup.collate([pairs[0]!, float]),
      ],
      ['ERR_DTYPE', /\[image, label\] pairs/, () => mixup.collate(bytes as never)],
      ['ERR_DTYPE', /\[image, label\] pairs.*got 3/, () => mixup.collate(3 as never)],
      ['ERR_DTYPE', /batch\[1\]\[0\]/, () => mixup.collate([pairs[0]!, ['cat.png' as never, 0]])],
      ['ERR_DTYPE', /target/, () => mixup.collate([pairs[0]!, [pairs[1]![0], 'cat' as never]])],
      ['ERR_TARGET_OUT_OF_RANGE', /row 1 has -1/, () => mixup.collate([pairs[0]!, [pairs[1]![0], -1]])],
      ['ERR_OPTION', /unknown option/, () => mixup.collate(pairs, { x: 1 } as never)],
      [
        'ERR_DTYPE',
        /dtype uint8, got float32/,
        () => mixup.collate(pairs, { out: { data: new Float32Array(360), shape } }),
      ],
      [
        'ERR_SHAPE',
        /out of shape/,
        () => mixup.collate(pairs, { out: { data: new Uint8Array(180), shape: [2, C, H, W] } }),
      ],
      ['ERR_ALIAS', /overlaps batch\[0\]\[0\]/, () => mixup.collate(views, { out: { data: joined, shape } })],
    ];
    for (const [code, message, run] of cases) assert.throws(run, { code, message });
    assert.deepEqual(random.state, state);
    assert.deepEqual([...joined], flat);
  });
});
