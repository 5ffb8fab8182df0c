// The kernels of every dtype in one file, each dtype's in a namespace of its own: nvcc compresses a file at a time, and
// most of what one dtype's kernels are is in another's too.

#include "../loss/table.h"
#include "convert.h"
#include "elementwise.h"
#include "gather.h"
#include "kernels.h"
#include "labels.h"
#include "row_group.h"
#include "row_map.h"
#include "softmax_coupled.h"
#include "softmax_linear.h"

#undef SURPRISAL_TARGET
#define SURPRISAL_TARGET float32_kernels
#define SURPRISAL_DTYPE float32
#include "kernels.cu"

#undef SURPRISAL_TARGET
#undef SURPRISAL_DTYPE
#define SURPRISAL_TARGET float64_kernels
#define SURPRISAL_DTYPE float64
#include "kernels.cu"

#undef SURPRISAL_TARGET
#undef SURPRISAL_DTYPE
#define SURPRISAL_TARGET float16_kernels
#define SURPRISAL_DTYPE float16
#include "kernels.cu"

#undef SURPRISAL_TARGET
#undef SURPRISAL_DTYPE
#define SURPRISAL_TARGET bfloat16_kernels
#define SURPRISAL_DTYPE bfloat16
#include "kernels.cu"
