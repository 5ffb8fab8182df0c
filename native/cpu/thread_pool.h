#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <mutex>

namespace surprisal {

/**
 * The process's one pool of threads, started when a call is first large enough and never joined: Node closes an
 * addon when the last thread that used it exits, while the pool's threads live on.
 *
 * Calls that run at once share it part by part, in turn, so none waits for another to end. No more than threads() are
 * at work, callers that wait and work meanwhile among them; but where these alone are as many, one thread of the pool
 * still works, so that submitted jobs go on.
 */
class ThreadPool {
 public:
  /** Work in stages, whose parts may run at once and in any order. */
  class Job {
   public:
    virtual ~Job() = default;

   protected:
    /** Begins the next stage, once all parts of the last have ended: how many it has, 0 where there is none. */
    virtual int64_t next_stage() = 0;
    virtual void run_part(int64_t i) = 0;
    /** The end of a submitted job, on any thread. `error` is its first exception, or why it was cancelled. */
    virtual void ended(std::exception_ptr error) noexcept = 0;

   private:
    friend class ThreadPool;

    bool exhausted() const { return next_.load(std::memory_order_relaxed) >= count_; }

    std::atomic<int64_t> next_{0};
    int64_t count_ = 0;
    int threads_ = 0;  // inside of it
    bool queued_ = false;
    bool awaited_ = false;  // by the caller of parallel_for
    bool over_ = false;
    std::exception_ptr error_;
  };

  static ThreadPool& instance();

  /** Threads that a call may use, its own included. */
  int threads() const { return threads_.load(std::memory_order_relaxed); }
  void set_threads(int count);

  /** Begins a job. Throws where the pool has no thread and the system gives none. */
  void submit(Job& job);

  /** Begins no part of a submitted job any more; it ends when those at work have. Nothing where it has ended. */
  void cancel(Job& job, std::exception_ptr reason);

  /** Calls f(i) for i in [0, count), on this thread and the pool's; rethrows the first exception. */
  template <class F>
  void parallel_for(int64_t count, F&& f) {
    if (count == 1 || threads() == 1) {
      for (int64_t i = 0; i < count; ++i) f(i);
      return;
    }
    struct Loop final : Job {
      explicit Loop(F& f) : f(f) {}
      int64_t next_stage() override { return 0; }
      void run_part(int64_t i) override { f(i); }
      void ended(std::exception_ptr) noexcept override {}
      F& f;
    } loop(f);
    run(loop, count);
  }

 private:
  using Lock = std::unique_lock<std::mutex>;
  class Courtesy;

  ThreadPool();
  void run(Job& job, int64_t count);
  void work();
  void run_parts(Job& job, Courtesy* courtesy);
  void leave(Job& job, Lock& lock);
  void begin_stage(Job& job, int64_t count, int64_t workers);
  void end(Job& job, Lock& lock);
  void dequeue(Job& job);
  bool start_workers(int64_t count);
  int limit() const;
  void look_for_others();

  std::mutex mutex_;
  std::condition_variable wake_, left_;
  std::deque<Job*> queue_;  // of jobs that have parts left, in turn
  std::atomic<int> threads_;
  int workers_ = 0;  // started
  int idle_ = 0;     // asleep
  int busy_ = 0;     // inside of jobs
  int callers_ = 0;  // inside of parallel_for
  /** Whether workers leave their job after a part: another waits for its turn, or too many are at work. */
  std::atomic<bool> crowded_{false};
};

}  // namespace surprisal
