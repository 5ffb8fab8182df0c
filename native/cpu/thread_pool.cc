#include "thread_pool.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <system_error>
#include <thread>

#include "processors.h"

namespace surprisal {

/**
 * Lets the thread that waits for this processor run, the event loop above all, which else would wait for the end of a
 * time slice. Where that takes long, the other one computes too; then this one gives way no more until it has had as
 * long.
 */
class ThreadPool::Courtesy {
 public:
  void give_way() {
    const auto before = std::chrono::steady_clock::now();
    if (before < next_) return;
    std::this_thread::yield();
    const auto after = std::chrono::steady_clock::now();
    next_ = after + (after - before);
  }

 private:
  std::chrono::steady_clock::time_point next_;
};

ThreadPool& ThreadPool::instance() {
  static ThreadPool* pool = new ThreadPool;  // never destroyed: its threads outlive every static
  return *pool;
}

ThreadPool::ThreadPool() : threads_(default_threads().count) {}

void ThreadPool::set_threads(int count) {
  Lock lock(mutex_);
  threads_.store(std::clamp(count, 1, kMostThreads), std::memory_order_relaxed);
  look_for_others();
  wake_.notify_all();
}

/** Workers that may be inside of jobs. */
int ThreadPool::limit() const { return std::max(1, threads() - callers_); }

void ThreadPool::look_for_others() { crowded_.store(queue_.size() > 1 || busy_ > limit(), std::memory_order_relaxed); }

/** False where there are fewer, because the system gives no more. */
bool ThreadPool::start_workers(int64_t count) {
  for (; workers_ < count; ++workers_) {
    try {
      std::thread thread([this] { work(); });
#ifdef __linux__
      pthread_setname_np(thread.native_handle(), "surprisal");
#endif
      thread.detach();
    } catch (const std::system_error&) {
      return false;
    }
  }
  return true;
}

void ThreadPool::work() {
  Courtesy courtesy;
  Lock lock(mutex_);
  for (;;) {
    while (queue_.empty() || busy_ >= limit()) {
      ++idle_;
      wake_.wait(lock);
      --idle_;
    }
    Job& job = *queue_.front();
    queue_.pop_front();
    queue_.push_back(&job);
    ++job.threads_;
    ++busy_;
    look_for_others();
    lock.unlock();
    run_parts(job, &courtesy);
    lock.lock();
    --busy_;
    leave(job, lock);
  }
}

/** Runs parts of a job that this thread is inside of; a worker, which has courtesy, until it is another job's turn. */
void ThreadPool::run_parts(Job& job, Courtesy* courtesy) {
  do {
    const int64_t i = job.next_.fetch_add(1, std::memory_order_relaxed);
    if (i >= job.count_) return;
    try {
      job.run_part(i);
    } catch (...) {
      Lock lock(mutex_);
      if (!job.error_) job.error_ = std::current_exception();
      job.next_.store(job.count_, std::memory_order_relaxed);
    }
    if (!job.awaited_) courtesy->give_way();
  } while (courtesy == nullptr || !crowded_.load(std::memory_order_relaxed));
}

/** The last thread to leave a job without parts begins its next stage, or ends it. */
void ThreadPool::leave(Job& job, Lock& lock) {
  if (job.exhausted()) dequeue(job);
  if (--job.threads_ > 0 || !job.exhausted()) return;
  if (job.awaited_) return left_.notify_all();
  int64_t count = 0;
  if (!job.error_) {
    ++job.threads_;  // so that nobody else ends it meanwhile
    lock.unlock();
    std::exception_ptr error;
    try {
      count = job.next_stage();
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    --job.threads_;
    if (!job.error_) job.error_ = error;
  }
  if (job.error_ || count == 0) return end(job, lock);
  begin_stage(job, count, count);
}

/** Hands out parts; so many workers would be of use. */
void ThreadPool::begin_stage(Job& job, int64_t count, int64_t workers) {
  job.count_ = count;
  job.next_.store(0, std::memory_order_relaxed);
  job.queued_ = true;
  queue_.push_back(&job);
  look_for_others();
  start_workers(std::min<int64_t>(limit(), busy_ + workers));
  for (int64_t i = std::min<int64_t>({workers, limit() - busy_, idle_}); i > 0; --i) wake_.notify_one();
}

void ThreadPool::end(Job& job, Lock& lock) {
  job.over_ = true;
  lock.unlock();
  job.ended(job.error_);
  lock.lock();
}

void ThreadPool::dequeue(Job& job) {
  if (!job.queued_) return;
  job.queued_ = false;
  queue_.erase(std::find(queue_.begin(), queue_.end(), &job));
  look_for_others();
}

void ThreadPool::submit(Job& job) {
  const int64_t count = job.next_stage();
  Lock lock(mutex_);
  if (!start_workers(1) && workers_ == 0) {
    throw std::system_error(std::make_error_code(std::errc::resource_unavailable_try_again),
                            "no thread could be started for an asynchronous call");
  }
  begin_stage(job, count, count);
}

void ThreadPool::cancel(Job& job, std::exception_ptr reason) {
  Lock lock(mutex_);
  if (job.over_) return;
  if (!job.error_) job.error_ = std::move(reason);
  job.next_.store(job.count_, std::memory_order_relaxed);
  dequeue(job);
  if (job.threads_ == 0) end(job, lock);
}

void ThreadPool::run(Job& job, int64_t count) {
  Lock lock(mutex_);
  job.awaited_ = true;
  ++job.threads_;
  ++callers_;
  begin_stage(job, count, count - 1);
  lock.unlock();
  run_parts(job, nullptr);
  lock.lock();
  dequeue(job);
  --job.threads_;
  left_.wait(lock, [&] { return job.threads_ == 0; });
  --callers_;
  look_for_others();
  // Others may work again in this thread's place.
  if (!queue_.empty()) wake_.notify_one();
  lock.unlock();
  if (job.error_) std::rethrow_exception(job.error_);
}

}  // namespace surprisal
