#pragma once

// One problem for the window attention kernels, a runner for them, and the definition as plain float64 loops.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "seqboat/kernels/window_attention.h"
#include "support/guarded.h"

namespace seqboat::test {

struct AttentionCase {
  std::vector<int64_t> lengths;  ///< active tokens of each sequence
  int64_t d_attn = 10, d_hidden = 13;
  int64_t window = 5;
  bool causal = false;
  kernels::AttentionFunction function = kernels::AttentionFunction::kSoftmax;
  kernels::PositionBias bias = kernels::PositionBias::kNone;
  int64_t max_positions = 0;
  int64_t gap = 0;            ///< strides are this much wider than the rows
  int64_t position_step = 3;  ///< original positions advance by 1 .. position_step

  std::string name() const {
    return "function " + std::to_string(static_cast<int>(function)) + " bias " + std::to_string(static_cast<int>(bias)) +
           (causal ? " causal" : " bidirectional") + " window " + std::to_string(window) + " Z " + std::to_string(d_attn) + " H " +
           std::to_string(d_hidden);
  }
};

/// M that the bias kind asks for: 3 W for the window distance; a small one otherwise, so that distances are clamped too.
inline int64_t positions_for(kernels::PositionBias bias, int64_t window) {
  if (bias == kernels::PositionBias::kNone) return 0;
  return bias == kernels::PositionBias::kWindowDistance ? 3 * std::max<int64_t>(window, 0) : 40;
}

template <class T>
struct AttentionTensors {
  std::vector<int64_t> cu;
  std::vector<int64_t> positions;
  kernels::WindowAttentionShape shape;
  Guarded<T> q, k, v, dout, table;

  explicit AttentionTensors(const AttentionCase& c, uint32_t seed = 1)
      : q(0), k(0), v(0), dout(0), table(random_numbers<T>(c.max_positions > 0 ? 2 * c.max_positions - 1 : 0, seed + 50, -0.5, 0.5)) {
    cu.push_back(0);
    std::mt19937 engine(seed);
    for (const int64_t length : c.lengths) {
      int64_t position = static_cast<int64_t>(engine() % 7);
      for (int64_t i = 0; i < length; ++i) {
        positions.push_back(position);
        position += 1 + static_cast<int64_t>(engine()) % c.position_step;
      }
      cu.push_back(cu.back() + length);
    }
    shape = {static_cast<int64_t>(c.lengths.size()),
             cu.data(),
             c.d_attn,
             c.d_hidden,
             c.d_attn + c.gap,
             c.d_attn + 2 * c.gap,
             c.d_hidden + c.gap,
             c.d_hidden + 3 * c.gap,
             c.window,
             c.causal,
             c.function,
             c.bias,
             c.max_positions};
    // Sizes of numbers such that scores reach both sides of every function's bend.
    const double q_range = c.function == kernels::AttentionFunction::kSoftmax ? 1.5 : 2.5;
    q = rows(shape.q_stride, c.d_attn, seed + 10, q_range);
    k = rows(shape.k_stride, c.d_attn, seed + 20, q_range);
    v = rows(shape.v_stride, c.d_hidden, seed + 30, 1);
    dout = rows(shape.out_stride, c.d_hidden, seed + 40, 1);
  }
  AttentionTensors(const AttentionTensors& other) = delete;

  int64_t tokens() const { return cu.back(); }

 private:
  Guarded<T> rows(int64_t stride, int64_t width, uint32_t seed, double range) {
    const Guarded<T> values = random_numbers<T>(tokens() * width, seed, -range, range);
    Guarded<T> out(tokens() * stride);
    for (int64_t i = 0; i < tokens(); ++i) std::copy(values.data() + i * width, values.data() + (i + 1) * width, out.data() + i * stride);
    return out;
  }
};

template <class T>
struct Workspace {
  explicit Workspace(size_t size) : data(static_cast<T*>(::operator new (size * sizeof(T) + 64, std::align_val_t{64}))), size_(size) {
    std::memset(static_cast<void*>(data), 0xff, size * sizeof(T) + 64);
  }
  ~Workspace() { ::operator delete (data, std::align_val_t{64}); }
  Workspace(const Workspace&) = delete;
  bool intact() const {
    const auto* bytes = reinterpret_cast<const unsigned char*>(data + size_);
    return std::all_of(bytes, bytes + 64, [](unsigned char b) { return b == 0xff; });
  }
  T* data;

 private:
  size_t size_;
};

template <class T>
struct AttentionResults {
  Guarded<T> out, lse, dq, dk, dv, dbias, delta;
  explicit AttentionResults(const AttentionTensors<T>& t)
      : out(t.tokens() * t.shape.out_stride),
        lse(t.tokens()),
        dq(t.tokens() * t.shape.q_stride),
        dk(t.tokens() * t.shape.k_stride),
        dv(t.tokens() * t.shape.v_stride),
        dbias(t.table.size()),
        delta(t.tokens()) {
    for (T& entry : dbias) entry = 0;
  }
  bool intact() const { return out.intact() && lse.intact() && dq.intact() && dk.intact() && dv.intact() && dbias.intact() && delta.intact(); }
};

/// Forward over the item ranges [cuts[n], cuts[n+1]), and each phase of the backward over ranges in proportion.
template <class T>
void run_attention(const AttentionTensors<T>& t, const std::vector<int64_t>& cuts, AttentionResults<T>* r) {
  const Workspace<T> workspace(kernels::window_attention_workspace_size<T>(t.shape));
  const bool softmax = t.shape.function == kernels::AttentionFunction::kSoftmax;
  T* lse = softmax ? r->lse.data() : nullptr;
  T* delta = softmax ? r->delta.data() : nullptr;
  const int64_t* positions = t.shape.bias == kernels::PositionBias::kOriginalDistance ? t.positions.data() : nullptr;
  const T* table = t.shape.bias == kernels::PositionBias::kNone ? nullptr : t.table.data();
  T* dbias = table == nullptr ? nullptr : r->dbias.data();
  for (size_t n = 0; n + 1 < cuts.size(); ++n) {
    kernels::window_attention_fwd(t.shape, cuts[n], cuts[n + 1], t.q.data(), t.k.data(), t.v.data(), positions, table, r->out.data(), lse,
                                  workspace.data);
  }
  const int64_t items = std::max<int64_t>(1, kernels::window_attention_items(t.shape));
  for (int64_t phase = 0; phase < kernels::window_attention_bwd_phases(t.shape); ++phase) {
    const int64_t phase_items = kernels::window_attention_bwd_items(t.shape, phase);
    for (size_t n = 0; n + 1 < cuts.size(); ++n) {
      kernels::window_attention_bwd<T>(t.shape, phase, cuts[n] * phase_items / items, cuts[n + 1] * phase_items / items, t.q.data(), t.k.data(),
                                       t.v.data(), positions, table, r->out.data(), lse, t.dout.data(), r->dq.data(), r->dk.data(), r->dv.data(),
                                       dbias, delta, workspace.data);
    }
  }
  EXPECT_TRUE(workspace.intact());
}

template <class T>
AttentionResults<T> run_attention(const AttentionTensors<T>& t) {
  AttentionResults<T> results(t);
  run_attention(t, {0, kernels::window_attention_items(t.shape)}, &results);
  return results;
}

/// Values of the definition, and for each row how far a computation in unit roundoff eps may lie from them (first order, every sum at its worst).
struct AttentionReference {
  std::vector<double> out, lse, dq, dk, dv, dbias;                                      // rows without gaps
  std::vector<double> out_error, lse_error, dq_error, dk_error, dv_error, dbias_error;  // one a row (an entry for dbias)
};

/// eps: unit roundoff of the kernel's type; function_error: absolute error of erf and relative error of exp, in eps.
template <class T>
AttentionReference attention_reference(const AttentionTensors<T>& t, double eps, double function_error) {
  using kernels::AttentionFunction;
  using kernels::PositionBias;
  const auto& s = t.shape;
  const int64_t Z = s.d_attn, H = s.d_hidden, total = t.tokens();
  constexpr double kMean = 0.707107, kSpread = 0.282095 * 1.41421356237309504880;
  AttentionReference ref;
  const auto make = [](int64_t n) { return std::vector<double>(static_cast<size_t>(n), 0.0); };
  ref.out = make(total * H), ref.lse = make(total), ref.dq = make(total * Z), ref.dk = make(total * Z), ref.dv = make(total * H);
  ref.dbias = make(t.table.size());
  ref.out_error = make(total), ref.lse_error = make(total), ref.dq_error = make(total), ref.dk_error = make(total), ref.dv_error = make(total);
  ref.dbias_error = make(t.table.size());
  std::vector<double> dbias_size = make(t.table.size());
  std::vector<double> dbias_count = make(t.table.size());
  std::vector<double> dk_each = make(total * Z), dv_each = make(total * H);  // error bounds of single elements
  for (int64_t b = 0; b < s.batch; ++b) {
    const int64_t begin = t.cu[static_cast<size_t>(b)], n = t.cu[static_cast<size_t>(b) + 1] - begin;
    for (int64_t i = 0; i < n; ++i) {
      const T* q = t.q.data() + (begin + i) * s.q_stride;
      const T* dout = t.dout.data() + (begin + i) * s.out_stride;
      std::vector<int64_t> keys;
      for (int64_t j = 0; j < n; ++j) {
        if (s.causal && j > i) continue;
        if (s.window >= 0 && (i - j > s.window || j - i > s.window)) continue;
        keys.push_back(j);
      }
      double scale = 1 / std::sqrt(static_cast<double>(Z));
      if (s.function != AttentionFunction::kSoftmax) {
        const int64_t length = s.window >= 0 ? std::max<int64_t>(1, s.window) * (s.causal ? 1 : 2) : s.causal ? i + 1 : n;
        scale = 1 / static_cast<double>(length);
      }
      const size_t m = keys.size();
      std::vector<double> score(m), score_error(m), weight(m), weight_error(m), slope(m), bend(m);
      std::vector<int64_t> entry(m, -1);
      double highest = -std::numeric_limits<double>::infinity();
      for (size_t a = 0; a < m; ++a) {
        const int64_t j = keys[a];
        const T* k = t.k.data() + (begin + j) * s.k_stride;
        double dot = 0, size = 0;
        for (int64_t z = 0; z < Z; ++z) {
          dot += static_cast<double>(q[z]) * static_cast<double>(k[z]);
          size += std::abs(static_cast<double>(q[z]) * static_cast<double>(k[z]));
        }
        double bias = 0;
        if (t.table.size() > 0) {
          const int64_t M = s.max_positions;
          if (s.bias == PositionBias::kOriginalDistance) {
            const int64_t distance = t.positions[static_cast<size_t>(begin + j)] - t.positions[static_cast<size_t>(begin + i)];
            entry[a] = std::clamp<int64_t>(M - 1 + distance, 0, 2 * M - 2);
          } else {
            entry[a] = M - 1 + s.window + j - i;
          }
          bias = static_cast<double>(t.table[entry[a]]);
        }
        score[a] = scale * dot + bias;
        score_error[a] = eps * ((static_cast<double>(Z) + 4) * scale * size + 2 * std::abs(bias));
        highest = std::max(highest, score[a]);
      }
      double sum = 0, worst_score = 0;
      for (size_t a = 0; a < m; ++a) worst_score = std::max(worst_score, score_error[a] + eps * (std::abs(score[a]) + std::abs(highest)));
      for (size_t a = 0; a < m; ++a) {
        if (s.function == AttentionFunction::kSoftmax) {
          weight[a] = std::exp(score[a] - highest);
          sum += weight[a];
        } else if (s.function == AttentionFunction::kRelu2) {
          const double r = std::max(score[a], 0.0);
          weight[a] = r * r, slope[a] = 2 * r, bend[a] = 2;
          weight_error[a] = slope[a] * score_error[a] + score_error[a] * score_error[a] + 2 * eps * weight[a];
        } else {
          const double x = (score[a] - kMean) / kSpread;
          weight[a] = 0.5 * (1 + std::erf(x));
          slope[a] = std::exp(-x * x) / (kSpread * 1.77245385090551602730);
          bend[a] = slope[a] * 2 * std::abs(x) / kSpread;
          weight_error[a] = slope[a] * (score_error[a] + 4 * eps * (std::abs(score[a]) + 1)) + function_error * eps + 2 * eps;
          // The slope's own error: the argument x^2 is rounded too.
          bend[a] += slope[a] * eps * (function_error + 4 + 4 * x * x) / std::max(score_error[a], eps * 1e-3);
        }
      }
      const double keys_count = static_cast<double>(m);
      double delta = 0, delta_error = 0;
      std::vector<double> grad(m), grad_error(m);
      for (size_t a = 0; a < m; ++a) {
        if (s.function != AttentionFunction::kSoftmax) continue;
        weight[a] /= sum;
        weight_error[a] = weight[a] * (4 * worst_score + eps * (keys_count + 2 * function_error + 8));
      }
      if (s.function == AttentionFunction::kSoftmax) {
        ref.lse[static_cast<size_t>(begin + i)] = highest + std::log(sum);
        ref.lse_error[static_cast<size_t>(begin + i)] =
            2 * worst_score + eps * (keys_count + function_error + 8 + 2 * std::abs(highest + std::log(sum)));
      }
      for (int64_t h = 0; h < H; ++h) {
        double out = 0, error = 0;
        for (size_t a = 0; a < m; ++a) {
          const double v = static_cast<double>(t.v[(begin + keys[a]) * s.v_stride + h]);
          out += weight[a] * v;
          error += (weight_error[a] + eps * (keys_count + 8) * std::abs(weight[a])) * std::abs(v);
        }
        ref.out[static_cast<size_t>((begin + i) * H + h)] = out;
        ref.out_error[static_cast<size_t>(begin + i)] = std::max(ref.out_error[static_cast<size_t>(begin + i)], error);
        delta += out * static_cast<double>(dout[h]);
        delta_error += std::abs(static_cast<double>(dout[h])) * (error + eps * (static_cast<double>(H) + 8) * std::abs(out));
      }
      for (size_t a = 0; a < m; ++a) {
        const T* v = t.v.data() + (begin + keys[a]) * s.v_stride;
        double dweight = 0, dweight_error = 0;
        for (int64_t h = 0; h < H; ++h) {
          dweight += static_cast<double>(dout[h]) * static_cast<double>(v[h]);
          dweight_error += eps * (static_cast<double>(H) + 8) * std::abs(static_cast<double>(dout[h]) * static_cast<double>(v[h]));
        }
        if (s.function == AttentionFunction::kSoftmax) {
          grad[a] = weight[a] * (dweight - delta);
          grad_error[a] = weight_error[a] * std::abs(dweight - delta) + weight[a] * (dweight_error + delta_error) + 4 * eps * std::abs(grad[a]) +
                          2 * eps * weight[a] * (std::abs(dweight) + std::abs(delta));
          // The weight is made again from the rounded log-sum-exp.
          grad_error[a] += weight[a] * (ref.lse_error[static_cast<size_t>(begin + i)] + 2 * worst_score) * std::abs(dweight - delta);
        } else {
          grad[a] = slope[a] * dweight;
          grad_error[a] = bend[a] * score_error[a] * std::abs(dweight) + slope[a] * dweight_error + 4 * eps * std::abs(grad[a]);
        }
        if (entry[a] >= 0) {
          const auto e = static_cast<size_t>(entry[a]);
          ref.dbias[e] += grad[a];
          ref.dbias_error[e] += grad_error[a];
          dbias_size[e] += std::abs(grad[a]);
          dbias_count[e] += 1;
        }
      }
      double dq_error = 0;
      for (int64_t z = 0; z < Z; ++z) {
        double dq = 0, error = 0;
        for (size_t a = 0; a < m; ++a) {
          const double k = static_cast<double>(t.k[(begin + keys[a]) * s.k_stride + z]);
          dq += scale * grad[a] * k;
          error += scale * std::abs(k) * (grad_error[a] + eps * (keys_count + 8) * std::abs(grad[a]));
          ref.dk[static_cast<size_t>((begin + keys[a]) * Z + z)] += scale * grad[a] * static_cast<double>(q[z]);
          dk_each[static_cast<size_t>((begin + keys[a]) * Z + z)] +=
              scale * std::abs(static_cast<double>(q[z])) * (grad_error[a] + eps * (static_cast<double>(n) + 8) * std::abs(grad[a]));
        }
        ref.dq[static_cast<size_t>((begin + i) * Z + z)] = dq;
        dq_error = std::max(dq_error, error);
      }
      ref.dq_error[static_cast<size_t>(begin + i)] = dq_error;
      for (int64_t h = 0; h < H; ++h) {
        for (size_t a = 0; a < m; ++a) {
          const auto at = static_cast<size_t>((begin + keys[a]) * H + h);
          ref.dv[at] += weight[a] * static_cast<double>(dout[h]);
          double error = weight_error[a] + eps * (static_cast<double>(n) + 8) * weight[a];
          if (s.function == AttentionFunction::kSoftmax) error += weight[a] * (ref.lse_error[static_cast<size_t>(begin + i)] + 2 * worst_score);
          dv_each[at] += std::abs(static_cast<double>(dout[h])) * error;
        }
      }
    }
  }
  for (int64_t i = 0; i < total; ++i) {
    const auto row = static_cast<size_t>(i);
    ref.dk_error[row] = *std::max_element(dk_each.begin() + i * Z, dk_each.begin() + (i + 1) * Z);
    ref.dv_error[row] = *std::max_element(dv_each.begin() + i * H, dv_each.begin() + (i + 1) * H);
  }
  for (size_t e = 0; e < ref.dbias.size(); ++e) ref.dbias_error[e] += eps * (dbias_count[e] + 8) * dbias_size[e];
  return ref;
}

}  // namespace seqboat::test
