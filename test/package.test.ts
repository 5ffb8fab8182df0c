import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import * as data from 'surprisal/data';
import * as functional from 'surprisal/functional';
import * as io from 'surprisal/io';
import * as loss from 'surprisal/loss';
import * as metrics from 'surprisal/metrics';
import * as surprisal from 'surprisal';

const require = createRequire(import.meta.url);

interface Manifest {
  readonly name: string;
  readonly version: string;
  readonly type: string;
  readonly types: string;
  readonly engines: { readonly node: string };
  readonly binary: { readonly napi_versions: readonly number[] };
  readonly dependencies: Readonly<Record<string, string>>;
  readonly exports: Readonly<Record<string, string>>;
  readonly bin: { readonly surprisal: string };
}

const manifest = require('surprisal/package.json') as Manifest;

/** The public values of each entry point: what has a name here is a promise, and nothing else is there. */
const CLASSES = [
  'AsymmetricLossMultiLabel',
  'AsymmetricLossSingleLabel',
  'BinaryCrossEntropy',
  'CrossEntropyLoss',
  'JsdCrossEntropy',
  'KLDivLoss',
  'LabelSmoothingCrossEntropy',
  'LensedCrossEntropy',
  'NLLLoss',
  'SoftTargetCrossEntropy',
];

const entryPoints: Readonly<Record<string, { readonly module: object; readonly names: readonly string[] }>> =
  {
    surprisal: {
      module: surprisal,
      names: ['Tensor', 'devices', 'diagnose', 'getNumThreads', 'setNumThreads', 'tensor'],
    },
    'surprisal/loss': { module: loss, names: [...CLASSES, 'Loss'] },
    'surprisal/functional': {
      module: functional,
      names: [
        'crossEntropy',
        'gather',
        'klDiv',
        'lensedCrossEntropy',
        'logSoftmax',
        'logSoftmaxBackward',
        'nllLoss',
        'oneHot',
        'softmax',
        'softmaxBackward',
      ],
    },
    'surprisal/io': {
      module: io,
      names: ['NpyWriter', 'RowReader', 'listArrays', 'openRows', 'writeNpy', 'writeSafetensors'],
    },
    'surprisal/data': {
      module: data,
      names: [
        'FastCollateMixup',
        'Mixup',
        'cutmixBboxAndLam',
        'mixupTarget',
        'oneHot',
        'randBbox',
        'randBboxMinmax',
      ],
    },
    'surprisal/metrics': { module: metrics, names: ['ClassificationEvaluator'] },
  };

describe('the package', () => {
  for (const [name, { module, names }] of Object.entries(entryPoints)) {
    it(`${name} exports every name of its contract, as a function or class`, () => {
      for (const exported of names) {
        assert.equal(
          typeof (module as Record<string, unknown>)[exported],
          'function',
          `${name}: ${exported}`,
        );
      }
    });

    it(`require('${name}') gives the same module`, () => {
      const required = require(name) as Record<string, unknown>;
      for (const exported of names) {
        assert.equal(required[exported], (module as Record<string, unknown>)[exported], exported);
      }
    });

    it(`${name} has no default export`, () => {
      assert.ok(!('default' in module));
    });
  }

  it('surprisal/loss exports these classes and no others', () => {
    assert.deepEqual(Object.keys(loss).sort(), [...CLASSES, 'Loss'].sort());
    for (const name of CLASSES) {
      const Class = (loss as unknown as Record<string, { prototype: unknown; name: string }>)[name]!;
      assert.ok(Class.prototype instanceof loss.Loss, name);
      assert.equal(Class.name, name);
    }
  });

  it('surprisal/functional exports these functions and no others', () => {
    assert.deepEqual(Object.keys(functional).sort(), [...entryPoints['surprisal/functional']!.names].sort());
  });

  it('surprisal/package.json is the manifest', () => {
    assert.equal(manifest.name, 'surprisal');
    assert.equal(manifest.type, 'module');
    assert.match(manifest.version, /^\d+\.\d+\.\d+/);
    assert.equal(manifest.engines.node, '>=20.19.0');
    assert.deepEqual(manifest.binary.napi_versions, [9]);
  });

  it('needs nothing at run time but node-gyp-build', () => {
    assert.deepEqual(Object.keys(manifest.dependencies), ['node-gyp-build']);
  });

  it('has a file and types for every entry point', () => {
    for (const [subpath, target] of Object.entries(manifest.exports)) {
      assert.ok(existsSync(target), `${subpath}: ${target}`);
      if (!target.endsWith('.js')) continue;
      const types = target.replace(/\.js$/, '.d.ts');
      assert.ok(existsSync(types), `${subpath}: ${types}`);
      // Types must not lead out of what is published.
      assert.doesNotMatch(readFileSync(types, 'utf8'), /from '[^.]/, types);
    }
    assert.equal(manifest.types, './dist/index.d.ts');
  });

  it('has a command of its name, which a shell can run', () => {
    assert.deepEqual(manifest.bin, { surprisal: './dist/cli/main.js' });
    assert.ok(readFileSync(manifest.bin.surprisal, 'utf8').startsWith('#!/usr/bin/env node\n'));
  });

  it('keeps everything else to itself', () => {
    for (const path of ['surprisal/dist/index.js', 'surprisal/dist/binding.js', 'surprisal/lib/index.ts']) {
      assert.throws(() => require.resolve(path), { code: 'ERR_PACKAGE_PATH_NOT_EXPORTED' });
    }
  });
});
