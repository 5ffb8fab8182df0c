/**
 * A row is read once: what its exponentials are relative to is taken from its first logits, before its maximum is known,
 * and the maximum's own exponential is held apart. Wherever the maximum stands, and however far above or below the rest,
 * loss and gradient are those of the definition.
 */
import assert from 'node:assert/strict';
import { tensor } from 'surprisal';
import * as F from 'surprisal/functional';
import { CrossEntropyLoss, LabelSmoothingCrossEntropy } from 'surprisal/loss';
import { assertNear } from '../support/close.js';
import { nativeBinding } from '../support/losses.js';
import { Samples } from '../support/random.js';
import { hardCrossEntropy } from '../support/reference.js';

/** Of itself: what a small loss keeps, which is twice what an exponential and the sums may be off by. */
const tolerance = 4e-7;

/** Rows of as many classes as vectors and their stretches end within, at, and after. */
const sizes = [113, 128, 129, 1000, 2100, 5000];

type Change = (row: Float32Array, draw: Samples) => unknown;
const at = (row: Float32Array, draw: Samples): number => Math.floor(draw.uniform() * row.length);
const changes: Readonly<Record<string, Change>> = {
  'is as it was drawn': (row) => row,
  'begins with masked classes': (row) => row.fill(-Infinity, 0, 40),
  'begins 100 below the rest': (row) => row.forEach((x, c) => (row[c] = c < 20 ? x - 100 : x)),
  'has one class 30 above the rest': (row, draw) => (row[at(row, draw)] = 33),
  'has one class 41 above the rest': (row, draw) => (row[at(row, draw)] = 44),
  'has one class 60 above the rest': (row, draw) => (row[at(row, draw)] = 63),
  'has two equal maxima': (row, draw) => (row[at(row, draw)] = row[at(row, draw)] = 20),
  'has its maximum last': (row) => (row[row.length - 1] = 25),
  'has its maximum first': (row) => (row[0] = 25),
  'is of one value': (row) => row.fill(-3),
  'is masked but for one class': (row, draw) => {
    row.fill(-Infinity);
    row[at(row, draw)] = 2;
  },
  'lies around 1e4': (row) => row.forEach((x, c) => (row[c] = 1e4 + x)),
  'lies around -3e5': (row) => row.forEach((x, c) => (row[c] = -3e5 + 4 * x)),
};

describe('maxima of rows', () => {
  const binding = nativeBinding();
  afterEach(() => binding.setInstructionSet(binding.instructionSets[0]!));

  const near = (got: number, wanted: number, what: string): void =>
    // What is below the smallest normal number may be 0, and a sum of such.
    assertNear(got, wanted, tolerance * Math.abs(wanted) + 1e-33, () => what);

  for (const [name, change] of Object.entries(changes)) {
    it(`a row that ${name}`, () => {
      for (const instructionSet of binding.instructionSets) {
        binding.setInstructionSet(instructionSet);
        for (const classes of sizes) {
          const draw = new Samples(classes);
          const row = Float32Array.from(draw.normals(classes, 1));
          change(row, draw);
          const top = row.indexOf(row.reduce((m, x) => Math.max(m, x), -Infinity));
          const other = row.findIndex((x, c) => c !== top && x > -Infinity);
          const input = tensor(row, { shape: [1, classes] });
          const softmax = F.softmax(input).data;
          const distances = row.reduce((sum, x) => sum + (row[top]! - x), 0);
          for (const label of other < 0 ? [top] : [top, other]) {
            const what = `${instructionSet}, ${classes} classes, label ${label}`;
            const target = Int32Array.of(label);
            const wanted = hardCrossEntropy(row, label);
            const { value, grad } = new CrossEntropyLoss().valueAndGrad(input, target);
            near(value.item(), wanted.loss, what);
            assert.equal(new CrossEntropyLoss().forward(input, target).item(), value.item(), what);
            wanted.grad.forEach((g, c) => near(grad.data[c] as number, g, `${what}, gradient of ${c}`));
            wanted.grad.forEach(
              (g, c) => c === label || near(softmax[c] as number, g, `${what}, softmax of ${c}`),
            );
            if (!Number.isFinite(distances)) continue;
            const smoothed = new LabelSmoothingCrossEntropy({ smoothing: 0.1 }).forward(input, target).item();
            const logSum = label === top ? wanted.loss : wanted.loss - (row[top]! - row[label]!);
            near(smoothed, 0.9 * wanted.loss + 0.1 * (logSum + distances / classes), `${what}, smoothed`);
          }
        }
      }
    });
  }
});
