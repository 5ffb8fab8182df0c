export {
  cutmixBboxAndLam,
  randBbox,
  randBboxMinmax,
  type Bbox,
  type BboxAndLam,
  type CutmixBboxAndLamOptions,
  type RandBboxMinmaxOptions,
  type RandBboxOptions,
} from './bbox.js';
export {
  FastCollateMixup,
  Mixup,
  mixupTarget,
  oneHot,
  type MixedBatch,
  type MixupMode,
  type MixupOptions,
  type MixupOutOptions,
  type MixupTargetOptions,
  type OneHotOptions,
} from './mixup.js';
export { Random, type RandomSource, type RandomState } from './random.js';
