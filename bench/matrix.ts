/** The matrix: each loss × pass × dtype × threads × instruction set over one shape, each beside its floor. */

import { getNumThreads, setNumThreads, tensor, type FloatDType } from 'surprisal';
import { CrossEntropyLoss } from 'surprisal/loss';
import { binding } from './binding.js';
import { cases, type Case, type PreparedPass } from './cases.js';
import { Batch, valuesOf } from './data.js';
import { fastestFloor, type FastestFloor, type Traffic } from './floor.js';
import { interleave, timed, type Operation, type RoundLimits, type Samples } from './measure.js';
import type { Measurement, Noise } from './results.js';
import { gigabytesPerSecond, median, ratios, summarise } from './statistics.js';

export interface Shape {
  readonly name: string;
  readonly rows: number;
  readonly classes: number;
  /** Every dtype and instruction set, or float32 on the best set alone. */
  readonly allDTypes: boolean;
  readonly allSets: boolean;
}

const shape = (
  rows: number,
  classes: number,
  { allDTypes = true, allSets = false }: Partial<Pick<Shape, 'allDTypes' | 'allSets'>> = {},
): Shape => ({ name: `${rows}x${classes}`, rows, classes, allDTypes, allSets });

/** Small, in the caches, out of them, rows past L2, and short rows. Targets are set for those that run on all sets. */
export const shapes: readonly Shape[] = [
  shape(32, 10),
  shape(1024, 1000),
  shape(4096, 1000, { allSets: true }),
  shape(512, 32000, { allSets: true }),
  shape(64, 128256),
  shape(16384, 100, { allSets: true }),
  shape(65536, 10, { allDTypes: false, allSets: true }),
  shape(32768, 32, { allDTypes: false, allSets: true }),
];

export interface Selection {
  readonly dtypes: readonly FloatDType[];
  readonly threads: readonly number[];
  /** Best first. */
  readonly instructionSets: readonly string[];
  /** True for what is to be measured, told by a line of words. */
  readonly matches: (line: string) => boolean;
}

/** A pass on so many threads, with the kernels of one instruction set. */
interface Subject {
  readonly id: string;
  readonly loss: string;
  readonly pass: PreparedPass;
  readonly dtype: FloatDType;
  readonly threads: number;
  readonly instructionSet: string;
  readonly floor: FastestFloor;
  /** The same by memcpy, where the floor copies by other means. */
  readonly plain?: FastestFloor;
}

const elementsOf = ({ pass: { dims } }: Subject): number => dims.reduce((product, size) => product * size, 1);

const configure = ({ threads, instructionSet }: Pick<Subject, 'threads' | 'instructionSet'>) => {
  setNumThreads(threads);
  binding.setInstructionSet(instructionSet);
};

const operationOf = (subject: Subject, id = subject.id): Operation =>
  timed(
    id,
    () => subject.pass.run(),
    () => configure(subject),
  );

const again = (id: string) => `${id}, again`;
const floorId = ({ threads, dtype, floor }: Subject) => `${floor.kind} ${floor.bytes} ${dtype} ${threads}`;
const plainId = (subject: Subject) => `${floorId(subject)} by memcpy`;

/** The arrays of one shape, and the fastest floors over them, which all losses share. */
export class Bench {
  readonly shape: Shape;
  readonly #selection: Selection;
  readonly #batches = new Map<FloatDType, Batch>();
  readonly #floors = new Map<string, FastestFloor>();

  constructor(benchShape: Shape, selection: Selection) {
    this.shape = benchShape;
    this.#selection = selection;
  }

  /** The cases that the selection leaves something of. */
  get cases(): readonly Case[] {
    return cases.filter((candidate) => this.#plan(candidate).length > 0);
  }

  /** What a case is to be measured with: dtype, threads, instruction set, and the passes among them. */
  #plan({ name, passes }: Case) {
    const { dtypes, threads, instructionSets, matches } = this.#selection;
    const { name: shapeName, allDTypes, allSets } = this.shape;
    const sets = allSets ? instructionSets : instructionSets.slice(0, 1);
    return threads.flatMap((count) =>
      sets.flatMap((instructionSet, i) =>
        dtypes
          .filter((dtype) => dtype === 'float32' || (i === 0 && allDTypes))
          .map((dtype) => ({
            dtype,
            threads: count,
            instructionSet,
            passes: passes.filter((pass) =>
              matches(`${name} ${pass} ${dtype} ${shapeName} ${count} threads ${instructionSet}`),
            ),
          }))
          .filter((entry) => entry.passes.length > 0),
      ),
    );
  }

  #batch(dtype: FloatDType): Batch {
    let batch = this.#batches.get(dtype);
    if (batch === undefined) {
      this.#batches.set(dtype, (batch = new Batch(this.shape.rows, this.shape.classes, dtype)));
    }
    return batch;
  }

  #floor(traffic: Traffic, dtype: FloatDType, threads: number, plain = false): FastestFloor {
    // A gather may be over arrays of a case's own, which no other case must outlive.
    if (traffic.gathers) return fastestFloor(traffic, threads, plain);
    const sizes = [...(traffic.reads ?? []), ...(traffic.copies ?? []).map(({ to }) => to)].map(
      ({ length }) => length,
    );
    const key = `${traffic.kind} ${sizes.join()} ${dtype} ${threads} ${plain}`;
    let floor = this.#floors.get(key);
    if (floor === undefined) this.#floors.set(key, (floor = fastestFloor(traffic, threads, plain)));
    return floor;
  }

  /** Measures one case in all its forms, interleaved. */
  async measure(
    subjectCase: Case,
    limits: RoundLimits,
    random: () => number,
  ): Promise<{ measurements: Measurement[]; noise: Noise[]; leftOut: string[] }> {
    const { name } = subjectCase;
    const leftOut = new Set<string>();
    const prepared = new Map<FloatDType, readonly PreparedPass[]>();
    const subjects = this.#plan(subjectCase).flatMap(({ dtype, threads, instructionSet, passes }) => {
      const refusal = subjectCase.refuses?.(this.shape.rows, this.shape.classes, dtype);
      if (!prepared.has(dtype) && refusal !== undefined) {
        leftOut.add(`${name}, ${dtype}, ${this.shape.name}: ${refusal}`);
        return [];
      }
      const all = prepared.get(dtype) ?? subjectCase.prepare(this.#batch(dtype));
      prepared.set(dtype, all);
      return all
        .filter(({ pass }) => passes.includes(pass))
        .map((pass) => {
          const floor = this.#floor(pass.floor, dtype, threads);
          return {
            id: `${name} ${pass.pass} ${dtype} ${threads} ${instructionSet}`,
            loss: name,
            pass,
            dtype,
            threads,
            instructionSet,
            floor,
            ...(floor.copiesOtherwise ? { plain: this.#floor(pass.floor, dtype, threads, true) } : {}),
          };
        });
    });
    if (subjects.length === 0) return { measurements: [], noise: [], leftOut: [...leftOut] };
    const [best] = this.#selection.instructionSets;
    const twice = name === 'CrossEntropyLoss' ? subjects.filter((s) => isReference(s, best!)) : [];
    const samples = await sampleBesideFloors(subjects, twice, limits, random);
    const measurements = subjects.map((subject) => {
      const reference = subjects.find(
        (other) =>
          other.dtype === 'float32' &&
          other.pass.pass === subject.pass.pass &&
          other.threads === subject.threads &&
          other.instructionSet === subject.instructionSet,
      );
      return {
        ...describe(subject, this.shape.name, samples),
        ...(reference && reference !== subject
          ? { toFloat32: summarise(ratios(samples.get(subject.id)!, samples.get(reference.id)!)) }
          : {}),
      };
    });
    const noise = twice.map((subject) => ({
      of: `${subject.id} ${this.shape.name}`,
      rounds: samples.get(subject.id)!.length,
      ratio: summarise(ratios(samples.get(again(subject.id))!, samples.get(subject.id)!)),
    }));
    return { measurements, noise, leftOut: [...leftOut] };
  }
}

const isReference = ({ dtype, instructionSet }: Subject, best: string): boolean =>
  dtype === 'float32' && instructionSet === best;

/** Rounds of all subjects, of their floors, and of some a second time. Leaves threads and kernels as they were. */
async function sampleBesideFloors(
  subjects: readonly Subject[],
  twice: readonly Subject[],
  limits: RoundLimits,
  random: () => number,
): Promise<Samples> {
  const floors = new Map(subjects.map((subject) => [floorId(subject), subject.floor.run]));
  for (const subject of subjects) if (subject.plain) floors.set(plainId(subject), subject.plain.run);
  const before = { threads: getNumThreads(), instructionSet: binding.getInstructionSet() };
  try {
    return await interleave(
      [
        ...subjects.map((subject) => operationOf(subject)),
        ...twice.map((subject) => operationOf(subject, again(subject.id))),
        ...[...floors].map(([id, run]) => timed(id, run)),
      ],
      subjects.map((subject) => [subject.id, floorId(subject)]),
      limits,
      random,
    );
  } finally {
    configure(before);
  }
}

function describe(subject: Subject, shapeName: string, samples: Samples): Measurement {
  const { loss, pass, dtype, threads, instructionSet, floor } = subject;
  const own = samples.get(subject.id)!;
  const ofFloor = samples.get(floorId(subject))!;
  return {
    loss,
    pass: pass.pass,
    dtype,
    shape: shapeName,
    dims: pass.dims,
    threads,
    instructionSet,
    rounds: own.length,
    ns: summarise(own),
    nsPerElement: median(own) / elementsOf(subject),
    gigabytesPerSecond: gigabytesPerSecond(floor.bytes, median(own)),
    floor: {
      kind: floor.kind,
      method: floor.method,
      bytes: floor.bytes,
      ns: summarise(ofFloor),
      gigabytesPerSecond: gigabytesPerSecond(floor.bytes, median(ofFloor)),
    },
    ratio: summarise(ratios(own, ofFloor)),
    ...(subject.plain ? { toMemcpy: summarise(ratios(own, samples.get(plainId(subject))!)) } : {}),
  };
}

/** Images [N, C, H, W], whose classes are H·W elements apart, and as many rows side by side. */
export const stridedShapes: readonly (readonly [number, number, number, number])[] = [
  [16, 1000, 16, 16],
  [4, 21, 512, 512],
];

const stridedLoss = 'CrossEntropyLoss, N×C×H×W';

/** Cross entropy with the classes in dimension 1, beside the same number of rows laid out one after the other. */
export async function measureStrided(
  dims: readonly [number, number, number, number],
  selection: Selection,
  limits: RoundLimits,
  random: () => number,
): Promise<Measurement[]> {
  const [images, classes, height, width] = dims;
  const name = dims.join('x');
  const loss = new CrossEntropyLoss();
  const batch = new Batch(images * height * width, classes, 'float32');
  const { input, grad, labels } = batch;
  const [from, to] = [valuesOf(input), valuesOf(grad)];
  const layouts = [
    { lossName: 'CrossEntropyLoss', shape: batch.shape, labelShape: [batch.rows] },
    { lossName: stridedLoss, shape: dims, labelShape: [images, height, width] },
  ].map(({ lossName, shape: seenAs, labelShape }) => {
    const x = tensor(from, { shape: seenAs });
    const y = tensor(labels, { shape: labelShape });
    const options = { out: { grad: tensor(to, { shape: seenAs }) } };
    const passes: readonly PreparedPass[] = [
      {
        pass: 'forward',
        dims: seenAs,
        floor: { kind: 'read', reads: [from] },
        run: () => loss.forward(x, y),
      },
      {
        pass: 'loss and gradient',
        dims: seenAs,
        floor: { kind: 'copy', copies: [{ from, to }] },
        run: () => loss.valueAndGrad(x, y, options),
      },
    ];
    return { lossName, passes };
  });
  const [instructionSet] = selection.instructionSets;
  const subjects = selection.threads.flatMap((threads) =>
    layouts[0]!.passes.flatMap(({ pass, floor: traffic }, i) => {
      const floor = fastestFloor(traffic, threads);
      return layouts.map(({ lossName, passes }) => ({
        id: `${lossName} ${pass} ${threads}`,
        loss: lossName,
        pass: passes[i]!,
        dtype: 'float32' as const,
        threads,
        instructionSet: instructionSet!,
        floor,
      }));
    }),
  );
  const samples = await sampleBesideFloors(subjects, [], limits, random);
  return subjects.map((subject, i) => ({
    ...describe(subject, name, samples),
    ...(subject.loss === stridedLoss
      ? { toContiguous: summarise(ratios(samples.get(subject.id)!, samples.get(subjects[i - 1]!.id)!)) }
      : {}),
  }));
}

export const matchesStrided = (selection: Selection): boolean => selection.matches(`${stridedLoss} strided`);
