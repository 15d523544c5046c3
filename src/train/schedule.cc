#include "seqboat/train/schedule.h"

#include <algorithm>
#include <cmath>

#include "seqboat/base/error.h"
#include "seqboat/base/text.h"

namespace seqboat::train {

ScheduleOptions ScheduleOptions::from_recipe(const config::Recipe& recipe) {
  const config::OptimConfig& optim = recipe.optim;
  ScheduleOptions options{.lr = optim.lr,
                          .warmup = optim.warmup,
                          .warmup_init_lr = optim.warmup_init_lr,
                          .total_steps = recipe.schedule_steps(),
                          .power = optim.power,
                          .end_lr = optim.end_lr};
  if (optim.schedule == "linear-decay") {
    options.kind = ScheduleKind::kLinearDecay;
  } else if (optim.schedule == "polynomial-decay") {
    options.kind = ScheduleKind::kPolynomialDecay;
  } else if (optim.schedule == "inverse-sqrt") {
    options.kind = ScheduleKind::kInverseSqrt;
  } else if (optim.schedule == "constant") {
    options.kind = ScheduleKind::kConstant;
  } else {
    fail(ErrorKind::kConfig, "optim.schedule: expected linear-decay, polynomial-decay, inverse-sqrt or constant, found {}",
         in_quotes(optim.schedule));
  }
  return options;
}

Schedule::Schedule(const ScheduleOptions& options) : options_(options) {
  SEQBOAT_CHECK(options_.warmup >= 0, ErrorKind::kConfig, "optim.warmup: expected 0 or more, found {}", options_.warmup);
  SEQBOAT_CHECK(options_.total_steps >= 0, ErrorKind::kConfig, "optim.total_steps: expected 0 or more, found {}", options_.total_steps);
  options_.warmup_init_lr = std::max(options_.warmup_init_lr, 0.0);
}

double Schedule::value(int64_t updates_done) const {
  const ScheduleOptions& o = options_;
  const double n = static_cast<double>(updates_done), warmup = static_cast<double>(o.warmup), total = static_cast<double>(o.total_steps);
  switch (o.kind) {
    case ScheduleKind::kLinearDecay:
      if (o.warmup > 0 && updates_done <= o.warmup) return o.warmup_init_lr + (o.lr - o.warmup_init_lr) * std::pow(n / warmup, o.power);
      if (updates_done >= o.total_steps) return o.end_lr;
      return o.end_lr + (o.lr - o.end_lr) * (total - n) / (total - warmup);
    case ScheduleKind::kPolynomialDecay:
      if (o.warmup > 0 && updates_done <= o.warmup) return o.lr * (n / warmup);
      if (updates_done >= o.total_steps) return o.end_lr;
      return (o.lr - o.end_lr) * std::pow(1.0 - (n - warmup) / (total - warmup), o.power) + o.end_lr;
    case ScheduleKind::kInverseSqrt:
    case ScheduleKind::kConstant:
      if (updates_done < o.warmup) return o.warmup_init_lr + n * ((o.lr - o.warmup_init_lr) / warmup);
      if (o.kind == ScheduleKind::kConstant) return o.lr;
      return o.lr * std::sqrt(std::max(warmup, 1.0)) / std::sqrt(std::max(n, 1.0));
  }
  return o.lr;
}

}  // namespace seqboat::train
