#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>

namespace surprisal {

/**
 * The process's one pool of threads, started when a call is first large enough and never joined: Node closes an
 * addon when the last thread that used it exits, while the pool's threads live on.
 *
 * Calls that run at once share it a block at a time, in turn, so none waits for another to end.
 */
class ThreadPool {
 public:
  static ThreadPool& instance();

  /** Threads that a call may use, its own included. */
  int threads();
  void set_threads(int count);

  /** Calls task(context, i) for i in [0, count), on this thread and the pool's; rethrows the first exception. */
  void run(int64_t count, void (*task)(void* context, int64_t i), void* context);

  template <class F>
  void parallel_for(int64_t count, F&& f) {
    run(count, [](void* context, int64_t i) { (*static_cast<std::remove_reference_t<F>*>(context))(i); }, &f);
  }

 private:
  struct Job;

  ThreadPool();
  void start_workers(int count);
  void work(int number);
  /** Takes and runs one block of a job; the lock is held before and after. */
  void run_block(Job& job, std::unique_lock<std::mutex>& lock);

  std::mutex mutex_;
  std::condition_variable work_, done_;
  std::deque<Job*> jobs_;
  int threads_;
  int workers_ = 0;
};

}  // namespace surprisal
