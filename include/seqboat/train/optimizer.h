#pragma once

#include <torch/torch.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "seqboat/config/recipe.h"

namespace seqboat::train {

struct NamedParameter {
  std::string name;
  torch::Tensor tensor;  ///< contiguous, float32 or float64, on the CPU
};

/// The parameters of a module in the order of its named_parameters(), each once: a matrix that two modules share comes under its first name.
std::vector<NamedParameter> parameters_of(const torch::nn::Module& module);

/// What a step multiplies the gradients with.
struct GradientScale {
  double norm;    ///< of all scaled gradients together, before clipping
  double factor;  ///< scale min(1, clip_norm / (norm + 1e-6))
};

/// The norm of all gradients times `scale` (1 / sample size, gradients being sums), and the factor that scales and clips them; clip_norm <= 0 is off.
/// One pass that only reads: Optimizer::step takes the factor. The norm is rounded to the parameters' type. Squares are summed in double, within a
/// tensor and over the tensors in their order, so the norm has the same bits at any thread count. A missing gradient is zero. Where the norm is not
/// finite nothing is clipped: the caller stops.
GradientScale gradient_scale(const std::vector<NamedParameter>& parameters, double scale, double clip_norm);

/// The same, and the gradients are multiplied by the factor: for those who look at them afterwards. Returns the norm.
double scale_and_clip_gradients(const std::vector<NamedParameter>& parameters, double scale, double clip_norm);

struct OptimizerOptions {
  std::array<double, 2> betas{0.9, 0.98};  ///< b1, b2
  double eps = 1e-8;
  double weight_decay = 0.0;  ///< wd
};

/// Turns gradients into steps. All parameters are one group: weight decay applies to each of them. A missing gradient counts as zero.
/// With g the gradient and t the number of this step, from 1 on, both kinds keep
///   m <- b1 m + (1 - b1) g        v <- b2 v + (1 - b2) g^2
/// element by element in the parameter's type, so the result does not depend on the number of threads; scale factors are computed in double.
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  /// One step with gradient_factor times the gradients that stand in the parameters' .grad(), which stay as they are.
  void step(double lr, double gradient_factor = 1.0);
  /// Drops every gradient.
  void zero_grad();

  int64_t steps() const { return steps_; }  ///< steps done
  const std::vector<NamedParameter>& parameters() const { return parameters_; }

  /// The state beside steps(): "exp_avg.<parameter>" (m) and "exp_avg_sq.<parameter>" (v), sharing memory with the optimizer: to save from and to
  /// load into.
  std::vector<NamedParameter> state() const;
  void set_steps(int64_t steps) { steps_ = steps; }

 protected:
  Optimizer(std::vector<NamedParameter> parameters, const OptimizerOptions& options);

  /// The two factors of a step: p <- p - decay p - rate * m / (adaptive ? sqrt(v) + eps : 1).
  struct Factors {
    double decay;
    double rate;
    bool adaptive;
  };
  virtual Factors factors(double lr, int64_t t) const = 0;
  const OptimizerOptions& options() const { return options_; }

 private:
  std::vector<NamedParameter> parameters_;
  OptimizerOptions options_;
  std::vector<torch::Tensor> exp_avg_;
  std::vector<torch::Tensor> exp_avg_sq_;
  int64_t steps_ = 0;
};

/// p <- p - lr wd p, then p <- p - lr sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps). Note that eps is added to the uncorrected root.
class Adam : public Optimizer {
 public:
  Adam(std::vector<NamedParameter> parameters, const OptimizerOptions& options) : Optimizer(std::move(parameters), options) {}

 protected:
  Factors factors(double lr, int64_t t) const override;
};

/// Rectified Adam. p <- p - lr wd p, then with rho_inf = 2/(1 - b2) - 1 and rho = rho_inf - 2 t b2^t / (1 - b2^t):
///   rho >= 5: p <- p - lr sqrt((1 - b2^t) (rho - 4)/(rho_inf - 4) (rho - 2)/rho rho_inf/(rho_inf - 2)) / (1 - b1^t) * m / (sqrt(v) + eps)
///   else      p <- p - lr / (1 - b1^t) * m
class RAdam : public Optimizer {
 public:
  RAdam(std::vector<NamedParameter> parameters, const OptimizerOptions& options) : Optimizer(std::move(parameters), options) {}

 protected:
  Factors factors(double lr, int64_t t) const override;
};

/// The optimizer that [optim] names (adam | radam). Error (kConfig) for another name.
std::unique_ptr<Optimizer> make_optimizer(const config::OptimConfig& config, std::vector<NamedParameter> parameters);

}  // namespace seqboat::train
