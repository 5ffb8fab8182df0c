import { fuzzReaders } from './fuzzing.js';

describe('readers and many damaged files', () => {
  fuzzReaders(100_000, 3_600_000);
});
