#pragma once

#include <napi.h>

#include <exception>
#include <vector>

#include "backend.h"

namespace surprisal {

/** Arguments of a call's arrays, the header included. */
inline constexpr size_t kArrayCount = 10;

/** Names of the header's slots, in order. */
extern const std::vector<const char*> kFieldNames;

/**
 * The call that arguments [first, first + kArrayCount) describe. Every size, stride and dtype is checked against
 * the arrays' lengths, so that nothing that JavaScript passes can make a kernel reach outside of them.
 */
Evaluation read_evaluation(const Napi::CallbackInfo& info, size_t first, const Backend& backend);

/** Memory of a typed array. Throws a TypeError for anything else, and for a detached one. */
struct ArrayView {
  void* data = nullptr;
  size_t bytes = 0;
};
ArrayView read_array(Napi::Env env, napi_value value, const char* name);

/** Throws unless the array holds `count` elements of this many bytes. */
void check_length(Napi::Env env, const ArrayView& array, int64_t count, int element_size, const char* name);

/** The dtype of a code, between 0 and `count`. */
DType read_dtype(Napi::Env env, double code, int count, const char* name);

/** What a caught exception is in JavaScript: an error with a `code`. */
Napi::Error to_error(Napi::Env env, const std::exception& exception);

}  // namespace surprisal
