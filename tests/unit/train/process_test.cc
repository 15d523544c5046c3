#include "seqboat/train/process.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <atomic>
#include <cmath>
#include <filesystem>
#include <limits>
#include <new>
#include <nlohmann/json.hpp>

#include "unit/base/temp_dir.h"

namespace seqboat::train {
namespace {

using seqboat::test::expect_error;

TEST(TranslatedErrors, EachBecomesItsKind) {
  const auto translated = [](auto body) { return [body] { with_translated_errors(body); }; };
  expect_error(ErrorKind::kData, {"as it is"}, translated([] { throw Error(ErrorKind::kData, "as it is"); }));
  expect_error(ErrorKind::kResource, {"out of memory"}, translated([] { throw std::bad_alloc(); }));
  expect_error(ErrorKind::kResource, {"out of memory", "tried to allocate"}, translated([] { torch::empty({int64_t{1} << 50}); }));
  expect_error(ErrorKind::kFailed, {"the first line"}, translated([] { TORCH_CHECK(false, "the first line\nand more"); }));
  expect_error(ErrorKind::kFailed, {"nowhere"}, translated([] { static_cast<void>(std::filesystem::file_size("/nowhere/at/all")); }));
  EXPECT_EQ(with_translated_errors([] { return 7; }), 7);
}

TEST(TorchJson, TellsWhatIsLoaded) {
  const nlohmann::ordered_json json = torch_json();
  EXPECT_EQ(json["version"], json["built_for"]);
  EXPECT_NE(json["library"].get<std::string>().find("libtorch_cpu"), std::string::npos) << json;
  EXPECT_NE(json["capability"], "");
}

TEST(PrepareProcess, SetsThreadsAndFlushesDenormalsInEachOfThem) {
  const int before = at::get_num_threads();
  EXPECT_EQ(prepare_process(3), 3);
  EXPECT_EQ(at::get_num_threads(), 3);
  std::atomic<int> kept{0};
  at::parallel_for(0, 3, 1, [&](int64_t, int64_t) {
    volatile float tiny = std::numeric_limits<float>::min();
    if (tiny * 0.5F != 0.0F) ++kept;
  });
  EXPECT_EQ(kept, 0);
  EXPECT_GE(prepare_process(0), 1);
  at::set_num_threads(before);
}

TEST(MachineJson, NamesTheMachine) {
  const auto json = machine_json();
  for (const char* key : {"simd", "torch", "compiler", "cpu"}) EXPECT_FALSE(json.at(key).get<std::string>().empty()) << key;
}

}  // namespace
}  // namespace seqboat::train
