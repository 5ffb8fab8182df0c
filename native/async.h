#pragma once

#include <napi.h>

namespace surprisal {

/** Adds evaluateAsync, cancel and what belongs to them to the exports: binding.d.ts types them. */
void export_async(Napi::Env env, Napi::Object exports);

}  // namespace surprisal
