import assert from 'node:assert/strict';
import { getNumThreads, setNumThreads, tensor, type FloatDType, type Tensor } from 'surprisal';
import {
  AsymmetricLossSingleLabel,
  BinaryCrossEntropy,
  CrossEntropyLoss,
  JsdCrossEntropy,
  LabelSmoothingCrossEntropy,
  LensedCrossEntropy,
  SoftTargetCrossEntropy,
} from 'surprisal/loss';
import { ClassificationEvaluator, type ClassificationEvaluatorOptions } from 'surprisal/metrics';

import { assertNear } from '../support/close.js';
import { allocate, floatDTypes, floatTensor, roundTo, valuesOf } from '../support/float_formats.js';
import { evaluateByDefinition } from '../support/metrics_reference.js';
import { nativeBinding } from '../support/losses.js';
import { Samples } from '../support/random.js';

const binding = nativeBinding();

/**
 * What a metric may be off by. In float32 a row's sums of exponentials are right to 3e-7 of themselves, and so are the
 * numbers made of them to a few of these; in float64 to as many times 1e-16, by which the reference's plain sums over
 * some hundred rows are off too.
 */
const tolerance = (dtype: FloatDType): number => (dtype === 'float64' ? 2e-14 : 2e-6);

interface Batch {
  readonly logits: Tensor;
  readonly labels: Int32Array;
  /** The logits as they were rounded. */
  readonly rows: number[][];
}

/** Logits that are right often enough, some of them masked, and some of few values, so that there are equal ones. */
function batchOf(count: number, classes: number, dtype: FloatDType, seed = 1): Batch {
  const samples = new Samples(seed);
  const labels = samples.labels(count, classes);
  const values = samples.normals(count * classes, 2);
  for (let row = 0; row < count; row++) {
    values[row * classes + labels[row]!]! += row % 3;
    if (row % 4 === 0) {
      for (let c = 0; c < classes; c++) values[row * classes + c] = Math.round(values[row * classes + c]!);
    }
    if (row % 5 === 0) values[row * classes + ((labels[row]! + 1) % classes)] = classes > 1 ? -Infinity : 0;
    // Of a long row the largest logits in its last chunk, two of them.
    if (classes > 2048 && row % 7 < 2) values.fill(20, (row + 1) * classes - 2, (row + 1) * classes);
  }
  const logits = floatTensor(values, [count, classes], dtype);
  const numbers = Array.from(valuesOf(logits));
  return {
    logits,
    labels,
    rows: Array.from({ length: count }, (_, row) => numbers.slice(row * classes, (row + 1) * classes)),
  };
}

const stateOf = (evaluator: ClassificationEvaluator) => JSON.stringify(evaluator);

function assertMetrics(evaluator: ClassificationEvaluator, { rows, labels }: Batch, dtype: FloatDType): void {
  const { topK, bins, numClasses } = evaluator.config;
  const round = (x: number) => roundTo(x, dtype === 'float64' ? 'float64' : 'float32');
  const expected = evaluateByDefinition(rows, Array.from(labels), { topK, bins, round });
  const metrics = evaluator.compute();
  const near = (got: number, wanted: number, what: string) =>
    assertNear(
      got,
      wanted,
      tolerance(dtype) * Math.max(1, Math.abs(wanted)),
      () => `${what} (${dtype}, C = ${numClasses})`,
    );
  assert.equal(metrics.rows, expected.rows);
  near(metrics.loss, expected.loss, 'loss');
  near(metrics.perplexity, Math.exp(expected.loss), 'perplexity');
  near(metrics.expectedCalibrationError, expected.expectedCalibrationError, 'expectedCalibrationError');
  near(metrics.maximumCalibrationError, expected.maximumCalibrationError, 'maximumCalibrationError');
  near(metrics.brierScore, expected.brierScore, 'brierScore');
  near(metrics.entropy, expected.entropy, 'entropy');
  for (const k of topK)
    assert.equal(metrics.topK[k], expected.topK.get(k), `top ${k} of ${numClasses}, ${dtype}`);
  assert.equal(
    metrics.accuracy,
    evaluateByDefinition(rows, Array.from(labels), { topK: [1], bins, round }).topK.get(1),
  );
  for (let y = 0; y < numClasses; y++) {
    assert.equal(metrics.perClass.accuracy[y], expected.perClassAccuracy[y], `accuracy of class ${y}`);
    if (Number.isNaN(expected.perClassLoss[y])) assert.ok(Number.isNaN(metrics.perClass.loss[y]));
    else near(metrics.perClass.loss[y]!, expected.perClassLoss[y]!, `loss of class ${y}`);
  }
  assert.deepEqual(Array.from(metrics.confusionMatrix!.data, Number), expected.confusion);
}

/** The tensor's elements in other places of more memory. */
function withStrides(source: Tensor, strides: readonly number[], length: number): Tensor {
  const [rows, classes] = source.shape as [number, number];
  const data = allocate(source.dtype as FloatDType, length);
  for (let row = 0; row < rows; row++) {
    for (let c = 0; c < classes; c++) {
      data[row * strides[0]! + c * strides[1]!] = source.data[row * classes + c] as number;
    }
  }
  return tensor(data, { shape: source.shape, strides, dtype: source.dtype });
}

describe('ClassificationEvaluator', () => {
  const threads = getNumThreads();
  const [instructionSet] = binding.instructionSets;
  afterEach(() => {
    setNumThreads(threads);
    binding.setInstructionSet(instructionSet!);
  });

  for (const dtype of floatDTypes) {
    // On both sides of where rows lie across lanes, of where parts count classes themselves, and of whole stretches and
    // chunks.
    for (const classes of [1, 2, 3, 10, 24, 25, 48, 49, 64, 65, 130, 1000, 2100]) {
      it(`gives what the published definitions do: ${dtype}, ${classes} classes`, () => {
        const batch = batchOf(classes > 500 ? 60 : 150, classes, dtype, classes);
        const options = { numClasses: classes, topK: [1, 2, 5] };
        assertMetrics(new ClassificationEvaluator(options).update(batch.logits, batch.labels), batch, dtype);
      });
    }
  }

  for (const name of binding.instructionSets) {
    it(`gives what the published definitions do on ${name}`, () => {
      binding.setInstructionSet(name);
      for (const classes of [10, 100]) {
        const batch = batchOf(100, classes, 'float32');
        const evaluator = new ClassificationEvaluator({ numClasses: classes, bins: 10 });
        assertMetrics(evaluator.update(batch.logits, batch.labels), batch, 'float32');
      }
    });
  }

  it('takes logits of any strides, and of more dimensions', () => {
    for (const dtype of floatDTypes) {
      for (const classes of [7, 100]) {
        const { logits, labels } = batchOf(40, classes, dtype);
        const wanted = new ClassificationEvaluator({ numClasses: classes }).update(logits, labels);
        const wide = withStrides(logits, [classes + 3, 1], 40 * (classes + 3));
        assert.equal(
          stateOf(new ClassificationEvaluator({ numClasses: classes }).update(wide, labels)),
          stateOf(wanted),
        );
        const columns = withStrides(logits, [1, 40], 40 * classes);
        const across = new ClassificationEvaluator({ numClasses: classes }).update(columns, labels);
        // [N, C, d]: rows of one d are those of one column of d.
        const maps = tensor(columns.data, { shape: [1, classes, 40], dtype });
        const mapped = new ClassificationEvaluator({ numClasses: classes }).update(
          maps,
          tensor(labels, { shape: [1, 40] }),
        );
        assert.equal(stateOf(mapped), stateOf(across), `${dtype}, ${classes}`);
        assertMetrics(across, batchOf(40, classes, dtype), dtype);
      }
    }
  });

  it('takes class indices of every integer type', () => {
    const { logits, labels } = batchOf(50, 10, 'float32');
    const wanted = stateOf(new ClassificationEvaluator({ numClasses: 10 }).update(logits, labels));
    const numbers = Array.from(labels);
    const arrays = [
      Int8Array.from(numbers),
      Uint8Array.from(numbers),
      Int16Array.from(numbers),
      Uint16Array.from(numbers),
      Uint32Array.from(numbers),
      BigInt64Array.from(numbers, BigInt),
      BigUint64Array.from(numbers, BigInt),
      numbers,
    ];
    for (const array of arrays) {
      assert.equal(stateOf(new ClassificationEvaluator({ numClasses: 10 }).update(logits, array)), wanted);
    }
  });

  describe('has the same state, bit for bit,', () => {
    // A term's last digits are cut off. Few rows of many classes are added to the sums one by one, many are counted by
    // the parts of a call: both must cut at the same place, down to losses far below the last digit.
    for (const dtype of ['float32', 'float64'] as const) {
      it(`of losses that are next to nothing: ${dtype}`, () => {
        const [rows, classes] = [900, 200];
        const samples = new Samples(11);
        const labels = samples.labels(rows, classes);
        const values = samples.normals(rows * classes, 0.3);
        labels.forEach((y, row) => (values[row * classes + y] = 15 + row / 12));
        const logits = floatTensor(values, [rows, classes], dtype);
        const make = () => new ClassificationEvaluator({ numClasses: classes });
        const whole = make().update(logits, labels);
        const alone = make();
        for (let row = 0; row < rows; row++) {
          const own = logits.data.subarray(row * classes, (row + 1) * classes);
          alone.update(tensor(own, { shape: [1, classes], dtype }), labels.subarray(row, row + 1));
        }
        assert.equal(stateOf(alone), stateOf(whole));
        assert.ok(whole.compute().loss > 0 && whole.compute().loss < 1e-4);
      });
    }

    for (const [dtype, classes] of [
      ['float32', 10],
      ['float64', 10],
      ['float32', 200],
      ['bfloat16', 200],
    ] as const) {
      const { logits, labels } = batchOf(900, classes, dtype);
      const shards = (cuts: readonly number[]) =>
        cuts.map((from, i) => {
          const to = cuts[i + 1] ?? 900;
          return {
            logits: tensor(logits.data.subarray(from * classes, to * classes), {
              shape: [to - from, classes],
              dtype,
            }),
            labels: labels.subarray(from, to),
          };
        });
      const make = () => new ClassificationEvaluator({ numClasses: classes });
      const whole = make().update(logits, labels);

      it(`in batches of any size and order: ${dtype}, ${classes} classes`, () => {
        for (const cuts of [[0, 450], [0, 1, 2, 3, 500, 899], Array.from({ length: 900 }, (_, i) => i)]) {
          for (const parts of [shards(cuts), shards(cuts).reverse()]) {
            const evaluator = make();
            for (const part of parts) evaluator.update(part.logits, part.labels);
            assert.equal(stateOf(evaluator), stateOf(whole));
          }
        }
      });

      it(`merged of shards, through JSON or not: ${dtype}, ${classes} classes`, () => {
        const states = shards([0, 100, 101, 640]).map((part) => make().update(part.logits, part.labels));
        const merged = make();
        for (const state of states) merged.merge(state);
        assert.equal(stateOf(merged), stateOf(whole));
        const read = states.map((state) =>
          ClassificationEvaluator.fromJSON(JSON.parse(JSON.stringify(state))),
        );
        const backwards = read.reverse().reduce((all, state) => all.merge(state), make());
        assert.equal(stateOf(backwards), stateOf(whole));
        assert.deepEqual(backwards.compute(), whole.compute());
      });

      it(`on any number of threads, on the event loop or off: ${dtype}, ${classes} classes`, async () => {
        const many = 20_000;
        const rows = (from: Tensor) => {
          const data = allocate(dtype, many * classes);
          for (let at = 0; at < data.length; at += from.data.length) {
            data.set(
              (from.data as Float32Array).subarray(0, Math.min(from.data.length, data.length - at)),
              at,
            );
          }
          return tensor(data, { shape: [many, classes], dtype });
        };
        const big = rows(logits);
        const bigLabels = Int32Array.from({ length: many }, (_, row) => labels[row % 900]!);
        const states = new Set<string>();
        for (const count of [1, 2, 5]) {
          setNumThreads(count);
          states.add(stateOf(make().update(big, bigLabels)));
          states.add(stateOf(await make().updateAsync(big, bigLabels)));
        }
        assert.equal(states.size, 1);
      });
    }
  });

  it('sums the losses exactly: of float64 logits to the last bit of the mean of the exact sum', () => {
    const { logits, labels } = batchOf(300, 20, 'float64');
    const losses = new CrossEntropyLoss({ reduction: 'none' }).forward(logits, labels).data as Float64Array;
    // The losses as whole numbers of 2^-112; all of them are, as each is at least 2^-59 or 0.
    const unit = 2n ** 112n;
    let sum = 0n;
    for (const loss of losses) {
      assert.ok(loss === 0 || loss >= 2 ** -59);
      sum += (BigInt(loss * 2 ** 112) * unit) / unit;
    }
    const mean = (Number(sum) * 2 ** -112) / 300;
    assert.equal(new ClassificationEvaluator({ numClasses: 20 }).update(logits, labels).compute().loss, mean);
  });

  it('keeps the digits of confident rows', () => {
    // p of the others is e^-40 each.
    const miss = 2 * Math.exp(-40);
    const metrics = new ClassificationEvaluator({ numClasses: 3 }).update([[40, 0, 0]], [0]).compute();
    assertNear(metrics.loss / miss, 1, 1e-6, () => 'loss');
    const near = new ClassificationEvaluator({ numClasses: 3 }).update([[10, 0, 0]], [0]).compute();
    const p = Math.exp(-10) / (1 + 2 * Math.exp(-10));
    assertNear(near.brierScore / (2 * p * p + (2 * p) ** 2), 1, 1e-6, () => 'brierScore');
  });

  it('puts confidences into bins as torchmetrics does: closed below, and those of 1 apart', () => {
    const no = -Infinity;
    // Confidences 1/4, 1/2, 1/2 and 1, of which all but the last are where a bin ends and the next begins.
    const rows = [
      [0, 0, 0, 0],
      [0, 0, no, no],
      [no, 1, 1, no],
      [0, no, no, no],
    ];
    for (const dtype of ['float32', 'float64'] as const) {
      const { calibration, expectedCalibrationError, maximumCalibrationError } = new ClassificationEvaluator({
        numClasses: 4,
        bins: 4,
      })
        .update(tensor(rows, { dtype }), [1, 0, 2, 0])
        .compute();
      assert.deepEqual(Array.from(calibration.rows), [0, 1, 2, 0, 1]);
      assert.deepEqual(Array.from(calibration.accuracy), [NaN, 0, 0.5, NaN, 1]);
      assert.deepEqual(Array.from(calibration.confidence), [NaN, 0.25, 0.5, NaN, 1]);
      assert.equal(maximumCalibrationError, 0.25);
      assert.equal(expectedCalibrationError, 0.25 / 4);
    }
  });

  it('takes the smaller index first where logits are equal', () => {
    const logits = [
      [1, 1, 1, 0],
      [1, 1, 1, 0],
      [1, 1, 1, 0],
    ];
    const { topK, confusionMatrix } = new ClassificationEvaluator({ numClasses: 4, topK: [1, 2, 3] })
      .update(logits, [0, 1, 2])
      .compute();
    assert.deepEqual(topK, { 1: 1 / 3, 2: 2 / 3, 3: 1 });
    assert.deepEqual(
      (confusionMatrix!.toArray() as number[][]).map(([first]) => first),
      [1, 1, 1, 0],
    );
  });

  it('leaves ignored rows out of everything', () => {
    const { logits, labels } = batchOf(60, 12, 'float32');
    const some = labels.map((y, row) => (row % 3 === 0 ? -100 : y));
    const kept = Array.from({ length: 60 }, (_, row) => row).filter((row) => row % 3 !== 0);
    const wanted = new ClassificationEvaluator({ numClasses: 12 });
    for (const row of kept) {
      wanted.update(
        tensor(logits.data.subarray(row * 12, row * 12 + 12), { shape: [1, 12] }),
        labels.subarray(row, row + 1),
      );
    }
    const evaluator = new ClassificationEvaluator({ numClasses: 12 }).update(logits, some);
    assert.equal(evaluator.compute().ignored, 20);
    assert.deepEqual({ ...evaluator.compute(), ignored: 0 }, wanted.compute());
    const other = new ClassificationEvaluator({ numClasses: 12, ignoreIndex: 255 });
    assert.throws(() => other.update(logits, some), { code: 'ERR_TARGET_OUT_OF_RANGE' });
  });

  it('says NaN of what there is no row for', () => {
    const metrics = new ClassificationEvaluator({ numClasses: 2 }).compute();
    const { loss, perplexity, accuracy, topK, expectedCalibrationError, maximumCalibrationError } = metrics;
    const numbers = [
      loss,
      perplexity,
      accuracy,
      topK[1],
      topK[5],
      expectedCalibrationError,
      maximumCalibrationError,
    ];
    assert.deepEqual(
      [...numbers, metrics.brierScore, metrics.entropy, ...metrics.perClass.loss],
      new Array(11).fill(NaN),
    );
    assert.equal(metrics.rows, 0);
  });

  for (const classes of [3, 70]) {
    it(`counts rows without a loss apart, which have no prediction: ${classes} classes`, () => {
      const row = (first: number) => Array.from({ length: classes }, (_, c) => (c === 0 ? first : c));
      const metrics = new ClassificationEvaluator({ numClasses: classes })
        .update([row(0), row(NaN), row(Infinity), row(0)], [classes - 1, classes - 1, 0, 1])
        .compute();
      assert.equal(metrics.rows, 4);
      assert.equal(metrics.undefined, 2);
      assert.ok(
        [metrics.loss, metrics.brierScore, metrics.entropy, metrics.expectedCalibrationError].every(
          Number.isNaN,
        ),
      );
      assert.equal(metrics.accuracy, 1 / 4);
      assert.ok(metrics.perClass.loss[1]! > 0);
      assert.ok(Number.isNaN(metrics.perClass.loss[classes - 1]) && Number.isNaN(metrics.perClass.loss[0]));
      const counts = metrics.confusionMatrix!.data as Float64Array;
      assert.equal(
        counts.reduce((a, b) => a + b),
        2,
      );
    });

    it(`takes the loss of a masked label as infinite: ${classes} classes`, () => {
      const rows = [0, 1].map((masked) =>
        Array.from({ length: classes }, (_, c) => (c === masked ? -Infinity : 1)),
      );
      const metrics = new ClassificationEvaluator({ numClasses: classes }).update(rows, [0, 2]).compute();
      assert.equal(metrics.loss, Infinity);
      assert.equal(metrics.perplexity, Infinity);
      assert.equal(metrics.perClass.loss[0], Infinity);
      assertNear(metrics.perClass.loss[2]!, Math.log(classes - 1), 1e-6, () => 'loss of class 2');
      assertNear(metrics.entropy, Math.log(classes - 1), 1e-6, () => 'entropy');
      assertNear(
        metrics.brierScore,
        (classes - 1) / (classes - 1) ** 2 + 0.5 * (1 + 1 - 2 / (classes - 1)),
        1e-6,
        () => 'brierScore',
      );
    });
  }

  it('stays exact past the number of terms that digits hold', () => {
    // More than 2^20 rows of one class, whose digits have to be carried meanwhile.
    const classes = 65;
    const count = 1 << 16;
    const logits = new Float32Array(count * classes);
    for (let row = 0; row < count; row++) logits[row * classes] = (row % 97) / 7;
    const labels = new Uint8Array(count);
    const once = new ClassificationEvaluator({ numClasses: classes, confusion: false }).update(
      logits_(logits),
      labels,
    );
    const often = new ClassificationEvaluator({ numClasses: classes, confusion: false });
    for (let i = 0; i < 17; i++) often.update(logits_(logits), labels);
    const sum = (evaluator: ClassificationEvaluator) => BigInt(`0x${evaluator.toJSON().labels[0]![5]}`);
    assert.equal(sum(often), 17n * sum(once));
    assert.equal(often.compute().rows, 17 * count);

    function logits_(data: Float32Array) {
      return { data, shape: [count, classes] };
    }
  });

  describe('losses', () => {
    const classes = 6;
    const { logits, labels } = batchOf(48, classes, 'float32', 5);
    const finite = floatTensor(
      Array.from(valuesOf(logits), (z) => Math.max(z, -20)),
      [48, classes],
      'float32',
    );
    const lens = Array.from({ length: classes }, (_, y) =>
      Array.from({ length: classes }, (_, c) => (c === y ? 0.75 : 0.05)),
    );
    const weight = [1, 2, 0.5, 3, 1, 0.25];
    const make = () => ({
      smoothed: new LabelSmoothingCrossEntropy({ smoothing: 0.2 }),
      weighted: new CrossEntropyLoss({ weight }),
      ignoring: new CrossEntropyLoss({ ignoreIndex: 3, labelSmoothing: 0.1 }),
      lensed: new LensedCrossEntropy({ confusionLens: lens }),
      asymmetric: new AsymmetricLossSingleLabel(),
      binary: new BinaryCrossEntropy(),
      binarySum: new BinaryCrossEntropy({ sumClasses: true }),
      summed: new CrossEntropyLoss({ reduction: 'sum' }),
      split: new JsdCrossEntropy({ numSplits: 2 }),
    });

    it('are what each loss says of all rows at once', () => {
      const { losses } = new ClassificationEvaluator({ numClasses: classes, losses: make() })
        .update(finite, labels)
        .compute();
      for (const [name, loss] of Object.entries(make())) {
        const wanted = loss.forward(finite, labels).item();
        // The loss is rounded to float32, as are the terms here.
        assertNear(losses[name]!, wanted, 3e-7 * Math.max(1, Math.abs(wanted)), () => name);
      }
    });

    it('are exact over batches, shards and JSON', async () => {
      const options: ClassificationEvaluatorOptions = { numClasses: classes, losses: make() };
      const ofRows = Object.fromEntries(Object.entries(make()).filter(([name]) => name !== 'split'));
      const byRow = { ...options, losses: ofRows };
      const whole = new ClassificationEvaluator(byRow).update(finite, labels);
      const part = (from: number, to: number) =>
        [
          tensor(finite.data.subarray(from * classes, to * classes), { shape: [to - from, classes] }),
          labels.subarray(from, to),
        ] as const;
      const first = await new ClassificationEvaluator(byRow).updateAsync(...part(0, 13));
      const second = new ClassificationEvaluator(byRow).update(...part(13, 20)).update(...part(20, 48));
      const read = ClassificationEvaluator.fromJSON(JSON.parse(stateOf(second)), { losses: ofRows });
      assert.equal(stateOf(read.merge(first)), stateOf(whole));
    });

    it('are refused that take no class indices, or are none', () => {
      const refused = { name: 'TypeError', code: 'ERR_OPTION' };
      for (const loss of [new SoftTargetCrossEntropy(), {} as never, (() => 0) as never]) {
        assert.throws(() => new ClassificationEvaluator({ numClasses: 3, losses: { loss } }), refused);
      }
    });

    it('count nothing where a batch is refused', () => {
      const evaluator = new ClassificationEvaluator({ numClasses: classes, losses: make() }).update(
        finite,
        labels,
      );
      const before = stateOf(evaluator);
      // The losses before the one that refuses it have no ignoreIndex of −100.
      assert.throws(() => evaluator.update(finite, labels.with(5, -100)), {
        code: 'ERR_TARGET_OUT_OF_RANGE',
      });
      assert.equal(stateOf(evaluator), before);
    });
  });

  it('is refused by the native side for any call but plain cross entropy of indices', () => {
    const entry = binding.losses.findIndex(({ name }) => name === 'cross_entropy');
    const header = new Float64Array(binding.fields.length);
    const set = (values: Readonly<Record<string, number>>) => {
      for (const [field, value] of Object.entries(values))
        header[(binding.fields as string[]).indexOf(field)] = value;
    };
    set({ loss: entry, reduction: binding.reductions.indexOf('sum'), outer: 2, inner: 1, classes: 3 });
    set({ inputOuterStride: 3, inputInnerStride: 1, inputClassStride: 1, gradOutput: 1, ignoreIndex: NaN });
    set({ indicesDtype: binding.dtypes.indexOf('int32'), ranks: 1, bins: 2 });
    const { size } = binding.statisticsLayout(3, 1, 2);
    const call = (words: Float64Array, confusion?: Float64Array, grad?: Float32Array) =>
      binding.evaluate(
        header,
        new Float32Array(6),
        new Int32Array(2),
        grad,
        ...([undefined, undefined, undefined, undefined, undefined, undefined] as const),
        words,
        confusion,
      );
    const refused = { code: 'ERR_SHAPE' };
    assert.throws(() => call(new Float64Array(size - 1)), refused);
    assert.throws(() => call(new Float64Array(size), new Float64Array(8)), refused);
    assert.throws(() => call(new Float64Array(size), undefined, new Float32Array(6)), refused);
    for (const [field, value] of [
      ['parameter0', 0.1],
      ['bins', 0],
      ['ranks', -1],
      ['reduction', 0],
      ['loss', binding.losses.findIndex(({ name }) => name === 'nll')],
    ] as const) {
      const at = (binding.fields as string[]).indexOf(field);
      const before = header[at]!;
      header[at] = value;
      assert.throws(() => call(new Float64Array(size)), refused, field);
      header[at] = before;
    }
    const words = new Float64Array(size);
    assertNear(call(words, new Float64Array(9))!, 2 * Math.log(3), 1e-6, () => 'loss');
    assert.ok(words.some((word) => word !== 0));
  });

  describe('counts nothing of a batch', () => {
    for (const classes of [5, 90]) {
      const { logits, labels } = batchOf(30, classes, 'float32');

      it(`with a class index out of range: ${classes} classes`, async () => {
        const evaluator = new ClassificationEvaluator({ numClasses: classes }).update(logits, labels);
        const before = stateOf(evaluator);
        const bad = labels.with(29, classes);
        const expected = { name: 'RangeError', code: 'ERR_TARGET_OUT_OF_RANGE', message: /row 29 is/ };
        assert.throws(() => evaluator.update(logits, bad), expected);
        await assert.rejects(evaluator.updateAsync(logits, bad), expected);
        assert.equal(stateOf(evaluator), before);
      });

      it(`whose signal was or is aborted: ${classes} classes`, async () => {
        const evaluator = new ClassificationEvaluator({ numClasses: classes });
        const before = stateOf(evaluator);
        const big = new Float32Array(40_000 * classes);
        const controller = new AbortController();
        const call = evaluator.updateAsync({ data: big, shape: [40_000, classes] }, new Int32Array(40_000), {
          signal: controller.signal,
        });
        controller.abort();
        await assert.rejects(call, { name: 'AbortError', code: 'ERR_ABORTED' });
        const { signal } = controller;
        await assert.rejects(evaluator.updateAsync(logits, labels, { signal }), { name: 'AbortError' });
        assert.equal(stateOf(evaluator), before);
      });
    }

    it('of another shape or type', () => {
      const evaluator = new ClassificationEvaluator({ numClasses: 3 });
      const before = stateOf(evaluator);
      const refused: readonly (readonly [unknown, unknown, string])[] = [
        [[[1, 2]], [0], 'ERR_SHAPE'],
        [[[1, 2, 3]], [0, 1], 'ERR_SHAPE'],
        [[[1, 2, 3]], [[0.1, 0.2, 0.7]], 'ERR_SHAPE'],
        [[[1, 2, 3]], Float32Array.of(0), 'ERR_DTYPE'],
        [{ data: Int32Array.of(1, 2, 3), shape: [1, 3] }, [0], 'ERR_DTYPE'],
        ['logits', [0], 'ERR_DTYPE'],
      ];
      for (const [logits, target, code] of refused) {
        assert.throws(
          () => evaluator.update(logits as never, target as never),
          (error: { code?: string }) => {
            // Plain numbers with fractions are no indices: which is seen first is the tensor's to say.
            return error.code === code || (code === 'ERR_SHAPE' && error.code === 'ERR_DTYPE');
          },
        );
      }
      assert.equal(stateOf(evaluator), before);
    });
  });

  it('counts asynchronous batches as they come, beside synchronous ones', async () => {
    const { logits, labels } = batchOf(3000, 30, 'float32');
    const evaluator = new ClassificationEvaluator({ numClasses: 30 });
    const calls = [1, 2, 3].map(() => evaluator.updateAsync(logits, labels));
    evaluator.update(logits, labels);
    await Promise.all(calls);
    const wanted = new ClassificationEvaluator({ numClasses: 30 });
    for (let i = 0; i < 4; i++) wanted.update(logits, labels);
    assert.equal(stateOf(evaluator), stateOf(wanted));
  });

  it('counts asynchronous batches where calls work on copies', async () => {
    const mode = binding.getMemoryMode();
    binding.setMemoryMode('copied');
    try {
      for (const classes of [3, 80]) {
        const { logits, labels } = batchOf(100, classes, 'float32');
        const evaluator = await new ClassificationEvaluator({ numClasses: classes }).updateAsync(
          logits,
          labels,
        );
        assert.equal(
          stateOf(evaluator),
          stateOf(new ClassificationEvaluator({ numClasses: classes }).update(logits, labels)),
        );
      }
    } finally {
      binding.setMemoryMode(mode);
    }
  });

  describe('options', () => {
    const refuse = (options: unknown, message: RegExp) =>
      assert.throws(() => new ClassificationEvaluator(options as never), { code: 'ERR_OPTION', message });

    it('are checked', () => {
      refuse({}, /numClasses/);
      refuse({ numClasses: 0 }, /numClasses/);
      refuse({ numClasses: 2.5 }, /numClasses/);
      refuse({ numClasses: 3, topK: [] }, /topK/);
      refuse({ numClasses: 3, topK: 5 }, /topK/);
      refuse({ numClasses: 3, topK: [1, 0] }, /topK\[1\]/);
      refuse({ numClasses: 3, bins: 0 }, /bins/);
      refuse({ numClasses: 3, ignoreIndex: 0.5 }, /ignoreIndex/);
      refuse({ numClasses: 3, confusion: 1 }, /confusion/);
      refuse({ numClasses: 3, losses: [] }, /losses/);
      refuse({ numClasses: 3, classes: 3 }, /unknown option 'classes'/);
    });

    it('say whether there is a confusion matrix, which many classes need', () => {
      refuse({ numClasses: 5000 }, /confusion: false/);
      const without = new ClassificationEvaluator({ numClasses: 5000, confusion: false });
      without.update({ data: new Float32Array(5000), shape: [1, 5000] }, [4999]);
      const metrics = without.compute();
      assert.ok(!('confusionMatrix' in metrics));
      assertNear(metrics.loss, Math.log(5000), 1e-5, () => 'loss');
      assert.equal(metrics.topK[5], 0);
    });

    it('of topK come sorted, and once each', () => {
      const { config } = new ClassificationEvaluator({ numClasses: 9, topK: [3, 1, 3] });
      assert.deepEqual(config.topK, [1, 3]);
    });
  });

  describe('merge', () => {
    it('refuses another configuration, and says how it differs', () => {
      const evaluator = new ClassificationEvaluator({ numClasses: 3 });
      const others = [
        [{ numClasses: 4 }, /numClasses is 3 here, 4 there/],
        [{ numClasses: 3, bins: 10 }, /bins is 15 here, 10 there/],
        [{ numClasses: 3, topK: [1] }, /topK/],
        [{ numClasses: 3, ignoreIndex: -1 }, /ignoreIndex/],
        [{ numClasses: 3, confusion: false }, /confusion/],
        [{ numClasses: 3, losses: { a: new CrossEntropyLoss() } }, /losses/],
      ] as const;
      for (const [options, message] of others) {
        assert.throws(() => evaluator.merge(new ClassificationEvaluator(options)), {
          code: 'ERR_OPTION',
          message,
        });
      }
      assert.throws(() => evaluator.merge({} as never), { name: 'TypeError', code: 'ERR_OPTION' });
    });

    it('tells losses apart by their options, weights among them', () => {
      const of = (weight: number[]) =>
        new ClassificationEvaluator({ numClasses: 2, losses: { a: new CrossEntropyLoss({ weight }) } });
      assert.equal(of([1, 2]).hash, of([1, 2]).hash);
      assert.notEqual(of([1, 2]).hash, of([1, 3]).hash);
    });

    it('with itself doubles', () => {
      const { logits, labels } = batchOf(40, 70, 'float32');
      const twice = new ClassificationEvaluator({ numClasses: 70 })
        .update(logits, labels)
        .update(logits, labels);
      const merged = new ClassificationEvaluator({ numClasses: 70 }).update(logits, labels);
      assert.equal(stateOf(merged.merge(merged)), stateOf(twice));
    });
  });

  describe('fromJSON', () => {
    const { logits, labels } = batchOf(40, 4, 'float32');
    const state = () =>
      JSON.parse(
        stateOf(new ClassificationEvaluator({ numClasses: 4, topK: [1, 2], bins: 3 }).update(logits, labels)),
      ) as Record<string, unknown>;

    it('is the inverse of toJSON, whatever the order of keys', () => {
      const read = ClassificationEvaluator.fromJSON(state());
      assert.deepEqual(JSON.parse(stateOf(read)), state());
      const { config, ...rest } = state();
      const reversed = Object.fromEntries(Object.entries(config as object).reverse());
      assert.deepEqual(
        ClassificationEvaluator.fromJSON({ config: reversed, ...rest }).compute(),
        read.compute(),
      );
    });

    type Path = readonly (string | number)[];
    const edits: readonly (readonly [string, Path, unknown, RegExp])[] = [
      ['another schema', ['schema'], 'other', /'surprisal.evaluator' as schema/],
      ['another version', ['version'], 2, /version 1, got version 2/],
      ['a configuration that was changed', ['config', 'bins'], 4, /hash/],
      ['another hash', ['hash'], 'abc', /hash/],
      ['a negative count', ['ignored'], -1, /a whole number as ignored, got -1/],
      ['a fraction', ['ranks', 1], 0.5, /ranks\[1\]/],
      ['too few ranks', ['ranks'], [1], /an array of length 2 as ranks/],
      ['too few bins', ['bins'], [[0, 0, '0']], /an array of length 4 as bins/],
      ['more right rows than rows', ['bins', 1, 1], 1e6, /bins\[1\]\[1\]/],
      ['a sum that is none', ['brier'], '12g', /hexadecimal as brier/],
      ['a negative sum', ['entropy'], '-1', /hexadecimal as entropy/],
      ['a sum too large', ['entropy'], 'f'.repeat(80), /in range as entropy/],
      ['a class out of range', ['labels', 0, 0], 4, /a whole number below 4 as labels\[0\]\[0\]/],
      ['a class twice', ['labels', 1, 0], 0, /a class after the one before/],
      ['a cell out of range', ['confusion', 0, 0], 16, /below 16 as confusion\[0\]\[0\]/],
      ['a cell of the diagonal', ['confusion', 0, 0], 5, /a cell off the diagonal as confusion/],
      ['no confusion matrix', ['confusion'], null, /an array as confusion/],
    ];
    for (const [what, path, value, message] of edits) {
      it(`refuses ${what}`, () => {
        const changed = state();
        let at: unknown = changed;
        for (const key of path.slice(0, -1)) at = (at as Record<string | number, unknown>)[key];
        (at as Record<string | number, unknown>)[path.at(-1)!] = value;
        assert.throws(() => ClassificationEvaluator.fromJSON(changed), { code: 'ERR_OPTION', message });
      });
    }

    it('refuses what is no object', () => {
      for (const value of [undefined, null, 3, '{}', []]) {
        assert.throws(() => ClassificationEvaluator.fromJSON(value), {
          name: 'TypeError',
          code: 'ERR_OPTION',
        });
      }
    });

    it('asks for the losses that a state has, and refuses others', () => {
      const losses = { a: new CrossEntropyLoss({ labelSmoothing: 0.1 }) };
      const written = JSON.parse(
        stateOf(
          new ClassificationEvaluator({ numClasses: 4, losses }).update(
            logits,
            labels.map((y) => y),
          ),
        ),
      ) as unknown;
      assert.throws(() => ClassificationEvaluator.fromJSON(written), {
        code: 'ERR_OPTION',
        message: /losses .*: a/,
      });
      const others = { a: new CrossEntropyLoss() };
      assert.throws(() => ClassificationEvaluator.fromJSON(written, { losses: others }), {
        code: 'ERR_OPTION',
        message: /another configuration/,
      });
      assert.deepEqual(JSON.parse(stateOf(ClassificationEvaluator.fromJSON(written, { losses }))), written);
    });
  });
});

describe('addTerms', () => {
  it('sums exactly what plain sums lose', () => {
    const terms = [1e30, 1, 2 ** -100, -1e30, 2 ** -112, -1, 3, -(2 ** -112)];
    const words = new Float64Array(11);
    binding.addTerms(Float64Array.from(terms), binding.dtypes.indexOf('float64'), words);
    const sum = words
      .subarray(0, 8)
      .reduce((all, digit, i) => all + BigInt(digit) * (1n << BigInt(32 * i)), 0n);
    assert.equal(sum, 3n * 2n ** 112n + 2n ** 12n);
  });

  it('counts terms that are not finite apart', () => {
    const words = new Float64Array(11);
    const terms = Float32Array.of(Infinity, -Infinity, NaN, Infinity, 0.5);
    binding.addTerms(terms, binding.dtypes.indexOf('float32'), words);
    assert.deepEqual(Array.from(words.subarray(8)), [2, 1, 1]);
    // 0.5 is 2^111 units, bit 15 of the fourth digit.
    assert.deepEqual(Array.from(words.subarray(0, 8)), [0, 0, 0, 2 ** 15, 0, 0, 0, 0]);
  });
});
