/**
 * Every loss class that the package exports, found at run time: a new one is tested by the suites that iterate these
 * without being named anywhere.
 */
import { createRequire } from 'node:module';
import { dirname } from 'node:path';
import { tensor, type FloatDType, type Tensor } from 'surprisal';
import * as exported from 'surprisal/loss';
import { Loss } from 'surprisal/loss';
import type { Binding, RegistryEntry } from '../../binding.js';
import { floatTensor, type FloatArray } from './float_formats.js';
import { Samples } from './random.js';

export type Options = Readonly<Record<string, unknown>>;

export interface LossClass {
  readonly name: string;
  /** Its required options are of a size that grows with C². */
  readonly perClassOptions: boolean;
  /** An instance with default options where `options` says nothing. */
  create(classes: number, options?: Options): Loss;
}

/** A lens of any size: most of the mass on the label, the rest falling off, some of it exactly 0. */
function lens(classes: number): Tensor {
  const values = Float64Array.from({ length: classes * classes }, (_, i) => {
    const distance = (i % classes) - Math.floor(i / classes);
    return distance === 0 ? 0.75 : distance === 1 ? 0.1875 : distance === -2 ? 0.0625 : 0;
  });
  return floatTensor(values, [classes, classes], 'float32');
}

/** Options without a default. */
const required: Readonly<Record<string, (classes: number) => Options>> = {
  LensedCrossEntropy: (classes) => ({ confusionLens: lens(classes) }),
};

type Constructor = new (options: never) => Loss;

const isLossClass = (value: unknown): value is Constructor =>
  typeof value === 'function' && value.prototype instanceof Loss;

export const lossClasses: readonly LossClass[] = Object.entries(exported)
  .filter((entry): entry is [string, Constructor] => isLossClass(entry[1]))
  .map(([name, Class]) => ({
    name,
    perClassOptions: Object.hasOwn(required, name),
    create: (classes, options = {}) => new Class({ ...required[name]?.(classes), ...options } as never),
  }));

export const codeOf = (error: unknown): unknown => (error as { code?: unknown } | null)?.code;

/** What `call` returns, or undefined where it refuses its arguments with one of these codes. */
export function unless<T>(codes: readonly string[], call: () => T): T | undefined {
  try {
    return call();
  } catch (error) {
    if (codes.includes(codeOf(error) as string)) return undefined;
    throw error;
  }
}

/** Class indices; class probabilities; 0 and 1 for each class. */
export const targetForms = ['indices', 'probabilities', 'multi-hot'] as const;
export type TargetForm = (typeof targetForms)[number];

const floatValues = new Map<string, FloatArray>();

/** Fresh memory with the values that `make` gave for this key the first time: rounding to half formats is slow. */
export function remembered(
  key: string,
  shape: readonly number[],
  dtype: FloatDType,
  make: () => Float64Array,
): Tensor {
  const full = `${key} [${shape.join(', ')}] ${dtype}`;
  let values = floatValues.get(full);
  if (values === undefined)
    floatValues.set(full, (values = floatTensor(make(), shape, dtype).data as FloatArray));
  return tensor(values.slice(), { shape, dtype });
}

/** A target of this form for input of shape [rows, classes]. */
export function makeTarget(
  form: TargetForm,
  rows: number,
  classes: number,
  dtype: FloatDType,
  seed = 7,
): Tensor {
  const samples = new Samples(seed);
  if (form === 'indices') return tensor(samples.labels(rows, classes), { shape: [rows] });
  return remembered(`${form} ${seed}`, [rows, classes], dtype, () =>
    form === 'multi-hot' ? samples.multiHot(rows, classes) : samples.probabilities(rows, classes),
  );
}

/** Number of classes that instances are made for where a test does not care. */
export const sampleClasses = 7;

/** The forms of target that a loss takes: refusing one with ERR_SHAPE or ERR_DTYPE is how it says no. */
export function formsOf(Class: LossClass, options: Options = {}): readonly TargetForm[] {
  const loss = Class.create(sampleClasses, options);
  // Any number of splits up to four divides twelve rows.
  const [rows, classes] = [12, sampleClasses];
  const input = floatTensor(new Samples(1).normals(rows * classes), [rows, classes], 'float32');
  const accepts = (form: TargetForm) =>
    unless(['ERR_SHAPE', 'ERR_DTYPE'], () => loss.forward(input, makeTarget(form, rows, classes, 'float32')));
  const forms = targetForms.filter((form) => accepts(form) !== undefined);
  if (forms.length === 0) throw new Error(`${Class.name} takes none of: ${targetForms.join(', ')}`);
  return forms;
}

/** Rows that make up one sample: 1, or the number of splits. */
export function rowsPerSample(Class: LossClass, options: Options = {}): number {
  const loss = Class.create(sampleClasses, options);
  const form = formsOf(Class, options)[0]!;
  for (let rows = 1; rows <= 4; rows++) {
    const input = floatTensor(new Samples(1).normals(rows * sampleClasses), [rows, sampleClasses], 'float32');
    const target = makeTarget(form, rows, sampleClasses, 'float32');
    if (unless(['ERR_SHAPE'], () => loss.forward(input, target)) !== undefined) return rows;
  }
  throw new Error(`${Class.name} refuses 1 to 4 rows`);
}

/** The native side, loaded from the binary that the library itself uses. */
export function nativeBinding(): Binding {
  const require = createRequire(import.meta.url);
  const override = process.env['SURPRISAL_BINDING'];
  if (override) return require(override) as Binding;
  const load = require('node-gyp-build') as (root: string) => Binding;
  return load(dirname(require.resolve('surprisal/package.json')));
}

export const nativeRegistry = (): readonly RegistryEntry[] => nativeBinding().losses;

const kinds = new Map(nativeRegistry().map(({ name, kind }) => [name, kind]));

/** The driver that runs a loss. */
export function kindOf(loss: Loss): string {
  const kind = kinds.get(loss.name);
  if (kind === undefined) throw new Error(`the native registry has no loss '${loss.name}'`);
  return kind;
}

/** True where the loss takes its input as logits of a softmax, so that a common offset of a row changes nothing. */
export const isOverSoftmax = (loss: Loss): boolean => /^softmax|^row_group$/.test(kindOf(loss));
