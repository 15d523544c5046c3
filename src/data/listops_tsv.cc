#include <algorithm>
#include <cstring>

#include "data/listops_tree.h"
#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"
#include "seqboat/base/text.h"
#include "seqboat/data/listops.h"

namespace seqboat::data {
namespace {

constexpr std::string_view kHeader = "Source\tTarget";
constexpr const char* kHeaderInWords = "Source<TAB>Target";

MappedFile open_data(const std::filesystem::path& path) {
  try {
    return MappedFile::open(path);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kFailed) throw;
    throw Error(ErrorKind::kData, error.what());
  }
}

}  // namespace

std::filesystem::path listops_file(const std::filesystem::path& folder, Split split) {
  return folder / (std::string("basic_") + split_name(split) + ".tsv");
}

SequenceDataset read_listops(const std::filesystem::path& path, Split split, const ListopsReadOptions& options) {
  std::error_code ignored;
  return read_listops_tsv(std::filesystem::is_directory(path, ignored) ? listops_file(path, split) : path, options);
}

SequenceDataset read_listops_tsv(const std::filesystem::path& path, const ListopsReadOptions& options) {
  const MappedFile file = open_data(path);
  const std::string where = path.string();
  SEQBOAT_CHECK(file.size() > 0, ErrorKind::kData, "{}: the file is empty: expected the line {} and samples", where, kHeaderInWords);
  std::string_view rest(file.data(), file.size());
  int64_t line_number = 0;
  const auto next_line = [&] {
    const size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    ++line_number;
    return line;
  };
  const std::string_view header = next_line();
  SEQBOAT_CHECK(header == kHeader, ErrorKind::kData, "{}:1: expected the header {}, found {}", where, kHeaderInWords, in_quotes(header));
  SEQBOAT_CHECK(!rest.empty(), ErrorKind::kData, "{}: no samples: expected lines after the header, found the end of the file", where);

  SequenceDataset dataset;
  // A token takes two bytes at least, its blank or tab counted: room for all, of which the system gives out what is used.
  dataset.tokens.reserve(rest.size() / 2 + 1);
  ListopsWalker walker;
  while (!rest.empty()) {
    const std::string_view line = next_line();
    const int64_t columns = 1 + std::count(line.begin(), line.end(), '\t');
    SEQBOAT_CHECK(columns == 2, ErrorKind::kData, "{}:{}: expected 2 columns (an expression, a tab, a label), found {}{}", where, line_number,
                  columns, line.empty() ? " (the line is empty)" : "");
    const size_t tab = line.find('\t');
    const std::string_view source = line.substr(0, tab);
    const std::string_view label = line.substr(tab + 1);
    const size_t first = dataset.tokens.size();
    if (const auto problem = tokenize_listops_into(source, &dataset.tokens)) {
      fail(ErrorKind::kData, "{}:{}: column {}: expected {}, found {}", where, line_number, problem->position + 1, problem->expected, problem->found);
    }
    SEQBOAT_CHECK(dataset.tokens.size() > first, ErrorKind::kData, "{}:{}: expected an expression before the tab, found none", where, line_number);
    SEQBOAT_CHECK(label.size() == 1 && label[0] >= '0' && label[0] <= '9', ErrorKind::kData, "{}:{}: label: expected a digit 0..9, found {}", where,
                  line_number, in_quotes(label, 40));
    int64_t value = 0;
    try {
      value = walker.evaluate({dataset.tokens.data() + first, dataset.tokens.size() - first});
    } catch (const ListopsProblem& problem) {
      fail(ErrorKind::kData, "{}:{}: token {}: expected {}, found {}", where, line_number, problem.position + 1, problem.expected, problem.found);
    }
    SEQBOAT_CHECK(!options.check || value == label[0] - '0', ErrorKind::kData, "{}:{}: label: the expression's value is {}, found {}", where,
                  line_number, value, label);
    dataset.offsets.push_back(static_cast<int64_t>(dataset.tokens.size()));
    dataset.labels.push_back(label[0] - '0');
  }
  return dataset;
}

void write_listops_tsv(const std::filesystem::path& path, const SequenceDataset& dataset, bool parentheses) {
  AtomicFileWriter writer(path);
  writer.append(kHeader);
  writer.append("\n");
  for (int64_t i = 0; i < dataset.size(); ++i) {
    SEQBOAT_CHECK(dataset.labels[i] >= 0 && dataset.labels[i] < kListopsClasses, ErrorKind::kData, "{}: sample {}: label: expected 0..9, found {}",
                  path.string(), i, dataset.labels[i]);
    writer.append(listops_text(dataset.sequence(i), parentheses));
    writer.append(fmt::format("\t{}\n", dataset.labels[i]));
  }
  writer.commit();
}

}  // namespace seqboat::data
