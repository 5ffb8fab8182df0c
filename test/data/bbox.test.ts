import assert from 'node:assert/strict';
import { Random, cutmixBboxAndLam, randBbox, randBboxMinmax } from 'surprisal/data';
import { Script } from './script.js';

const integers = (...values: number[]): Script => new Script({ integers: values });

describe('randBbox', () => {
  // 1 − λ = 1/4, so the box's sides are half of the image's: 4 of 8 rows, 6 of 12 columns.
  const shape = [3, 8, 12];

  it('covers 1 − λ of the image around its centre', () => {
    const random = integers(4, 5);
    assert.deepEqual(randBbox(shape, 0.75, { random }), { yl: 2, yh: 6, xl: 2, xh: 8 });
    assert.deepEqual(random.bounds, [8, 12]);
  });

  it('is clipped at the border', () => {
    assert.deepEqual(randBbox(shape, 0.75, { random: integers(0, 11) }), { yl: 0, yh: 2, xl: 8, xh: 12 });
  });

  it('rounds odd sides down to even ones, as timm does', () => {
    // trunc(9·√0.5) = 6 and trunc(11·√0.5) = 7, which becomes 3 on either side.
    assert.deepEqual(randBbox([9, 11], 0.5, { random: integers(4, 5) }), { yl: 1, yh: 7, xl: 2, xh: 8 });
  });

  it('keeps its centre a margin away from the border', () => {
    const random = integers(0, 9);
    assert.deepEqual(randBbox(shape, 0.75, { margin: 0.25, random }), { yl: 0, yh: 3, xl: 7, xh: 12 });
    assert.deepEqual(random.bounds, [6, 10]);
  });

  it('is empty for λ = 1, and reaches over the whole image for λ = 0', () => {
    assert.deepEqual(randBbox(shape, 1, { random: integers(3, 3) }), { yl: 3, yh: 3, xl: 3, xh: 3 });
    assert.deepEqual(randBbox(shape, 0, { random: integers(4, 6) }), { yl: 0, yh: 8, xl: 0, xh: 12 });
  });

  it('draws as many as asked for', () => {
    const random = integers(4, 5, 0, 11);
    const boxes = randBbox(shape, 0.75, { count: 2, random });
    assert.deepEqual(boxes, [
      { yl: 2, yh: 6, xl: 2, xh: 8 },
      { yl: 0, yh: 2, xl: 8, xh: 12 },
    ]);
    assert.deepEqual(randBbox(shape, 0.75, { count: 0 }), []);
    assert.deepEqual(
      randBbox(shape, 0.5, { count: 9, random: new Random(1) }),
      randBbox(shape, 0.5, { count: 9, random: new Random(1) }),
    );
  });

  it('is inside the image without a generator too', () => {
    for (const { yl, yh, xl, xh } of randBbox([7, 5], 0.3, { count: 500 })) {
      assert(0 <= yl && yl <= yh && yh <= 7 && 0 <= xl && xl <= xh && xh <= 5);
    }
  });

  it('refuses what makes no box', () => {
    for (const bad of [[8], [], [3, 0, 4], [3, -8, 4], [3, 8, 4.5]]) {
      assert.throws(() => randBbox(bad, 0.5), { code: 'ERR_SHAPE', name: 'RangeError', message: /imgShape/ });
    }
    assert.throws(() => randBbox(8 as never, 0.5), { code: 'ERR_SHAPE', message: /got 8/ });
    for (const lam of [-0.1, 1.1, NaN])
      assert.throws(() => randBbox(shape, lam), { code: 'ERR_OPTION', message: /lam/ });
    assert.throws(() => randBbox(shape, 0.75, { margin: -1 }), { code: 'ERR_OPTION', message: /margin/ });
    assert.throws(() => randBbox(shape, 0.75, { margin: 1 }), {
      code: 'ERR_OPTION',
      message: /centre room.*less than 0\.5/,
    });
    assert.throws(() => randBbox(shape, 0.75, { count: 1.5 }), { code: 'ERR_OPTION', message: /count/ });
    assert.throws(() => randBbox(shape, 0.75, { random: Math.random as never }), {
      code: 'ERR_OPTION',
      message: /new Random/,
    });
    assert.throws(() => randBbox(shape, 0.75, { size: 3 } as never), {
      code: 'ERR_OPTION',
      message: /'size'.*margin, count/,
    });
  });
});

describe('randBboxMinmax', () => {
  it('draws sides between the shares, then a place inside the image', () => {
    const random = integers(1, 2, 3, 4);
    // Sides from trunc(0.25·20) = 5 to 14 and from 7 to 21; the box is 6×9, at 3 of [0, 14) and 4 of [0, 21).
    assert.deepEqual(randBboxMinmax([20, 30], [0.25, 0.75], { random }), { yl: 3, yh: 9, xl: 4, xh: 13 });
    assert.deepEqual(random.bounds, [10, 15, 14, 21]);
  });

  it('stays inside the image', () => {
    const boxes = randBboxMinmax([3, 17, 9], [0, 1], { count: 1000, random: new Random(3) });
    for (const { yl, yh, xl, xh } of boxes) {
      assert(0 <= yl && yl <= yh && yh <= 17 && 0 <= xl && xl <= xh && xh <= 9);
    }
    assert.deepEqual(new Set(boxes.map(({ yl, yh }) => yh - yl)).size, 17);
  });

  it('refuses shares that hold no size', () => {
    assert.throws(() => randBboxMinmax([2, 2], [0.1, 0.4]), {
      code: 'ERR_SHAPE',
      message: /2x2 pixels is too small/,
    });
    for (const minmax of [[0.5, 0.5], [0.6, 0.4], [-0.1, 0.5], [0.2, 1.1], [0.2], [NaN, 1]]) {
      assert.throws(() => randBboxMinmax([9, 9], minmax as never), {
        code: 'ERR_OPTION',
        name: 'RangeError',
        message: /minmax/,
      });
    }
    for (const minmax of [0.5, null, ['0.2', '0.8']]) {
      assert.throws(() => randBboxMinmax([9, 9], minmax as never), { code: 'ERR_OPTION', name: 'TypeError' });
    }
  });
});

describe('cutmixBboxAndLam', () => {
  const shape = [2, 3, 8, 12];

  it('corrects λ to the share that the clipped box leaves', () => {
    const random = integers(0, 11);
    const bbox = { yl: 0, yh: 2, xl: 8, xh: 12 };
    assert.deepEqual(cutmixBboxAndLam(shape, 0.75, { random }), { bbox, lam: 1 - (2 * 4) / (8 * 12) });
  });

  it('keeps λ without correctLam', () => {
    const random = integers(0, 11);
    assert.equal(cutmixBboxAndLam(shape, 0.75, { correctLam: false, random }).lam, 0.75);
  });

  it('takes λ from a ratioMinmax box, correctLam or not', () => {
    for (const correctLam of [true, false]) {
      const random = integers(0, 0, 0, 0);
      assert.deepEqual(cutmixBboxAndLam(shape, 0.9, { ratioMinmax: [0.25, 0.75], correctLam, random }), {
        bbox: { yl: 0, yh: 2, xl: 0, xh: 3 },
        lam: 1 - 6 / 96,
      });
    }
  });

  it('draws as many as asked for', () => {
    const pairs = cutmixBboxAndLam(shape, 0.4, { count: 200, random: new Random(1) });
    assert.equal(pairs.length, 200);
    for (const { bbox, lam } of pairs) {
      const area = (bbox.yh - bbox.yl) * (bbox.xh - bbox.xl);
      assert.equal(lam, 1 - area / 96);
      // Clipping only makes the box smaller; unclipped it is at most 1 − λ.
      assert(lam >= 0.4 && lam <= 1);
    }
  });

  it('refuses bad options', () => {
    assert.throws(() => cutmixBboxAndLam(shape, 2), { code: 'ERR_OPTION', message: /lam/ });
    assert.throws(() => cutmixBboxAndLam([3], 0.5), { code: 'ERR_SHAPE' });
    assert.throws(() => cutmixBboxAndLam(shape, 0.5, { ratioMinmax: [1, 0] }), {
      code: 'ERR_OPTION',
      message: /ratioMinmax/,
    });
    assert.throws(() => cutmixBboxAndLam([2, 2], 0.5, { ratioMinmax: [0.1, 0.2] }), { code: 'ERR_SHAPE' });
    assert.throws(() => cutmixBboxAndLam(shape, 0.5, { correctLam: 1 as never }), {
      code: 'ERR_OPTION',
      message: /correctLam/,
    });
    assert.throws(() => cutmixBboxAndLam(shape, 0.5, { margin: 0 } as never), {
      code: 'ERR_OPTION',
      message: /'margin'/,
    });
  });
});
