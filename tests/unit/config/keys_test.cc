#include "seqboat/config/keys.h"

#include <gtest/gtest.h>

#include <fstream>
#include <set>

namespace seqboat::config {
namespace {

TEST(Keys, NamesAndFieldsAreUnique) {
  std::set<std::string> paths;
  std::set<std::string> json_names;
  std::set<const void*> addresses;
  Recipe recipe;
  for (const Key& key : keys()) {
    EXPECT_TRUE(paths.insert(key.path()).second) << key.path();
    if (*key.json_name != '\0') {
      EXPECT_TRUE(json_names.insert(key.json_name).second) << key.json_name;
    }
    const void* address = std::visit([](auto* p) -> const void* { return p; }, key.ref(recipe));
    EXPECT_TRUE(addresses.insert(address).second) << key.path();
    EXPECT_STRNE(key.doc, "") << key.path();
  }
}

TEST(Keys, SectionsInTheirOrder) {
  EXPECT_EQ(sections(), (std::vector<std::string>{"model", "router", "task", "data", "optim", "train", "expect"}));
}

// Every default that a user need not set obeys the key's own bounds.
TEST(Keys, DefaultsObeyTheirBounds) {
  const std::set<std::string> must_be_set = {"model.d_model", "model.d_attn", "model.n_layers", "train.steps"};
  const Recipe recipe;
  for (const Key& key : keys()) {
    const ConstFieldRef value = field(key, recipe);
    double number = key.limits.min;
    if (const auto* p = std::get_if<const int64_t*>(&value)) number = static_cast<double>(**p);
    if (const auto* p = std::get_if<const double*>(&value)) number = **p;
    if (must_be_set.count(key.path()) != 0) {
      EXPECT_LT(number, key.limits.min) << key.path();
    } else {
      EXPECT_GE(number, key.limits.min) << key.path();
      EXPECT_LE(number, key.limits.max) << key.path();
    }
  }
}

TEST(Keys, NearestWord) {
  const std::vector<std::string> words = {"train", "eval", "inspect", "recipes", "data", "version"};
  EXPECT_EQ(nearest("trian", words), "train");
  EXPECT_EQ(nearest("recipe", words), "recipes");
  EXPECT_EQ(nearest("dta", words), "data");
  EXPECT_EQ(nearest("xyzzy", words), "");
  EXPECT_EQ(nearest("", words), "");
  EXPECT_EQ(nearest(std::string(1 << 20, 'a'), words), "");
}

// docs/CONFIG.md holds the tables as printed: `seqboat recipes keys` prints them.
TEST(Keys, DocumentationIsUpToDate) {
  std::ifstream file(SEQBOAT_SOURCE_DIR "/docs/CONFIG.md");
  ASSERT_TRUE(file) << "docs/CONFIG.md is missing";
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  EXPECT_NE(text.find(keys_markdown()), std::string::npos)
      << "docs/CONFIG.md differs from the list of keys; put in what `seqboat recipes keys` prints";
}

}  // namespace
}  // namespace seqboat::config
