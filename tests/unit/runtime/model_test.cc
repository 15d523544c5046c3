#include "seqboat/runtime/model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"
#include "seqboat/config/model_size.h"
#include "seqboat/runtime/forward.h"
#include "support/runtime_case.h"
#include "unit/base/temp_dir.h"

namespace seqboat {
namespace {

using runtime::Precision;

/// The Error's message and kind, or "" where none is thrown.
template <class F>
std::string message_of(const F& f, ErrorKind kind) {
  try {
    f();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    return error.what();
  }
  return "";
}

#define EXPECT_SAYS(expression, kind, text) \
  EXPECT_NE(message_of([&] { expression; }, kind).find(text), std::string::npos) << message_of([&] { expression; }, kind)

class Folder : public ::testing::Test {
 protected:
  Folder() { runtime::write_random_model(dir_.path(), test::causal_model(), 3); }

  /// Writes the model's tensors again after `change` has had them.
  template <class F>
  void rewrite(const F& change) {
    const SafetensorsFile file = SafetensorsFile::open(dir_.path() / "model.safetensors");
    std::vector<TensorView> tensors = file.tensors();
    change(tensors);
    write_safetensors(dir_.path() / "model.safetensors", tensors);
  }
  static TensorView& find(std::vector<TensorView>& tensors, const std::string& name) {
    for (TensorView& tensor : tensors) {
      if (tensor.name == name) return tensor;
    }
    throw std::runtime_error("no " + name);
  }
  std::string error_of_load(ErrorKind kind = ErrorKind::kModel) {
    return message_of([&] { runtime::load(dir_.path()); }, kind);
  }

  test::TempDir dir_;
};

TEST_F(Folder, LoadsWhatRandomModelMakes) {
  const auto loaded = runtime::load(dir_.path()), made = runtime::random_model(test::causal_model(), 3);
  EXPECT_EQ(loaded->fingerprint(), made->fingerprint());
  EXPECT_NE(loaded->fingerprint(), runtime::random_model(test::causal_model(), 4)->fingerprint());
  EXPECT_EQ(loaded->parameters(), config::parameter_count(test::causal_model()));
  EXPECT_EQ(loaded->outputs(), 30);
  EXPECT_EQ(loaded->weights(), Precision::kFloat32);
  EXPECT_GT(loaded->weight_bytes(), 0);
  EXPECT_GE(loaded->mapped_bytes(), 4 * loaded->parameters());
  const std::vector<int64_t> tokens{1, 2, 3, 4};
  EXPECT_EQ(runtime::forward(loaded, {.tokens = tokens}), runtime::forward(made, {.tokens = tokens}));
}

TEST_F(Folder, NamesTheTensorThatIsWrong) {
  const std::string file = (dir_.path() / "model.safetensors").string();
  rewrite([&](auto& tensors) { tensors.erase(tensors.begin() + 3); });
  EXPECT_NE(error_of_load().find(file + ": tensor "), std::string::npos) << error_of_load();
  EXPECT_NE(error_of_load().find("is missing"), std::string::npos) << error_of_load();

  runtime::write_random_model(dir_.path(), test::causal_model(), 3);
  rewrite([&](auto& tensors) { find(tensors, "encoder.layers.1.layer.skip_proj.bias").shape = {4, 5}; });
  EXPECT_NE(error_of_load().find("'encoder.layers.1.layer.skip_proj.bias': expected the shape [20], found [4, 5]"), std::string::npos)
      << error_of_load();

  runtime::write_random_model(dir_.path(), test::causal_model(), 3);
  rewrite([&](auto& tensors) { find(tensors, "encoder.layers.0.layer.norm.bias").name = "encoder.layers.0.layer.norm.bios"; });
  EXPECT_NE(error_of_load().find("'encoder.layers.0.layer.norm.bias' is missing"), std::string::npos) << error_of_load();

  runtime::write_random_model(dir_.path(), test::causal_model(), 3);
  const float one = 1;
  rewrite([&](auto& tensors) { tensors.push_back({"encoder.final_norm.weigth", DType::kF32, {1}, &one, 4}); });
  EXPECT_NE(error_of_load().find("'encoder.final_norm.weigth' is unknown"), std::string::npos) << error_of_load();

  runtime::write_random_model(dir_.path(), test::causal_model(), 3);
  const std::vector<uint16_t> zeros(20);
  rewrite([&](auto& tensors) {
    TensorView& bias = find(tensors, "encoder.layers.0.layer.norm.bias");
    bias.dtype = DType::kBF16, bias.data = zeros.data(), bias.size_bytes = 40;
  });
  EXPECT_NE(error_of_load().find("'encoder.layers.0.layer.norm.bias': expected the dtype F32, found BF16"), std::string::npos) << error_of_load();

  runtime::write_random_model(dir_.path(), test::causal_model(), 3);
  std::vector<float> bad(20, 1.0f);
  bad[7] = std::numeric_limits<float>::quiet_NaN();
  rewrite([&](auto& tensors) { find(tensors, "encoder.layers.0.layer.norm.bias").data = bad.data(); });
  EXPECT_NE(error_of_load().find("'encoder.layers.0.layer.norm.bias' holds a number that is not finite"), std::string::npos) << error_of_load();
}

TEST_F(Folder, ABrokenFolderIsOneLine) {
  write_file_atomically(dir_.path() / "model.safetensors", "nothing of the kind");
  EXPECT_NE(error_of_load().find("model.safetensors"), std::string::npos);
  std::filesystem::remove(dir_.path() / "model.safetensors");
  EXPECT_NE(error_of_load().find("model.safetensors"), std::string::npos);
  std::filesystem::remove(dir_.path() / "config.json");
  EXPECT_NE(error_of_load().find("config.json"), std::string::npos);
  EXPECT_SAYS(runtime::random_model(test::causal_model(), 3, Precision::kFloat32, {.ring = Precision::kInt8}), ErrorKind::kUsage, "float32 or bf16");
  EXPECT_SAYS(runtime::precision_from_name("fp8"), ErrorKind::kUsage, "float32, bf16 or int8");
}

TEST_F(Folder, QuantisedAsRandomModelIs) {
  for (const Precision type : {Precision::kBf16, Precision::kInt8}) {
    const std::filesystem::path out = dir_.path() / runtime::precision_name(type);
    runtime::quantize(dir_.path(), out, type);
    const auto loaded = runtime::load(out);
    EXPECT_EQ(loaded->weights(), type);
    EXPECT_EQ(loaded->fingerprint(), runtime::random_model(test::causal_model(), 3, type)->fingerprint());
    EXPECT_LT(loaded->mapped_bytes(), runtime::load(dir_.path())->mapped_bytes());
    EXPECT_FALSE(std::filesystem::exists(out.string() + ".partial"));
    EXPECT_SAYS(runtime::quantize(dir_.path(), out, type), ErrorKind::kUsage, "is there already");
    EXPECT_SAYS(runtime::quantize(out, dir_.path() / "again", type), ErrorKind::kModel, "already");
  }
  EXPECT_SAYS(runtime::quantize(dir_.path(), dir_.path() / "x", Precision::kFloat32), ErrorKind::kUsage, "found float32");
  EXPECT_FALSE(std::filesystem::exists(dir_.path() / "x"));
}

// The logits of weights in fewer bits are those of the float32 model with the same rounded weights: read back, widened, and run.
TEST_F(Folder, QuantisedWeightsAreWhatTheFileSays) {
  std::vector<int64_t> tokens;
  for (int64_t i = 0; i < 90; ++i) tokens.push_back(i * 7 % 30);
  const std::vector<uint8_t> forced = test::forced_decisions(2, 90, 0.5, 1);
  for (const Precision type : {Precision::kBf16, Precision::kInt8}) {
    const std::filesystem::path out = dir_.path() / runtime::precision_name(type);
    runtime::quantize(dir_.path(), out, type);
    const SafetensorsFile file = SafetensorsFile::open(out / "model.safetensors");
    std::vector<TensorView> tensors;
    std::vector<std::vector<float>> wide(file.tensors().size());
    for (size_t i = 0; i < file.tensors().size(); ++i) {
      TensorView view = file.tensors()[i];
      if (view.name.ends_with(".scale")) continue;
      if (view.dtype == DType::kBF16 || view.dtype == DType::kI8) {
        const int64_t width = view.shape[1];
        for (int64_t j = 0; j < view.count(); ++j) {
          if (view.dtype == DType::kI8) {
            float scale;
            std::memcpy(&scale, static_cast<const char*>(file.at(view.name + ".scale").data) + j / width * 4, 4);
            wide[i].push_back(scale * static_cast<float>(static_cast<const int8_t*>(view.data)[j]));
          } else {
            uint16_t upper;
            std::memcpy(&upper, static_cast<const char*>(view.data) + 2 * j, 2);
            const uint32_t bits = static_cast<uint32_t>(upper) << 16;
            float value;
            std::memcpy(&value, &bits, 4);
            wide[i].push_back(value);
          }
        }
        view.dtype = DType::kF32, view.data = wide[i].data(), view.size_bytes = wide[i].size() * 4;
      }
      tensors.push_back(view);
    }
    const std::filesystem::path widened = dir_.path() / (std::string(runtime::precision_name(type)) + "-wide");
    std::filesystem::create_directory(widened);
    write_file_atomically(widened / "config.json", read_file(out / "config.json"));
    write_safetensors(widened / "model.safetensors", tensors);
    const std::vector<float> got = runtime::forward(runtime::load(out), {.tokens = tokens, .forced = forced});
    const std::vector<float> want = runtime::forward(runtime::load(widened), {.tokens = tokens, .forced = forced});
    double largest = 0, error = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      largest = std::max(largest, std::abs(static_cast<double>(want[i])));
      error = std::max(error, std::abs(static_cast<double>(want[i]) - static_cast<double>(got[i])));
    }
    if (type == Precision::kBf16) {
      EXPECT_EQ(error, 0);
    }
    // int8 multiplies by the scale after the sum: some roundings more in each of some ten products in a row.
    EXPECT_LE(error, 2000 * 1.2e-7 * largest) << runtime::precision_name(type);
  }
}

TEST(RandomModel, ActivatesSomeTokensAndNotOthers) {
  const auto model = runtime::random_model(test::causal_model(), 3);
  std::vector<int64_t> tokens;
  for (int64_t i = 0; i < 400; ++i) tokens.push_back(i * i % 30);
  runtime::ForwardTrace trace;
  runtime::forward(model, {.tokens = tokens}, {.trace = &trace});
  for (int64_t layer = 0; layer < 2; ++layer) {
    int64_t active = 0;
    for (int64_t t = 0; t < 400; ++t) {
      const bool is_active = trace.active[static_cast<size_t>(layer * 400 + t)] != 0;
      active += is_active ? 1 : 0;
      EXPECT_EQ(is_active, trace.probability[static_cast<size_t>(layer * 400 + t)] > 0.5f);
    }
    EXPECT_GT(active, 40);
    EXPECT_LT(active, 360);
  }
}

TEST(Forward, RefusesWhatItCannotDo) {
  const auto model = runtime::random_model(test::causal_model(), 3);
  const std::vector<int64_t> tokens{1, 2, 30}, good{1, 2, 3}, offsets{0, 2, 2, 3}, beyond{0, 4};
  const std::vector<float> values{1.0f};
  const std::vector<uint8_t> forced{1, 2};
  EXPECT_SAYS(runtime::forward(model, {.tokens = tokens}), ErrorKind::kData, "token 2 must lie in [0, 30), found 30");
  EXPECT_SAYS(runtime::forward(model, {.values = values}), ErrorKind::kUsage, "tokens, not numbers");
  EXPECT_SAYS(runtime::forward(model, {.tokens = good, .cu_seqlens = offsets}), ErrorKind::kData, "sequence 1 is empty");
  EXPECT_SAYS(runtime::forward(model, {.tokens = good, .cu_seqlens = beyond}), ErrorKind::kUsage, "from 0 to 3");
  EXPECT_SAYS(runtime::forward(model, {.tokens = good, .forced = forced}), ErrorKind::kUsage, "(2, 3)");
  const runtime::Sequences second{.tokens = good};
  EXPECT_SAYS(runtime::forward(model, {.tokens = good}, {}, &second), ErrorKind::kUsage, "one sequence");
  config::ModelConfig mega = test::causal_model();
  mega.layer = "mega", mega.max_positions = 2;
  EXPECT_SAYS(runtime::forward(runtime::random_model(mega, 3), {.tokens = good}), ErrorKind::kData, "longer than the position table");
}

}  // namespace
}  // namespace seqboat
