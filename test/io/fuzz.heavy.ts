import { fuzzReaders } from './fuzzing.js';

// A minute to two on one processor: 4 to 8 s for .npy and safetensors each, 8 to 17 s for Arrow, 22 to 33 s for .npz and Parquet each.
describe('readers and many damaged files', () => {
  fuzzReaders(100_000, 3_600_000);
});
