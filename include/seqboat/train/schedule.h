#pragma once

#include <cstdint>

#include "seqboat/config/recipe.h"

namespace seqboat::train {

enum class ScheduleKind { kLinearDecay, kPolynomialDecay, kInverseSqrt, kConstant };

struct ScheduleOptions {
  ScheduleKind kind = ScheduleKind::kLinearDecay;
  double lr = 1e-3;             ///< the peak, at the end of the warm-up
  int64_t warmup = 0;           ///< W, updates; 0 = none
  double warmup_init_lr = 0.0;  ///< init, where the warm-up begins; negative counts as 0. polynomial-decay always begins at 0
  int64_t total_steps = 0;      ///< Ntot, where the decay ends
  double power = 1.0;           ///< linear-decay: of the warm-up; polynomial-decay: of the decay
  double end_lr = 0.0;          ///< end, from Ntot on

  /// Of a recipe's [optim]; total_steps falls back to train.steps. Error (kConfig) for an unknown name.
  static ScheduleOptions from_recipe(const config::Recipe& recipe);
};

/// The learning rate of an update, as a function of the number of updates done before it: the first runs at value(0), the second at value(1).
///
///                 n <= W                          W < n < Ntot                                        n >= Ntot
///   linear        init + (lr - init) (n/W)^power  end + (lr - end) (Ntot - n) / (Ntot - W)            end
///   polynomial    lr n/W                          (lr - end) (1 - (n - W) / (Ntot - W))^power + end   end
///   inverse-sqrt  n < W: init + n (lr - init)/W   n >= W: lr sqrt(max(W, 1)) / sqrt(max(n, 1))
///   constant      n < W: init + n (lr - init)/W   n >= W: lr
///
/// All in double. Without a warm-up (W = 0) the first column does not exist.
class Schedule {
 public:
  /// Error (kConfig): a negative W or Ntot, or a decay that would end within its warm-up (0 < Ntot < W is allowed: it then drops to end after W).
  explicit Schedule(const ScheduleOptions& options);
  double value(int64_t updates_done) const;
  const ScheduleOptions& options() const { return options_; }

 private:
  ScheduleOptions options_;
};

}  // namespace seqboat::train
