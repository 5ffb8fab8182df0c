#include "thread_pool.h"

#include <algorithm>

#include "processors.h"

namespace surprisal {

struct ThreadPool::Job {
  void (*task)(void*, int64_t);
  void* context;
  int64_t next, count;
  int64_t running;
  std::exception_ptr error;
};

ThreadPool& ThreadPool::instance() {
  static ThreadPool* pool = new ThreadPool;  // never destroyed: its threads outlive every static
  return *pool;
}

ThreadPool::ThreadPool() : threads_(default_threads().count) {}

int ThreadPool::threads() {
  std::lock_guard lock(mutex_);
  return threads_;
}

void ThreadPool::set_threads(int count) {
  std::lock_guard lock(mutex_);
  threads_ = std::clamp(count, 1, kMostThreads);
  work_.notify_all();
}

void ThreadPool::start_workers(int count) {
  while (workers_ < count) {
    std::thread([this, number = workers_] { work(number); }).detach();
    ++workers_;
  }
}

void ThreadPool::work(int number) {
  std::unique_lock lock(mutex_);
  for (;;) {
    // Threads above a lowered count stay asleep.
    work_.wait(lock, [&] { return !jobs_.empty() && number < threads_ - 1; });
    Job* job = jobs_.front();
    jobs_.pop_front();
    if (job->next < job->count) {
      if (job->next + 1 < job->count) jobs_.push_back(job);
      run_block(*job, lock);
    }
  }
}

void ThreadPool::run_block(Job& job, std::unique_lock<std::mutex>& lock) {
  const int64_t i = job.next++;
  ++job.running;
  lock.unlock();
  std::exception_ptr error;
  try {
    job.task(job.context, i);
  } catch (...) {
    error = std::current_exception();
  }
  lock.lock();
  if (error && !job.error) {
    job.error = error;
    job.next = job.count;  // nothing more is begun
  }
  if (--job.running == 0 && job.next == job.count) done_.notify_all();
}

void ThreadPool::run(int64_t count, void (*task)(void*, int64_t), void* context) {
  if (count == 1) return task(context, 0);
  std::unique_lock lock(mutex_);
  Job job{task, context, 0, count, 0, nullptr};
  if (threads_ > 1) {
    start_workers(threads_ - 1);
    jobs_.push_back(&job);
    work_.notify_all();
  }
  while (job.next < job.count) run_block(job, lock);
  done_.wait(lock, [&] { return job.running == 0; });
  jobs_.erase(std::remove(jobs_.begin(), jobs_.end(), &job), jobs_.end());
  lock.unlock();
  if (job.error) std::rethrow_exception(job.error);
}

}  // namespace surprisal
