#pragma once

#include <node_api.h>

#include <memory>

namespace surprisal {

class AsyncCalls;
class DefaultQueues;

/** What the addon keeps for one environment, that is for one thread's JavaScript. */
struct Environment {
  AsyncCalls* calls = nullptr;
  std::shared_ptr<DefaultQueues> queues;

  /** Makes it, for as long as the environment's references live. */
  static void create(napi_env env) {
    const auto end = [](napi_env, void* data, void*) { delete static_cast<Environment*>(data); };
    napi_set_instance_data(env, new Environment(), end, nullptr);
  }

  static Environment& of(napi_env env) {
    void* data = nullptr;
    napi_get_instance_data(env, &data);
    return *static_cast<Environment*>(data);
  }
};

}  // namespace surprisal
