// What the losses are measured against: the least that a machine needs to read, to copy and to write the same bytes,
// with as many threads, and an empty call from JavaScript. For the bench alone.

#include <node_api.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

// ---- reading, copying, writing -------------------------------------------------------------------------------------

/** 64 bytes at any address: one register with AVX-512, two or four with less. */
typedef uint64_t Vector __attribute__((vector_size(64), aligned(8), may_alias));
constexpr size_t kLine = 64;

inline Vector load(const char* from) {
  Vector vector;
  std::memcpy(&vector, from, sizeof(vector));
  return vector;
}

/** A hint that can't fault, so it may reach past the end. */
inline void prefetch(const char* address) { __builtin_prefetch(address); }

/** Sum of the 64-bit words of fewer bytes than a vector holds; the last one is filled up with zeros. */
uint64_t sum_tail(const char* from, size_t bytes) {
  uint64_t sum = 0;
  for (size_t i = 0; i < bytes; i += 8) {
    uint64_t word = 0;
    std::memcpy(&word, from + i, std::min<size_t>(8, bytes - i));
    sum += word;
  }
  return sum;
}

uint64_t add_up(const Vector& vector) {
  uint64_t sum = 0;
  for (size_t i = 0; i < sizeof(vector) / 8; ++i) sum += vector[i];
  return sum;
}

/**
 * Sum of the 64-bit words, on eight chains of additions. Prefetching `ahead` bytes crosses the 4 KiB pages at which
 * hardware stops.
 */
template <size_t ahead>
uint64_t sum_words(const char* from, size_t bytes) {
  constexpr size_t kChains = 8, kStep = kChains * kLine;
  Vector sums[kChains] = {};
  size_t i = 0;
  for (; i + kStep <= bytes; i += kStep) {
    if constexpr (ahead > 0) {
      for (size_t k = 0; k < kChains; ++k) prefetch(from + i + ahead + k * kLine);
    }
    for (size_t k = 0; k < kChains; ++k) sums[k] += load(from + i + k * kLine);
  }
  for (; i + kLine <= bytes; i += kLine) sums[0] += load(from + i);
  for (size_t k = 1; k < kChains; ++k) sums[0] += sums[k];
  return add_up(sums[0]) + sum_tail(from + i, bytes - i);
}

/** The same in four places at once, a quarter of the bytes apart, which keeps more of the prefetchers busy. */
uint64_t sum_words_in_streams(const char* from, size_t bytes) {
  constexpr size_t kStreams = 4;
  const size_t part = bytes / kStreams / kLine * kLine;
  Vector sums[kStreams][2] = {};
  size_t i = 0;
  for (; i + 2 * kLine <= part; i += 2 * kLine) {
    for (size_t s = 0; s < kStreams; ++s) {
      sums[s][0] += load(from + s * part + i);
      sums[s][1] += load(from + s * part + i + kLine);
    }
  }
  uint64_t sum = 0;
  for (size_t s = 0; s < kStreams; ++s) {
    sum += add_up(sums[s][0] + sums[s][1]) + sum_words<0>(from + s * part + i, part - i);
  }
  return sum + sum_words<0>(from + kStreams * part, bytes - kStreams * part);
}

/** A copy by vectors, ordinary stores, with what comes next fetched ahead. */
void copy_prefetched(char* to, const char* from, size_t bytes) {
  constexpr size_t kAhead = 2048, kStep = 4 * kLine;
  size_t i = 0;
  for (; i + kStep <= bytes; i += kStep) {
    for (size_t k = 0; k < 4; ++k) prefetch(from + i + kAhead + k * kLine);
    for (size_t k = 0; k < 4; ++k) {
      const Vector vector = load(from + i + k * kLine);
      std::memcpy(to + i + k * kLine, &vector, kLine);
    }
  }
  std::memcpy(to + i, from + i, bytes - i);
}

#if defined(__x86_64__)
/** A line past the caches, so that it is not read before it is overwritten. `to` is aligned to lines. */
inline void stream(char* to, const char* from) {
#if defined(__AVX512F__)
  _mm512_stream_si512(reinterpret_cast<__m512i*>(to), _mm512_loadu_si512(from));
#elif defined(__AVX__)
  for (int k = 0; k < 64; k += 32) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to + k),
                        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + k)));
  }
#else
  for (int k = 0; k < 64; k += 16) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + k), _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + k)));
  }
#endif
}

/** How many of the first bytes stand before the first whole line. */
inline size_t unaligned_head(const char* to, size_t bytes) {
  return std::min(bytes, (kLine - reinterpret_cast<uintptr_t>(to) % kLine) % kLine);
}

/** A copy by stores past the caches, in `kStreams` places at once. */
template <size_t kStreams, size_t kAhead>
void copy_streaming(char* to, const char* from, size_t bytes) {
  constexpr size_t kStep = 4 * kLine;
  const size_t head = unaligned_head(to, bytes);
  std::memcpy(to, from, head);
  to += head, from += head, bytes -= head;
  const size_t part = bytes / kStreams / kStep * kStep;
  for (size_t i = 0; i < part; i += kStep) {
    for (size_t s = 0; s < kStreams; ++s) {
      const size_t at = s * part + i;
      for (size_t k = 0; k < kStep; k += kLine) prefetch(from + at + kAhead + k);
      for (size_t k = 0; k < kStep; k += kLine) stream(to + at + k, from + at + k);
    }
  }
  _mm_sfence();
  std::memcpy(to + kStreams * part, from + kStreams * part, bytes - kStreams * part);
}

void fill_streaming(char* to, size_t bytes) {
  alignas(kLine) static const char zeros[kLine] = {};
  const size_t head = unaligned_head(to, bytes);
  std::memset(to, 0, head);
  size_t i = head;
  for (; i + kLine <= bytes; i += kLine) stream(to + i, zeros);
  _mm_sfence();
  std::memset(to + i, 0, bytes - i);
}
#endif

struct ReadMethod {
  const char* name;
  uint64_t (*run)(const char* from, size_t bytes);
};
constexpr ReadMethod kReadMethods[] = {
    {"vector loads", sum_words<0>},
    {"vector loads, 8 KiB fetched ahead", sum_words<8192>},
    {"vector loads in four streams", sum_words_in_streams},
};

struct CopyMethod {
  const char* name;
  void (*run)(char* to, const char* from, size_t bytes);
};
constexpr CopyMethod kCopyMethods[] = {
    {"memcpy", [](char* to, const char* from, size_t bytes) { std::memcpy(to, from, bytes); }},
    {"vector stores, fetched ahead", copy_prefetched},
#if defined(__x86_64__)
    {"streaming stores", copy_streaming<1, 8192>},
    {"streaming stores in four streams", copy_streaming<4, 1024>},
#endif
};

struct FillMethod {
  const char* name;
  void (*run)(char* to, size_t bytes);
};
constexpr FillMethod kFillMethods[] = {
    {"memset", [](char* to, size_t bytes) { std::memset(to, 0, bytes); }},
#if defined(__x86_64__)
    {"streaming stores", fill_streaming},
#endif
};

// ---- a plan: what one pass of a loss has to move -------------------------------------------------------------------

/** The bytes at `data + i·row_step + indices[i]·index_step`, of each row i. */
struct Gather {
  const char* data = nullptr;
  const int32_t* indices = nullptr;
  size_t rows = 0, row_step = 0, index_step = 0, bytes = 0;
};

struct Plan {
  struct Read {
    const char* from;
    size_t bytes;
  };
  struct Copy {
    char* to;
    const char* from;
    size_t bytes;
  };
  struct Fill {
    char* to;
    size_t bytes;
  };

  int threads = 1;
  /** A thread's part is moved in so many pieces, each of all that has to be read and written. */
  int pieces = 1;
  const ReadMethod* read_method = &kReadMethods[0];
  const CopyMethod* copy_method = &kCopyMethods[0];
  const FillMethod* fill_method = &kFillMethods[0];
  std::vector<Read> reads;
  std::vector<Gather> gathers;
  std::vector<Copy> copies;
  std::vector<Fill> fills;
  /** Σ of the words that were read, a thread. */
  std::vector<uint64_t> sums;
};

struct Part {
  size_t begin, end;
  size_t size() const { return end - begin; }
};

/** Part i of `count` cut evenly into so many, at multiples of `step`. */
Part part_of(size_t count, size_t step, size_t i, size_t parts) {
  const size_t steps = (count + step - 1) / step;
  return {std::min(count, steps * i / parts * step), std::min(count, steps * (i + 1) / parts * step)};
}

/** Moves piece i of so many, and returns the sum of what it read. */
uint64_t run_piece(const Plan& plan, size_t i, size_t pieces) {
  uint64_t sum = 0;
  for (const auto& read : plan.reads) {
    const Part part = part_of(read.bytes, kLine, i, pieces);
    sum += plan.read_method->run(read.from + part.begin, part.size());
  }
  for (const auto& gather : plan.gathers) {
    const Part part = part_of(gather.rows, 1, i, pieces);
    for (size_t row = part.begin; row < part.end; ++row) {
      const char* from = gather.data + row * gather.row_step + gather.indices[row] * gather.index_step;
      sum += plan.read_method->run(from, gather.bytes);
    }
  }
  for (const auto& copy : plan.copies) {
    const Part part = part_of(copy.bytes, kLine, i, pieces);
    plan.copy_method->run(copy.to + part.begin, copy.from + part.begin, part.size());
  }
  for (const auto& fill : plan.fills) {
    const Part part = part_of(fill.bytes, kLine, i, pieces);
    plan.fill_method->run(fill.to + part.begin, part.size());
  }
  return sum;
}

void run_part(Plan& plan, int t) {
  uint64_t sum = 0;
  const size_t pieces = plan.pieces;
  for (size_t p = 0; p < pieces; ++p) sum += run_piece(plan, t * pieces + p, plan.threads * pieces);
  plan.sums[t] = sum;
}

// ---- threads that are kept -----------------------------------------------------------------------------------------

inline void pause() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

/**
 * Threads that wait a moment without sleeping, since waking one takes as long as reading a megabyte; then they sleep,
 * to leave their core to the loss that is measured next.
 */
class Pool {
 public:
  static Pool& instance() {
    static Pool* pool = new Pool;
    return *pool;
  }

  void run(Plan& plan) {
    const int others = plan.threads - 1;
    if (others > 0) {
      for (; workers_ < others; ++workers_) {
        std::thread([this, t = workers_ + 1, seen = turn_.load()] { work(t, seen); }).detach();
      }
      plan_ = &plan;
      running_.store(workers_);
      turn_.fetch_add(1);
      turn_.notify_all();
    }
    run_part(plan, 0);
    if (others > 0) {
      // Where the machine has others to serve, the ones waited for may need this core.
      for (int spins = 0; running_.load(std::memory_order_acquire) > 0; ++spins) {
        spins < 4096 ? pause() : std::this_thread::yield();
      }
    }
  }

 private:
  static constexpr std::chrono::microseconds kPatience{50};

  void work(int t, uint32_t seen) {
    using Clock = std::chrono::steady_clock;
    for (;;) {
      const auto until = Clock::now() + kPatience;
      while (turn_.load(std::memory_order_acquire) == seen && Clock::now() < until) {
        for (int i = 0; i < 16; ++i) pause();
      }
      turn_.wait(seen);
      seen = turn_.load();
      if (t < plan_->threads) run_part(*plan_, t);
      running_.fetch_sub(1, std::memory_order_release);
    }
  }

  std::atomic<uint32_t> turn_{0};
  std::atomic<int> running_{0};
  Plan* plan_ = nullptr;
  int workers_ = 0;
};

// ---- Node-API ------------------------------------------------------------------------------------------------------

struct Failure {
  std::string message;
};

void check(napi_status status) {
  if (status != napi_ok) throw Failure{"a Node-API call failed"};
}

napi_value get(napi_env env, napi_value object, const char* name) {
  napi_value value;
  check(napi_get_named_property(env, object, name, &value));
  return value;
}

int64_t integer(napi_env env, napi_value value) {
  int64_t result;
  if (napi_get_value_int64(env, value, &result) != napi_ok || result < 0) {
    throw Failure{"expected a number of at least 0"};
  }
  return result;
}

template <class Method, size_t n>
const Method* method_named(napi_env env, napi_value value, const Method (&methods)[n]) {
  char name[128];
  size_t length;
  check(napi_get_value_string_utf8(env, value, name, sizeof(name), &length));
  for (const auto& method : methods) {
    if (std::string(name, length) == method.name) return &method;
  }
  throw Failure{"no method '" + std::string(name, length) + "' here"};
}

struct Bytes {
  char* data;
  size_t size;
};

Bytes bytes_of(napi_env env, napi_value array) {
  napi_typedarray_type type = napi_uint8_array;
  size_t length, offset;
  void* data;
  napi_value buffer;
  if (napi_get_typedarray_info(env, array, &type, &length, &data, &buffer, &offset) != napi_ok) {
    throw Failure{"expected a typed array"};
  }
  constexpr size_t kSizes[] = {1, 1, 1, 2, 2, 4, 4, 4, 8, 8, 8};
  if (static_cast<size_t>(type) >= std::size(kSizes)) throw Failure{"expected a typed array of a known kind"};
  return {static_cast<char*>(data), length * kSizes[type]};
}

template <class F>
void each(napi_env env, napi_value array, F&& f) {
  uint32_t length;
  check(napi_get_array_length(env, array, &length));
  for (uint32_t i = 0; i < length; ++i) {
    napi_value element;
    check(napi_get_element(env, array, i, &element));
    f(element);
  }
}

template <class F>
napi_value translated(napi_env env, F&& f) {
  try {
    return f();
  } catch (const Failure& failure) {
    napi_throw_error(env, nullptr, failure.message.c_str());
    return nullptr;
  }
}

napi_value run_plan(napi_env env, napi_callback_info info) {
  void* plan;
  if (napi_get_cb_info(env, info, nullptr, nullptr, nullptr, &plan) == napi_ok) {
    Pool::instance().run(*static_cast<Plan*>(plan));
  }
  return nullptr;
}

std::unique_ptr<Plan> read_plan(napi_env env, napi_value description) {
  auto plan = std::make_unique<Plan>();
  plan->threads = static_cast<int>(integer(env, get(env, description, "threads")));
  plan->pieces = static_cast<int>(integer(env, get(env, description, "pieces")));
  if (plan->threads < 1 || plan->pieces < 1) throw Failure{"expected at least one thread and one piece"};
  plan->sums.resize(plan->threads);
  plan->read_method = method_named(env, get(env, description, "readMethod"), kReadMethods);
  plan->copy_method = method_named(env, get(env, description, "copyMethod"), kCopyMethods);
  plan->fill_method = method_named(env, get(env, description, "fillMethod"), kFillMethods);
  each(env, get(env, description, "reads"), [&](napi_value array) {
    const Bytes from = bytes_of(env, array);
    plan->reads.push_back({from.data, from.size});
  });
  each(env, get(env, description, "copies"), [&](napi_value pair) {
    const Bytes from = bytes_of(env, get(env, pair, "from")), to = bytes_of(env, get(env, pair, "to"));
    if (from.size != to.size) throw Failure{"expected arrays of one size to copy between"};
    plan->copies.push_back({to.data, from.data, from.size});
  });
  each(env, get(env, description, "fills"), [&](napi_value array) {
    const Bytes to = bytes_of(env, array);
    plan->fills.push_back({to.data, to.size});
  });
  each(env, get(env, description, "gathers"), [&](napi_value object) {
    const Bytes from = bytes_of(env, get(env, object, "from")), indices = bytes_of(env, get(env, object, "indices"));
    Gather gather;
    gather.data = from.data;
    gather.indices = reinterpret_cast<const int32_t*>(indices.data);
    gather.rows = indices.size / sizeof(int32_t);
    gather.row_step = integer(env, get(env, object, "rowStep"));
    gather.index_step = integer(env, get(env, object, "indexStep"));
    gather.bytes = integer(env, get(env, object, "bytes"));
    for (size_t i = 0; i < gather.rows; ++i) {
      if (gather.indices[i] < 0 ||
          i * gather.row_step + gather.indices[i] * gather.index_step + gather.bytes > from.size) {
        throw Failure{"an index of a gather reaches outside its array"};
      }
    }
    plan->gathers.push_back(gather);
  });
  return plan;
}

void delete_plan(napi_env, void* plan, void*) { delete static_cast<Plan*>(plan); }

/** A function that runs the plan once. The arrays must outlive it. */
napi_value make_plan(napi_env env, napi_callback_info info) {
  return translated(env, [&] {
    size_t count = 1;
    napi_value description;
    check(napi_get_cb_info(env, info, &count, &description, nullptr, nullptr));
    auto plan = read_plan(env, description);
    napi_value function;
    check(napi_create_function(env, "run", NAPI_AUTO_LENGTH, run_plan, plan.get(), &function));
    check(napi_wrap(env, function, plan.get(), delete_plan, nullptr, nullptr));
    plan.release();
    return function;
  });
}

/** Σ of the 64-bit words that a plan read when it last ran, modulo 2^64. */
napi_value sum_of(napi_env env, napi_callback_info info) {
  return translated(env, [&] {
    size_t count = 1;
    napi_value function, result;
    void* plan;
    check(napi_get_cb_info(env, info, &count, &function, nullptr, nullptr));
    check(napi_unwrap(env, function, &plan));
    uint64_t sum = 0;
    for (const uint64_t part : static_cast<Plan*>(plan)->sums) sum += part;
    check(napi_create_bigint_uint64(env, sum, &result));
    return result;
  });
}

/** Takes up to ten arguments, as the losses' entry does, and does nothing. */
napi_value empty(napi_env env, napi_callback_info info) {
  size_t count = 10;
  napi_value arguments[10];
  napi_get_cb_info(env, info, &count, arguments, nullptr, nullptr);
  return nullptr;
}

template <class Method, size_t n>
napi_value names_of(napi_env env, const Method (&methods)[n]) {
  napi_value array, name;
  check(napi_create_array(env, &array));
  for (uint32_t i = 0; i < n; ++i) {
    check(napi_create_string_utf8(env, methods[i].name, NAPI_AUTO_LENGTH, &name));
    check(napi_set_element(env, array, i, name));
  }
  return array;
}

void export_function(napi_env env, napi_value exports, const char* name, napi_callback callback) {
  napi_value function;
  check(napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, nullptr, &function));
  check(napi_set_named_property(env, exports, name, function));
}

}  // namespace

NAPI_MODULE_INIT() {
  return translated(env, [&] {
    check(napi_set_named_property(env, exports, "readMethods", names_of(env, kReadMethods)));
    check(napi_set_named_property(env, exports, "copyMethods", names_of(env, kCopyMethods)));
    check(napi_set_named_property(env, exports, "fillMethods", names_of(env, kFillMethods)));
    export_function(env, exports, "plan", make_plan);
    export_function(env, exports, "sum", sum_of);
    export_function(env, exports, "empty", empty);
    return exports;
  });
}
