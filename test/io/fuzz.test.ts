import { fuzzReaders } from './fuzzing.js';

// 3 s in all. `npm run test:heavy` takes 100,000 files for each reader.
describe('readers and damaged files', () => {
  fuzzReaders(2000, 60_000);
});
