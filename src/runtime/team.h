#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace seqboat::runtime {

/// The threads of one runner: the caller and its helpers run the same job, each with its own number, and meet at barriers. Who does what is fixed by
/// the number, so nothing is handed out while they work, and nothing is allocated.
///
/// A helper that waits spins for some microseconds, since the next barrier of a token is near, and then sleeps.
class Team {
 public:
  explicit Team(int64_t threads);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int64_t threads() const { return threads_; }

  /// job(context, number) in every thread, number 0 in the caller's. Returns when all are done. The job must not throw.
  using Job = void (*)(void* context, int64_t thread);
  void run(Job job, void* context) noexcept;

  /// Waits until every thread of the running job has come here. What was written before is seen after.
  void barrier() noexcept;

 private:
  void help(int64_t thread) noexcept;
  static void wait_while(const std::atomic<uint32_t>& word, uint32_t value) noexcept;

  const int64_t threads_;
  Job job_ = nullptr;
  void* context_ = nullptr;
  bool stop_ = false;
  // Each on a cache line of its own: all of them are polled.
  alignas(64) std::atomic<uint32_t> started_{0};  ///< jobs handed out
  alignas(64) std::atomic<uint32_t> met_{0};      ///< barriers passed
  alignas(64) std::atomic<int64_t> here_{0};      ///< threads at the next barrier
  std::vector<std::thread> helpers_;
};

/// The part of [0, total) that is a thread's, in multiples of grain: parts differ by one grain at most.
struct Part {
  int64_t begin, end;
  bool empty() const { return begin >= end; }
  int64_t size() const { return end - begin; }
};
inline Part part_of(int64_t total, int64_t grain, int64_t thread, int64_t threads) {
  const int64_t grains = (total + grain - 1) / grain, begin = grains * thread / threads * grain, end = grains * (thread + 1) / threads * grain;
  return {begin < total ? begin : total, end < total ? end : total};
}

}  // namespace seqboat::runtime
