#pragma once

#include <napi.h>

#include <functional>

namespace surprisal {

/** Adds evaluateAsync, cancel and what belongs to them to the exports: binding.d.ts types them. */
void export_async(Napi::Env env, Napi::Object exports);

/** Does work on a thread of the pool; resolves with undefined, or rejects with what it throws. */
Napi::Value run_async(Napi::Env env, std::function<void()> work);

}  // namespace surprisal
