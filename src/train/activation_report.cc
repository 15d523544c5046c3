#include "train/activation_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "train/text.h"

namespace seqboat::train {
namespace {

using nlohmann::ordered_json;
using trace::ModuleActivation;
using trace::Share;

/// Where one row of a table, or one member of an object, finds its share.
struct Row {
  std::string label;
  std::function<const Share&(const ModuleActivation&)> share;
};
struct Table {
  std::string name;  ///< by_class
  std::vector<Row> rows;
};

std::vector<Table> tables_of(const trace::StatsOptions& options) {
  Table positions{"by_position", {}}, tenths{"by_tenth", {}};
  for (int bin = 0; bin < trace::kPositionBins; ++bin) {
    positions.rows.push_back({trace::position_bin_label(bin), [bin](const ModuleActivation& m) -> const Share& { return m.by_position[bin]; }});
  }
  for (int tenth = 0; tenth < trace::kTenths; ++tenth) {
    tenths.rows.push_back({trace::tenth_label(tenth), [tenth](const ModuleActivation& m) -> const Share& { return m.by_tenth[tenth]; }});
  }
  std::vector<Table> tables{std::move(positions), std::move(tenths)};
  for (size_t g = 0; g < options.groupings.size(); ++g) {
    Table table{"by_" + options.groupings[g].name, {}};
    for (size_t i = 0; i < options.groupings[g].labels.size(); ++i) {
      table.rows.push_back({options.groupings[g].labels[i], [g, i](const ModuleActivation& m) -> const Share& { return m.by_group[g][i]; }});
    }
    tables.push_back(std::move(table));
  }
  return tables;
}

std::string amount(double value) {
  if (value < 1e6) return fmt::format("{:.1f} k", value / 1e3);
  return value < 1e9 ? fmt::format("{:.2f} M", value / 1e6) : fmt::format("{:.2f} G", value / 1e9);
}

}  // namespace

ordered_json activation_json(const trace::ActivationStats& stats, bool weighted_span) {
  const std::vector<Table> tables = tables_of(stats.options());
  ordered_json json = ordered_json::array();
  for (int64_t layer = 0; layer < stats.layers(); ++layer) {
    ordered_json modules = ordered_json::object();
    for (int64_t m = 0; m < stats.modules(); ++m) {
      const ModuleActivation& at = stats.at(layer, m);
      ordered_json one = {{"rate", at.all.rate()}, {"rate_of_sequences", {{"mean", at.sequences.mean()}, {"deviation", at.sequences.deviation()}}}};
      for (const Table& table : tables) {
        ordered_json rates = ordered_json::object();
        for (const Row& row : table.rows) {
          const Share& share = row.share(at);
          if (share.tokens > 0) rates[row.label] = {{"tokens", share.tokens}, {"rate", share.rate()}};
        }
        one[table.name] = rates;
      }
      one["gaps"] = {{"mean", at.gaps.mean()}, {"median", at.gaps.median()}, {"max", at.gaps.max()}};
      one["span"] = at.span.mean();
      one["weighted_span"] = weighted_span ? ordered_json(at.weighted_span.mean()) : ordered_json(nullptr);
      modules[stats.options().modules[static_cast<size_t>(m)].name] = one;
    }
    json.push_back({{"modules", modules}});
  }
  return json;
}

ordered_json flops_json(const FlopsCount& flops) {
  ordered_json layers = ordered_json::array();
  for (const FlopsCount::Layer& layer : flops.layers()) layers.push_back({{"spent", layer.spent}, {"dense", layer.dense}});
  const auto tokens = static_cast<double>(std::max<int64_t>(1, flops.tokens()));
  return {{"spent", flops.spent()},
          {"dense", flops.dense()},
          {"share", flops.share()},
          {"per_token", flops.spent() / tokens},
          {"outside_layers", flops.outside()},
          {"per_layer", layers}};
}

std::string flops_line(const FlopsCount& flops) {
  const auto tokens = static_cast<double>(std::max<int64_t>(1, flops.tokens()));
  return fmt::format("FLOPs             {} a token, {:.1f} % of dense ({} with every token activated)\n", amount(flops.spent() / tokens),
                     100 * flops.share(), amount(flops.dense() / tokens));
}

std::string activation_tables(const trace::ActivationStats& stats) {
  std::string text;
  for (int64_t m = 0; m < stats.modules(); ++m) {
    const std::string& module = stats.options().modules[static_cast<size_t>(m)].name;
    const auto line = [&](const std::string& label, const std::string& tokens, const std::function<std::string(const ModuleActivation&)>& cell) {
      text += fmt::format("  {:<18}{:>12}", label, tokens);
      for (int64_t layer = 0; layer < stats.layers(); ++layer) text += fmt::format("{:>9}", cell(stats.at(layer, m)));
      text += "\n";
    };
    const auto heading = [&](const std::string& what, const char* count) {
      text += fmt::format("  {:<18}{:>12}", what, count);
      for (int64_t layer = 0; layer < stats.layers(); ++layer) text += fmt::format("{:>9}", fmt::format("layer {}", layer));
      text += "\n";
    };
    text += fmt::format("Activation of {}, by layer:\n", module);
    for (const Table& table : tables_of(stats.options())) {
      std::string title = table.name;
      std::replace(title.begin(), title.end(), '_', ' ');
      heading(title, "tokens");
      for (const Row& row : table.rows) {
        const int64_t tokens = stats.layers() > 0 ? row.share(stats.at(0, m)).tokens : 0;
        if (tokens > 0) line(row.label, with_commas(tokens), [&](const ModuleActivation& at) { return fmt::format("{:.2f}", row.share(at).rate()); });
      }
    }
    heading("over sequences", "");
    line("mean rate", "", [](const ModuleActivation& at) { return fmt::format("{:.2f}", at.sequences.mean()); });
    line("its deviation", "", [](const ModuleActivation& at) { return fmt::format("{:.2f}", at.sequences.deviation()); });
    heading("gaps, in tokens", "");
    line("mean", "", [](const ModuleActivation& at) { return fmt::format("{:.2f}", at.gaps.mean()); });
    line("median", "", [](const ModuleActivation& at) { return fmt::format("{:.1f}", at.gaps.median()); });
    line("largest", "", [](const ModuleActivation& at) { return std::to_string(at.gaps.max()); });
  }
  return text;
}

std::string intervention_table(const std::vector<std::string>& words, const std::vector<const Evaluation*>& results,
                               const std::vector<std::string>& metrics) {
  std::string text =
      fmt::format("  {:<10}{:>14}{:>10}{:>12}  {}\n", "decisions", results.at(0)->metric.name, "loss", "of dense", "activation rate by layer");
  for (size_t i = 0; i < words.size(); ++i) {
    text += fmt::format("  {:<10}{:>14}{:>10.4f}{:>12}  {}\n", words[i], metrics[i], results[i]->score.loss(),
                        fmt::format("{:.1f} %", 100 * results[i]->flops.share()), rates_text(results[i]->activation_rate));
  }
  return text;
}

}  // namespace seqboat::train
