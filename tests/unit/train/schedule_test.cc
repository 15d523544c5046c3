#include "seqboat/train/schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>

#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"

namespace seqboat::train {
namespace {

double first_of(const nlohmann::json& value) {
  return value.is_array() ? value.at(0).get<double>() : value.get<double>();
}

TEST(Schedule, AgreesWithTheOfficialValues) {
  const auto cases = nlohmann::json::parse(read_file(std::string(SEQBOAT_SOURCE_DIR) + "/tests/golden/official/lr_schedules.json"));
  int schedules = 0;
  for (const auto& [name, entry] : cases.items()) {
    if (!entry.is_object()) continue;
    SCOPED_TRACE(name);
    const std::string kind = entry.contains("scheduler") ? entry["scheduler"] : entry["lr_scheduler"];
    ScheduleOptions options;
    options.lr = first_of(entry["lr"]);
    options.warmup = entry["warmup_updates"];
    options.warmup_init_lr = entry.value("warmup_init_lr", 0.0);
    options.total_steps = entry.value("total_num_update", int64_t{0});
    options.end_lr = entry.value("end_learning_rate", 0.0);
    if (kind == "linear_decay") {
      options.kind = ScheduleKind::kLinearDecay;
      options.power = entry["warmup_power"];
    } else if (kind == "polynomial_decay") {
      options.kind = ScheduleKind::kPolynomialDecay;
      options.power = entry["power"];
    } else {
      ASSERT_EQ(kind, "inverse_sqrt");
      options.kind = ScheduleKind::kInverseSqrt;
    }
    const Schedule schedule(options);
    for (const auto& point : entry["values"]) {
      const double want = point[1];
      // A few roundings of the peak's size.
      const double tolerance = 8 * std::numeric_limits<double>::epsilon() * std::max(std::abs(want), 1e-3 * options.lr);
      EXPECT_NEAR(schedule.value(point[0].get<int64_t>()), want, tolerance) << "after " << point[0] << " updates";
    }
    ++schedules;
  }
  EXPECT_GE(schedules, 10);
}

TEST(Schedule, ConstantWarmsUpLinearly) {
  const Schedule schedule({.kind = ScheduleKind::kConstant, .lr = 0.5, .warmup = 4, .warmup_init_lr = 0.1});
  EXPECT_DOUBLE_EQ(schedule.value(0), 0.1);
  EXPECT_DOUBLE_EQ(schedule.value(2), 0.3);
  EXPECT_DOUBLE_EQ(schedule.value(4), 0.5);
  EXPECT_DOUBLE_EQ(schedule.value(1'000'000'000), 0.5);
}

TEST(Schedule, WithoutWarmupBeginsAtThePeak) {
  for (const ScheduleKind kind : {ScheduleKind::kLinearDecay, ScheduleKind::kPolynomialDecay, ScheduleKind::kInverseSqrt, ScheduleKind::kConstant}) {
    const Schedule schedule({.kind = kind, .lr = 0.25, .warmup = 0, .warmup_init_lr = 1e-7, .total_steps = 10});
    EXPECT_DOUBLE_EQ(schedule.value(0), 0.25);
  }
}

TEST(Schedule, NegativeInitialRateCountsAsZero) {
  const Schedule schedule({.lr = 1.0, .warmup = 10, .warmup_init_lr = -1, .total_steps = 100});
  EXPECT_EQ(schedule.value(0), 0.0);
  EXPECT_DOUBLE_EQ(schedule.value(5), 0.5);
}

TEST(Schedule, DecayInsideTheWarmupDropsAfterIt) {
  const Schedule schedule({.lr = 1.0, .warmup = 10, .total_steps = 5, .end_lr = 0.125});
  EXPECT_DOUBLE_EQ(schedule.value(10), 1.0);
  EXPECT_DOUBLE_EQ(schedule.value(11), 0.125);
}

TEST(Schedule, FromRecipe) {
  config::Recipe recipe;
  recipe.optim = {.lr = 0.004, .schedule = "polynomial-decay", .warmup = 3, .power = 2, .end_lr = 1e-5};
  recipe.train.steps = 77;
  const ScheduleOptions options = ScheduleOptions::from_recipe(recipe);
  EXPECT_EQ(options.kind, ScheduleKind::kPolynomialDecay);
  EXPECT_EQ(options.total_steps, 77);
  EXPECT_EQ(options.warmup, 3);
  EXPECT_EQ(options.lr, 0.004);
  recipe.optim.schedule = "cosine";
  EXPECT_THROW(ScheduleOptions::from_recipe(recipe), Error);
  EXPECT_THROW(Schedule({.warmup = -1}), Error);
}

}  // namespace
}  // namespace seqboat::train
