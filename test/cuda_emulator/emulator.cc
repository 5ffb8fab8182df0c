#include "emulator.h"

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#if defined(__x86_64__)
// swapcontext asks the system for the signal mask at each switch, which takes longer than all the rest.
extern "C" void surprisal_switch_stacks(void** from, void* to);
asm(R"(
  .text
  .type surprisal_switch_stacks, @function
surprisal_switch_stacks:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
  .size surprisal_switch_stacks, . - surprisal_switch_stacks
)");
#endif

namespace surprisal::emulator {
namespace {

#if defined(__x86_64__)
/** Where a thread of control stands while another runs. */
class Context {
 public:
  /** From now on it begins with `enter`, which never returns. */
  void begin(void (*enter)(), std::byte* stack, size_t size) {
    constexpr int kSaved = 6;
    // A function finds its stack 8 bytes past a multiple of 16, where a return address lies.
    const auto end = reinterpret_cast<uintptr_t>(stack + size) / 16 * 16;
    auto** top = reinterpret_cast<void**>(end) - 2;
    *top = reinterpret_cast<void*>(enter);
    top_ = top - kSaved;
  }
  void switch_to(Context& other) { surprisal_switch_stacks(&top_, other.top_); }

 private:
  void* top_ = nullptr;
};
#else
class Context {
 public:
  void begin(void (*enter)(), std::byte* stack, size_t size) {
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack;
    context_.uc_stack.ss_size = size;
    context_.uc_link = nullptr;
    makecontext(&context_, enter, 0);
  }
  void switch_to(Context& other) { swapcontext(&context_, &other.context_); }

 private:
  ucontext_t context_;
};
#endif

/** Whoever waits goes on once the generation has changed. */
struct Barrier {
  int arrived = 0;
  uint64_t generation = 0;
};

/** What a MailBarrier holds here. Bytes may come before it is known how many are expected. */
struct Mail {
  uint16_t turns;  // that were completed
  uint16_t expected;
  int32_t missing;

  static Mail of(const MailBarrier& barrier) {
    Mail mail;
    std::memcpy(&mail, &barrier, sizeof(mail));
    return mail;
  }
  void put(MailBarrier* barrier) const { std::memcpy(barrier, this, sizeof(*this)); }
};
static_assert(sizeof(Mail) == sizeof(MailBarrier));

struct Warp {
  /** A slot a lane; neighbouring shuffles take turns, so that one barrier serves each. */
  alignas(16) std::byte slots[2][kWarp][16];
  Barrier barrier;
};

struct Block {
  int64_t index = 0;
  int rank = 0;
  std::byte* shared = nullptr;
  std::vector<Warp> warps;
  Barrier barrier;
};

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kStackBytes = 512 * 1024;
#else
constexpr size_t kStackBytes = 128 * 1024;
#endif

struct Fiber {
  Context context;
  std::unique_ptr<std::byte[]> stack;
  int thread = 0;
  Block* block = nullptr;
  uint64_t shuffles = 0;
  const Barrier* waits_for = nullptr;
  uint64_t generation = 0;
  const MailBarrier* mail = nullptr;
  unsigned turn = 0;
  bool ended = false;
  void* fake_stack = nullptr;

  bool may_run() const {
    if (ended) return false;
    if (mail != nullptr) return Mail::of(*mail).turns % 2 != turn;
    return waits_for == nullptr || waits_for->generation != generation;
  }
};

class Machine {
 public:
  Traffic traffic;
  int64_t launched = 0;

  void run(const LaunchShape& shape, const std::function<void()>& thread) {
    ++launched;
    check(shape);
    shape_ = shape;
    thread_ = &thread;
    std::vector<int64_t> clusters(shape.blocks / shape.cluster);
    std::iota(clusters.begin(), clusters.end(), int64_t{0});
    std::shuffle(clusters.begin(), clusters.end(), random_);
    for (const int64_t cluster : clusters) run_cluster(cluster * shape.cluster);
  }

  Fiber& current() { return *current_; }
  const LaunchShape& shape() const { return shape_; }
  Block& block(int rank) { return blocks_.at(rank); }

  /** Waits until `count` threads have come. */
  void wait(Barrier& barrier, int count) {
    if (++barrier.arrived == count) {
      barrier.arrived = 0;
      ++barrier.generation;
      return;
    }
    Fiber& fiber = *current_;
    fiber.waits_for = &barrier;
    fiber.generation = barrier.generation;
    rest(fiber);
    fiber.waits_for = nullptr;
  }

  /** Waits until a turn of mail is completed. */
  void wait(const MailBarrier* mail, unsigned turn) {
    Fiber& fiber = *current_;
    fiber.mail = mail;
    fiber.turn = turn;
    if (!fiber.may_run()) rest(fiber);
    fiber.mail = nullptr;
  }

  void cluster_wait() { wait(cluster_barrier_, shape_.threads * shape_.cluster); }

 private:
  static void check(const LaunchShape& shape) {
    const bool whole_warps = shape.threads > 0 && shape.threads % kWarp == 0 && shape.threads <= 1024;
    if (!whole_warps || shape.blocks <= 0 || shape.cluster < 1 || shape.cluster > 16 ||
        shape.blocks % shape.cluster != 0 || shape.shared_bytes < 0 || shape.shared_bytes > 227 * 1024) {
      throw std::logic_error("emulator: no such launch: " + std::to_string(shape.blocks) + " blocks of " +
                             std::to_string(shape.threads) + " threads in clusters of " +
                             std::to_string(shape.cluster) + ", " + std::to_string(shape.shared_bytes) +
                             " bytes of shared memory");
    }
  }

  void run_cluster(int64_t first) {
    const int threads = shape_.threads, count = threads * shape_.cluster;
    blocks_.assign(shape_.cluster, Block{});
    for (int rank = 0; rank < shape_.cluster; ++rank) {
      Block& block = blocks_[rank];
      block.index = first + rank;
      block.rank = rank;
      block.warps.assign(threads / kWarp, Warp{});
      // Of exactly this size, at an address that 16 divides.
      block.shared = static_cast<std::byte*>(std::malloc(shape_.shared_bytes));
      if (shape_.shared_bytes > 0) std::memset(block.shared, 0xff, shape_.shared_bytes);
    }
    cluster_barrier_ = {};
    while (fibers_.size() < static_cast<size_t>(count)) {
      fibers_.push_back(std::make_unique<Fiber>());
      fibers_.back()->stack.reset(new std::byte[kStackBytes]);
    }
    for (int i = 0; i < count; ++i) begin(*fibers_[i], i % threads, blocks_[i / threads]);
    const bool ended = take_turns(count);
    for (const Block& block : blocks_) std::free(block.shared);
    if (!ended) throw std::logic_error("emulator: every thread that has not ended waits at a barrier");
  }

  void begin(Fiber& fiber, int thread, Block& block) {
    fiber.thread = thread;
    fiber.block = &block;
    fiber.shuffles = 0;
    fiber.waits_for = nullptr;
    fiber.mail = nullptr;
    fiber.ended = false;
    fiber.fake_stack = nullptr;
    fiber.context.begin(enter, fiber.stack.get(), kStackBytes);
  }

  /** Lets others run until this one may go on. */
  void rest(Fiber& fiber) {
    switch_to(fiber.context, scheduler_, &fiber.fake_stack, scheduler_stack_, scheduler_stack_size_);
    finish_switch(fiber.fake_stack);
  }

  /**
   * Warps go on in an order that is never the same, and as far as they can: what one of them reads before it is
   * written, or while it is, does not come out right by luck. False where those that are left wait for ever.
   */
  bool take_turns(int count) {
    std::vector<int> warps(count / kWarp);
    std::iota(warps.begin(), warps.end(), 0);
    for (int left = count; left > 0;) {
      bool moved = false;
      std::shuffle(warps.begin(), warps.end(), random_);
      for (const int warp : warps) {
        while (take_turn(warp, left)) moved = true;
      }
      if (!moved) return false;
    }
    return true;
  }

  /** Lets each lane of a warp go on until it waits. Whether any did; `left` is less by those that ended. */
  bool take_turn(int warp, int& left) {
    bool moved = false;
    for (int lane = 0; lane < kWarp; ++lane) {
      Fiber& fiber = *fibers_[warp * kWarp + lane];
      if (!fiber.may_run()) continue;
      moved = true;
      current_ = &fiber;
      void* fake_stack = nullptr;
      switch_to(scheduler_, fiber.context, &fake_stack, fiber.stack.get(), kStackBytes);
      finish_switch(fake_stack);
      left -= fiber.ended;
    }
    return moved;
  }

  static void enter();

  void run_thread() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack_, &scheduler_stack_size_);
#endif
    (*thread_)();
    Fiber& fiber = *current_;
    fiber.ended = true;
    switch_to(fiber.context, scheduler_, nullptr, scheduler_stack_, scheduler_stack_size_);
  }

  static void switch_to(Context& from, Context& to, [[maybe_unused]] void** fake_stack,
                        [[maybe_unused]] const void* stack, [[maybe_unused]] size_t size) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(fake_stack, stack, size);
#endif
    from.switch_to(to);
  }
  static void finish_switch([[maybe_unused]] void* fake_stack) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
  }

  std::minstd_rand random_;
  LaunchShape shape_;
  const std::function<void()>* thread_ = nullptr;
  std::vector<Block> blocks_;
  Barrier cluster_barrier_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  Fiber* current_ = nullptr;
  Context scheduler_;
  const void* scheduler_stack_ = nullptr;
  size_t scheduler_stack_size_ = 0;
};

Machine& machine() {
  static thread_local Machine machine;
  return machine;
}

void Machine::enter() { machine().run_thread(); }

}  // namespace

Traffic take_traffic() {
  const Traffic traffic = machine().traffic;
  machine().traffic = {};
  return traffic;
}
void count_read(int64_t bytes) { machine().traffic.read += bytes; }
void count_written(int64_t bytes) { machine().traffic.written += bytes; }
int64_t launches() { return machine().launched; }

void run(const LaunchShape& shape, const std::function<void()>& thread) { machine().run(shape, thread); }

int thread_index() { return machine().current().thread; }
int thread_count() { return machine().shape().threads; }
int64_t block_index() { return machine().current().block->index; }
int64_t block_count() { return machine().shape().blocks; }
int cluster_size() { return machine().shape().cluster; }
std::byte* dynamic_shared() { return machine().current().block->shared; }

std::byte* peer_shared(std::byte* mine, int rank) { return machine().block(rank).shared + (mine - dynamic_shared()); }

void sync_block() { machine().wait(machine().current().block->barrier, machine().shape().threads); }
void sync_cluster() { machine().cluster_wait(); }

namespace {

void add_to(MailBarrier* barrier, bool expected, int bytes) {
  Mail mail = Mail::of(*barrier);
  mail.expected = mail.expected != 0 || expected;
  mail.missing += bytes;
  if (mail.expected != 0 && mail.missing == 0) {
    ++mail.turns;
    mail.expected = 0;
  }
  mail.put(barrier);
}

}  // namespace

void init_mail(MailBarrier* barrier) { Mail{0, 0, 0}.put(barrier); }
void expect_mail(MailBarrier* barrier, int bytes) { add_to(barrier, true, bytes); }
void deliver(MailBarrier* barrier, int bytes) { add_to(barrier, false, -bytes); }
void wait_for_mail(const MailBarrier* barrier, unsigned turn) { machine().wait(barrier, turn); }

void shuffle_xor(void* value, size_t size, int bits) {
  Fiber& fiber = machine().current();
  Warp& warp = fiber.block->warps[fiber.thread / kWarp];
  const int lane = fiber.thread % kWarp;
  auto& slots = warp.slots[fiber.shuffles++ % 2];
  std::memcpy(slots[lane], value, size);
  machine().wait(warp.barrier, kWarp);
  std::memcpy(value, slots[lane ^ bits], size);
}

}  // namespace surprisal::emulator
