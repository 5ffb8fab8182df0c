import assert from 'node:assert/strict';
import { Random } from 'surprisal/data';
import { Adam, Mlp } from '../../examples/model.js';

const sizes = [4, 5, 3];
const rows = 6;

describe('examples/model', () => {
  const random = new Random(1);
  const features = Float32Array.from({ length: rows * 4 }, () => random.normal());
  const direction = Float32Array.from({ length: rows * 3 }, () => random.normal());
  /** A scalar whose gradient at the logits is `direction`. */
  const scalar = (model: Mlp): number =>
    model.forward(features).reduce((sum, logit, i) => sum + logit * direction[i]!, 0);

  it('carries a gradient of the logits to every parameter', () => {
    const model = new Mlp(sizes, new Random(3));
    const { parameters } = model;
    assert.equal(parameters.length, 5 * (4 + 1) + 3 * (5 + 1));
    model.forward(features);
    model.backward(direction);
    const gradients = model.gradients.slice();
    assert.ok(gradients.some((g) => g !== 0));

    // Linear in each single parameter wherever no unit switches, so a difference has no error but rounding: some ten
    // logits of size 5 in float32, 10·5·2^-24, over 2·step. Seed 3 leaves no unit within a step of 0.
    const step = 2 ** -10;
    const tolerance = (10 * 5 * 2 ** -24) / (2 * step);
    for (const [i, value] of parameters.slice().entries()) {
      parameters[i] = value + step;
      const above = scalar(model);
      parameters[i] = value - step;
      const below = scalar(model);
      parameters[i] = value;
      const difference = (above - below) / (2 * step);
      assert.ok(
        Math.abs(difference - gradients[i]!) <= tolerance,
        `${i}: ${gradients[i]}, expected ${difference}`,
      );
    }
  });

  it('starts from its seed', () => {
    assert.deepEqual(new Mlp(sizes, new Random(7)).parameters, new Mlp(sizes, new Random(7)).parameters);
    assert.notDeepEqual(new Mlp(sizes, new Random(7)).parameters, new Mlp(sizes, new Random(8)).parameters);
  });

  it('steps as Adam does', () => {
    const parameters = new Float32Array([1, 1, 1]);
    const optimizer = new Adam(3, 0.1);
    // With corrected averages a constant gradient g moves by rate·g/|g| at every step, whatever its size.
    for (let step = 1; step <= 3; step++) {
      optimizer.step(parameters, new Float32Array([5, -0.01, 0]));
      const expected = [1 - 0.1 * step, 1 + 0.1 * step, 1];
      // eps is 1e-6 of the smaller gradient; the rest is float32.
      for (const [i, x] of expected.entries())
        assert.ok(Math.abs(parameters[i]! - x) <= 1e-6, parameters.join());
    }
  });
});
