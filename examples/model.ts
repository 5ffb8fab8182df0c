import type { Random } from 'surprisal/data';

/** y = x·Wᵀ + b. */
interface Layer {
  readonly inputs: number;
  readonly outputs: number;
  /** [outputs, inputs], a part of the model's parameters. */
  readonly weight: Float32Array;
  /** [outputs], a part of the model's parameters. */
  readonly bias: Float32Array;
  readonly weightGrad: Float32Array;
  readonly biasGrad: Float32Array;
}

/** A perceptron with ReLU between its layers. It ends in logits: the loss is not its business. */
export class Mlp {
  readonly parameters: Float32Array;
  /** dL/d(parameters) of the last backward. */
  readonly gradients: Float32Array;
  readonly #layers: readonly Layer[];
  /** Each layer's input of the last forward. */
  #inputs: Float32Array[] = [];

  /** @param sizes Features, hidden units, ..., classes. */
  constructor(sizes: readonly number[], random: Random) {
    const shapes = sizes.slice(1).map((outputs, i) => ({ inputs: sizes[i]!, outputs }));
    const count = shapes.reduce((sum, { inputs, outputs }) => sum + (inputs + 1) * outputs, 0);
    this.parameters = new Float32Array(count);
    this.gradients = new Float32Array(count);
    let offset = 0;
    const views = (length: number): [Float32Array, Float32Array] => {
      const parts = [this.parameters, this.gradients].map((all) => all.subarray(offset, offset + length));
      offset += length;
      return parts as [Float32Array, Float32Array];
    };
    this.#layers = shapes.map((shape) => {
      const [weight, weightGrad] = views(shape.outputs * shape.inputs);
      const [bias, biasGrad] = views(shape.outputs);
      return { ...shape, weight, weightGrad, bias, biasGrad };
    });
    // He et al. 2015, arXiv:1502.01852: the variance 2 / inputs carries a signal's scale through ReLU.
    for (const { weight, inputs } of this.#layers) {
      for (let i = 0; i < weight.length; i++) weight[i] = Math.sqrt(2 / inputs) * random.normal();
    }
  }

  /** Logits [N, C] of features [N, F]. */
  forward(features: Float32Array): Float32Array {
    this.#inputs = [];
    let x = features;
    for (const [depth, layer] of this.#layers.entries()) {
      this.#inputs.push(x);
      x = linear(layer, x);
      if (depth < this.#layers.length - 1) x = x.map((value) => Math.max(value, 0));
    }
    return x;
  }

  /** From dL/dlogits of the last forward to dL/d(parameters), in `gradients`. */
  backward(gradLogits: Float32Array): void {
    this.gradients.fill(0);
    let grad = gradLogits;
    for (let depth = this.#layers.length - 1; depth >= 0; depth--) {
      const input = this.#inputs[depth]!;
      grad = linearBackward(this.#layers[depth]!, input, grad);
      // This layer's input is the ReLU of what came before: no slope where it is 0.
      if (depth > 0) grad = grad.map((value, i) => (input[i]! > 0 ? value : 0));
    }
  }
}

function linear({ inputs, outputs, weight, bias }: Layer, x: Float32Array): Float32Array {
  const rows = x.length / inputs;
  const y = new Float32Array(rows * outputs);
  for (let row = 0; row < rows; row++) {
    for (let out = 0; out < outputs; out++) {
      let sum = bias[out]!;
      for (let i = 0; i < inputs; i++) sum += weight[out * inputs + i]! * x[row * inputs + i]!;
      y[row * outputs + out] = sum;
    }
  }
  return y;
}

/** Adds to the layer's gradients and returns dL/dx. */
function linearBackward(layer: Layer, x: Float32Array, gradY: Float32Array): Float32Array {
  const { inputs, outputs, weight, weightGrad, biasGrad } = layer;
  const rows = x.length / inputs;
  const gradX = new Float32Array(x.length);
  for (let row = 0; row < rows; row++) {
    for (let out = 0; out < outputs; out++) {
      const g = gradY[row * outputs + out]!;
      biasGrad[out]! += g;
      for (let i = 0; i < inputs; i++) {
        weightGrad[out * inputs + i]! += g * x[row * inputs + i]!;
        gradX[row * inputs + i]! += g * weight[out * inputs + i]!;
      }
    }
  }
  return gradX;
}

/** Kingma and Ba 2015, arXiv:1412.6980. */
export class Adam {
  readonly #learningRate: number;
  readonly #mean: Float32Array;
  readonly #square: Float32Array;
  #steps = 0;

  constructor(size: number, learningRate: number) {
    this.#learningRate = learningRate;
    this.#mean = new Float32Array(size);
    this.#square = new Float32Array(size);
  }

  step(parameters: Float32Array, gradients: Float32Array): void {
    const [beta1, beta2, eps] = [0.9, 0.999, 1e-8];
    this.#steps++;
    // Both averages start at 0, which these undo.
    const meanScale = 1 / (1 - beta1 ** this.#steps);
    const squareScale = 1 / (1 - beta2 ** this.#steps);
    for (let i = 0; i < parameters.length; i++) {
      const g = gradients[i]!;
      const mean = (this.#mean[i] = beta1 * this.#mean[i]! + (1 - beta1) * g);
      const square = (this.#square[i] = beta2 * this.#square[i]! + (1 - beta2) * g * g);
      parameters[i]! -= (this.#learningRate * mean * meanScale) / (Math.sqrt(square * squareScale) + eps);
    }
  }
}
