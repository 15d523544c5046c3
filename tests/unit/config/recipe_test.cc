#include "seqboat/config/recipe.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "seqboat/base/error.h"
#include "seqboat/config/keys.h"

namespace seqboat::config {
namespace {

const char* const kSmall = R"([model]
d_model = 16
d_attn = 8
n_layers = 2
window_size = 4

[task]
classes = 10

[train]
steps = 100
batch_size = 4
)";

// The message and kind of what a call throws; "" if it does not.
std::pair<std::string, ErrorKind> thrown(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return {error.what(), error.kind()};
  }
  return {"", ErrorKind::kFailed};
}

void expect_refused(const std::string& text, const std::vector<std::string>& overrides, const std::vector<std::string>& parts) {
  const auto [message, kind] = thrown([&] { recipe_from_toml(text, "r.toml", overrides); });
  EXPECT_EQ(kind, ErrorKind::kConfig) << text;
  EXPECT_FALSE(message.empty()) << "accepted:\n" << text;
  for (const std::string& part : parts) EXPECT_NE(message.find(part), std::string::npos) << "'" << part << "' is not in '" << message << "'";
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
}

std::string with(const std::string& section, const std::string& line) {
  std::string text = kSmall;
  const std::string head = "[" + section + "]\n";
  const size_t at = text.find(head);
  if (at == std::string::npos) return text + "\n" + head + line + "\n";
  return text.insert(at + head.size(), line + "\n");
}

TEST(Recipe, ReadsAndKeepsDefaults) {
  const Recipe recipe = recipe_from_toml(kSmall, "r.toml");
  EXPECT_EQ(recipe.model.d_model, 16);
  EXPECT_EQ(recipe.model.hidden(), 32);
  EXPECT_EQ(recipe.model.attention, "softmax");
  EXPECT_EQ(recipe.optim.betas[1], 0.98);
  EXPECT_EQ(recipe.data.train_examples, 96000);
  EXPECT_EQ(recipe.schedule_steps(), 100);
}

TEST(Recipe, MisspeltKeyNamesLineAndNearest) {
  expect_refused(with("model", "d_modle = 3"), {}, {"r.toml:2", "model.d_modle", "did you mean model.d_model?"});
  expect_refused(with("model", "windowsize = 3"), {}, {"model.windowsize", "did you mean model.window_size?"});
  expect_refused(with("train", "lr = 0.1"), {}, {"unknown key train.lr", "did you mean optim.lr?"});
  expect_refused(with("router", "target_share = 0.1"), {}, {"unknown key router.target_share"});
  expect_refused(with("optimizer", "lr = 0.1"), {}, {"unknown section [optimizer]", "did you mean optim?"});
  expect_refused(with("optimizer", ""), {}, {"unknown section [optimizer]"});
  expect_refused("d_model = 3\n" + std::string(kSmall), {}, {"r.toml:1", "d_model stands outside a section", "did you mean model.d_model?"});
  expect_refused(std::string("model = 3\n"), {}, {"r.toml:1", "[model] must be a section", "an integer, 3"});
  expect_refused("[[model]]\nd_model = 3\n", {}, {"[model] must be a section", "an array"});
  expect_refused(with("model", "router.kind = \"x\""), {}, {"unknown key model.router"});
  // The first fault of the file is the one that is named.
  expect_refused(with("task", "zebra = 1\nantelope = 2"), {}, {"task.zebra"});
}

TEST(Recipe, WrongTypesNameBoth) {
  expect_refused(with("optim", "lr = \"fast\""), {}, {"optim.lr must be a number, found a string, \"fast\""});
  expect_refused(with("model", "truncation = 1.5"), {}, {"r.toml:2", "model.truncation must be an integer, found a number with a fraction, 1.5"});
  expect_refused(with("model", "prenorm = 1"), {}, {"model.prenorm must be true or false, found an integer, 1"});
  expect_refused(with("model", "norm = false"), {}, {"model.norm must be a string, found false"});
  expect_refused(with("optim", "betas = [0.9]"), {}, {"optim.betas must be a pair of numbers, found an array of 1"});
  expect_refused(with("model", "dropout = 1979-05-27"), {}, {"found a date"});
  expect_refused(with("model", "truncation = 99999999999999999999"), {}, {"r.toml:2"});
  // A whole number is a number.
  EXPECT_EQ(recipe_from_toml(with("model", "dropout = 0"), "r.toml").model.dropout, 0.0);
}

TEST(Recipe, BrokenTomlNamesLineAndColumn) {
  expect_refused("[model\nd_model = 3\n", {}, {"r.toml:1:"});
  expect_refused("[model]\nd_model = 3\nd_model = 4\n", {}, {"r.toml:3:"});
  expect_refused(std::string("\x7f\x45\x4c\x46\x00\x01", 6), {}, {"r.toml:1:"});
  expect_refused(std::string(100000, '['), {}, {"r.toml:1:"});
  expect_refused("", {}, {"model.d_model"});
}

TEST(Recipe, LettersBeyondAsciiStandInTextAlone) {
  // Letters from every range that the parser looks up, where a key or a value begins, and after either.
  for (const char* letter : {"\u00e9", "\u0289", "\u0490", "\u1700", "\u2100", "\u3041", "\u540d", "\uff21", "\uffbf", "\U00010400"}) {
    for (const char* form : {"{}", "{} = 1", "name{} = 1", "name = {}", "name = 1 {}", "[{}]", "[model]{}"})
      expect_refused(fmt::format(fmt::runtime(form), letter) + "\n", {}, {"r.toml:1:"});
    EXPECT_EQ(recipe_from_toml(fmt::format("# {}\n{}", letter, kSmall), "r.toml").model.d_model, 16);
  }
  // Nor are spaces beyond ASCII TOML's.
  expect_refused("name\u3000= 1\n", {}, {"r.toml:1:"});
}

TEST(Recipe, ImpossibleSizesAreNamedByKey) {
  expect_refused(kSmall, {"model.d_model=0"}, {"--set model.d_model=0", "model.d_model", "in [1, 65536], found 0"});
  expect_refused(kSmall, {"model.d_model=-3"}, {"found -3"});
  expect_refused(kSmall, {"model.d_model=9223372036854775807"}, {"model.d_model"});
  expect_refused(kSmall, {"model.d_attn=7", "model.position=rotary"}, {"--set model.d_attn=7", "must be even", "model.position", "rotary"});
  expect_refused(kSmall, {"model.window_size=0", "model.position=local"}, {"model.window_size", "at least 1", "local"});
  expect_refused(kSmall, {"model.d_model=15", "model.sinusoidal=true"}, {"model.d_model must be even"});
  expect_refused(kSmall, {"model.window_size=-1"}, {"model.window_size"});
  expect_refused(kSmall, {"model.dropout=1"}, {"model.dropout", "[0, 1)", "found 1.0"});
  expect_refused(kSmall, {"model.dropout=nan"}, {"model.dropout"});
  expect_refused(kSmall, {"optim.lr=inf"}, {"optim.lr"});
  expect_refused(kSmall, {"optim.lr=0"}, {"optim.lr", "above 0"});
  expect_refused(kSmall, {"optim.betas=[0.9, 1.0]"}, {"optim.betas", "[0.9, 1.0]"});
  expect_refused(kSmall, {"model.attention=softmx"}, {"model.attention", "\"relu2\"", "found \"softmx\"", "did you mean softmax?"});
  expect_refused(kSmall, {"task.classes=1"}, {"task.classes", "at least 2"});
  expect_refused(kSmall, {"task.kind=language-model"}, {"model.causal must be true"});
  expect_refused(kSmall, {"task.nli=true"}, {"task.nli"});
  expect_refused(kSmall, {"model.prenorm=true", "model.embedding_norm=true"}, {"model.embedding_norm"});
  expect_refused(kSmall, {"train.steps=0"}, {"train.steps"});
  expect_refused(kSmall, {"train.batch_size=0"}, {"train.batch_size or train.max_tokens"});
  expect_refused(kSmall, {"optim.warmup=101"}, {"optim.warmup must be at most train.steps = 100"});
  expect_refused(kSmall, {"optim.schedule=inverse-sqrt"}, {"optim.warmup must be at least 1"});
  expect_refused(kSmall, {"data.max_length=500"}, {"data.max_length", "502"});
  expect_refused(kSmall, {"data.max_depth=3", "data.max_args=10"}, {"data.min_length must be below 122"});
  expect_refused(kSmall, {"data.name=listop"}, {"did you mean listops?"});
  expect_refused("[model]\nn_layers = 3\n", {}, {"r.toml: model.d_model", "found 0, its default (the key is not set)"});
}

TEST(Recipe, OverridesAreTyped) {
  const Recipe recipe =
      recipe_from_toml(kSmall, "r.toml",
                       {"model.d_model=32", "optim.lr = 5e-4", "model.prenorm=true", "model.attention=relu2", "model.norm=\"rmsnorm\"",
                        "optim.betas=[0.8,0.9]", "data.path=/a path/with = and \"quotes\"", "model.d_model=48"});
  EXPECT_EQ(recipe.model.d_model, 48);  // the last one counts
  EXPECT_EQ(recipe.optim.lr, 5e-4);
  EXPECT_TRUE(recipe.model.prenorm);
  EXPECT_EQ(recipe.model.attention, "relu2");
  EXPECT_EQ(recipe.model.norm, "rmsnorm");
  EXPECT_EQ(recipe.optim.betas[0], 0.8);
  EXPECT_EQ(recipe.data.path, "/a path/with = and \"quotes\"");

  expect_refused(kSmall, {"model.d_modle=3"}, {"--set model.d_modle=3", "did you mean model.d_model?"});
  expect_refused(kSmall, {"model.d_model"}, {"expected section.key=value"});
  expect_refused(kSmall, {"d_model=3"}, {"expected section.key=value"});
  expect_refused(kSmall, {"data.path"}, {"expected section.key=value"});
  expect_refused(kSmall, {"model.d_model=many"}, {"model.d_model must be an integer, found many"});
  expect_refused(kSmall, {"model.d_model="}, {"found nothing"});
  expect_refused(kSmall, {"model.d_model=3\nn_layers = 4"}, {"expected one value"});
  expect_refused(kSmall, {"data.path=\xff\xfe"}, {"data.path must be a string"});
}

TEST(Recipe, MissingFileIsWrongUsage) {
  const auto [message, kind] = thrown([] { load_recipe("/nowhere/x.toml"); });
  EXPECT_EQ(kind, ErrorKind::kUsage);
  EXPECT_NE(message.find("/nowhere/x.toml"), std::string::npos);
}

TEST(Recipe, PrintsWhatItReads) {
  const Recipe recipe = recipe_from_toml(kSmall, "r.toml", {"data.path=a\"b\\c\td\x01", "optim.lr=0.1", "optim.eps=1e-8"});
  const std::string text = to_toml(recipe);
  const Recipe again = recipe_from_toml(text, "config.toml");
  EXPECT_EQ(to_json(again), to_json(recipe));
  EXPECT_EQ(to_toml(again), text);
}

RC_GTEST_PROP(Recipe, RoundTripsAnyNumbers, ()) {
  Recipe recipe = recipe_from_toml(kSmall, "r.toml");
  recipe.optim.lr = *rc::gen::suchThat(rc::gen::arbitrary<double>(), [](double v) { return v > 0 && v < 1e300; });
  recipe.optim.weight_decay = 1.0 / (1.0 + static_cast<double>(*rc::gen::inRange<int>(0, 1 << 30)));
  recipe.train.steps = *rc::gen::inRange<int64_t>(1, 1'000'000'000'000'000);
  const Recipe again = recipe_from_toml(to_toml(recipe), "config.toml");
  RC_ASSERT(again.optim.lr == recipe.optim.lr);
  RC_ASSERT(again.optim.weight_decay == recipe.optim.weight_decay);
  RC_ASSERT(again.train.steps == recipe.train.steps);
}

TEST(Recipe, JsonHasEverySectionAndKey) {
  const nlohmann::ordered_json json = to_json(recipe_from_toml(kSmall, "r.toml"));
  for (const Key& key : keys()) EXPECT_TRUE(json.at(key.section).contains(key.name)) << key.path();
  EXPECT_EQ(json["optim"]["betas"][1], 0.98);
}

TEST(Recipe, SyntheticDataNeedTheirSizes) {
  expect_refused(kSmall, {"data.length=5"}, {"--set data.length=5", "belongs to data.name = \"needle\" or \"mqar\" or \"synthetic\""});
  expect_refused(kSmall, {"data.name=synthetic", "model.vocab_size=9"}, {"data.length must be at least 1", "found 0, its default"});
  expect_refused(kSmall, {"data.name=synthetic", "data.length=5"}, {"model.vocab_size must be at least 1", "found 0, its default"});
  const Recipe recipe = recipe_from_toml(kSmall, "r.toml", {"data.name=synthetic", "data.length=5", "model.input=real"});
  EXPECT_EQ(recipe.data.length, 5);
}

TEST(Recipe, TheTargetOfRoutersFallsEvenly) {
  RouterPenaltyConfig router{.target_rate = 0.2, .target_weight = 1};
  EXPECT_EQ(router.target_at(0), 0.2);
  router.anneal_begin = 10;
  router.anneal_end = 30;
  EXPECT_EQ(router.target_at(0), 1);
  EXPECT_EQ(router.target_at(10), 1);
  EXPECT_DOUBLE_EQ(router.target_at(20), 0.6);
  EXPECT_DOUBLE_EQ(router.target_at(29), 0.24);
  EXPECT_EQ(router.target_at(30), 0.2);
  router.anneal_begin = 30;
  EXPECT_EQ(router.target_at(29), 1);
  EXPECT_EQ(router.target_at(30), 0.2);
  expect_refused(kSmall, {"router.anneal_end=5"}, {"router.anneal_end has no effect", "router.target_weight"});
  expect_refused(kSmall, {"router.target_weight=1", "router.anneal_begin=6", "router.anneal_end=5"},
                 {"router.anneal_begin must be at most router.anneal_end = 5", "found 6"});
}

TEST(Recipe, RecallNeedsRoomForItsQuestions) {
  expect_refused(kSmall, {"data.pairs=4"}, {"belongs to data.name = \"needle\" or \"mqar\""});
  expect_refused(kSmall, {"data.name=mqar", "data.length=11", "data.pairs=4"},
                 {"data.length must be at least 12 for mqar with data.pairs = 4", "found 11"});
}

// Every recipe of the repository reads, names its command in its opening comment, and survives being resolved.
TEST(Recipe, ShippedRecipesAreValid) {
  int count = 0;
  const std::filesystem::path root = std::filesystem::path(SEQBOAT_SOURCE_DIR) / "recipes";
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
    if (entry.path().extension() != ".toml") continue;
    ++count;
    const Recipe recipe = load_recipe(entry.path());
    EXPECT_EQ(to_json(recipe_from_toml(to_toml(recipe), "config.toml")), to_json(recipe));
    std::ifstream file(entry.path());
    const std::string text((std::istreambuf_iterator<char>(file)), {});
    const std::string name = std::filesystem::relative(entry.path(), root).replace_extension().generic_string();
    EXPECT_EQ(text.substr(0, 2), "# ") << entry.path();
    const std::string command = (recipe.data.name == "synthetic" ? "seqboat bench --recipe " : "seqboat train ") + name;
    EXPECT_NE(text.find(command), std::string::npos) << entry.path() << " does not open with its command";
  }
  EXPECT_GE(count, 3);
}

}  // namespace
}  // namespace seqboat::config
