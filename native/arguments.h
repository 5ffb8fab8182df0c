#pragma once

#include <napi.h>

#include <exception>
#include <span>
#include <vector>

#include "backend.h"

namespace surprisal {

/** Arrays of a call, in the order of binding.d.ts. */
enum Array {
  kHeader,
  kInput,
  kIndices,
  kGrad,
  kOutput,
  kDense,
  kGradOutputs,
  kWeight,
  kPosWeight,
  kConstants,
  kStatistics,
  kConfusion,
  kStream,  // no array, but where a GPU's work goes
};
/** The most arguments that a call has. */
inline constexpr size_t kArrayCount = kStream + 1;

/** Names of the header's slots, in order. */
extern const std::vector<const char*> kFieldNames;

/**
 * The call that these arguments describe, kArrayCount or fewer. Every size, stride and dtype is checked against the
 * arrays' lengths, so that nothing that JavaScript passes can make a kernel reach outside of them.
 */
Evaluation read_evaluation(Napi::Env env, std::span<const napi_value> arguments, const Backend& backend);

/** Memory of a typed array or of a device; null of none. */
struct ArrayView {
  void* data = nullptr;
  size_t bytes = 0;
  int device = kCpu;
};

/** Throws a TypeError for anything but a typed array, and for a detached one. */
ArrayView read_array(Napi::Env env, napi_value value, const char* name);

/** Throws unless the array holds `count` elements of this many bytes. */
void check_length(Napi::Env env, const ArrayView& array, int64_t count, int element_size, const char* name);

/** The dtype of a code, between 0 and `count`. */
DType read_dtype(Napi::Env env, double code, int count, const char* name);

/** What a call returns: its loss, unless its losses were written to an array. */
Napi::Value loss_value(Napi::Env env, const Evaluation& call, double loss);

/** What a caught exception is in JavaScript: an error with a `code`. */
Napi::Error to_error(Napi::Env env, const std::exception& exception);

}  // namespace surprisal
