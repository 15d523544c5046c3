#include "runtime/team.h"

#include "seqboat/kernels/simd.h"

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace seqboat::runtime {
namespace {

constexpr int kSpins = 2000;

void pause_briefly() noexcept {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#endif
}

}  // namespace

Team::Team(int64_t threads) : threads_(threads) {
  helpers_.reserve(static_cast<size_t>(threads));
  try {
    for (int64_t i = 1; i < threads; ++i) helpers_.emplace_back([this, i] { help(i); });
  } catch (...) {
    // Those that were made wait for a job that will not come.
    stop_ = true;
    started_.fetch_add(1, std::memory_order_release);
    started_.notify_all();
    for (std::thread& helper : helpers_) helper.join();
    throw;
  }
}

Team::~Team() {
  stop_ = true;
  started_.fetch_add(1, std::memory_order_release);
  started_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
}

void Team::wait_while(const std::atomic<uint32_t>& word, uint32_t value) noexcept {
  for (int i = 0; i < kSpins; ++i) {
    if (word.load(std::memory_order_acquire) != value) return;
    pause_briefly();
  }
  while (word.load(std::memory_order_acquire) == value) word.wait(value, std::memory_order_acquire);
}

void Team::run(Job job, void* context) noexcept {
  if (threads_ > 1) {
    job_ = job;
    context_ = context;
    started_.fetch_add(1, std::memory_order_release);
    started_.notify_all();
  }
  job(context, 0);
  barrier();
}

void Team::barrier() noexcept {
  if (threads_ == 1) return;
  const uint32_t before = met_.load(std::memory_order_relaxed);
  if (here_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
    here_.store(0, std::memory_order_relaxed);
    met_.fetch_add(1, std::memory_order_release);
    met_.notify_all();
  } else {
    wait_while(met_, before);
  }
}

void Team::help(int64_t thread) noexcept {
  const kernels::FlushDenormals flush;
  for (uint32_t seen = 0;; ++seen) {
    wait_while(started_, seen);
    if (stop_) return;
    job_(context_, thread);
    barrier();
  }
}

}  // namespace seqboat::runtime
