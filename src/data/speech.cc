#include "seqboat/data/speech.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <tuple>

#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"
#include "seqboat/base/text.h"
#include "seqboat/data/frames.h"

namespace seqboat::data {
namespace {

namespace fs = std::filesystem;

constexpr Split kSplits[] = {Split::kTrain, Split::kValid, Split::kTest};
constexpr int64_t kAscRecord = 16000;  // bytes, and samples a second: a record is one second
constexpr int64_t kFsddTest = 5;       // recordings 0 .. 4 of each digit and speaker
constexpr int64_t kFsddValid = 10;     // 5 .. 9

bool is_file(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

bool is_folder(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

std::string lower(std::string text) {
  for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return text;
}

bool is_sound(const fs::path& path) {
  const std::string extension = lower(path.extension().string());
  return extension == ".wav" || extension == ".flac";
}

/// Names in a folder that a test takes, in order; those that begin with a dot are passed over.
template <class Test>
std::vector<std::string> names_in(const fs::path& folder, const Test& test) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    std::string name = entry->path().filename().string();
    if (!name.starts_with('.') && test(*entry)) names.push_back(std::move(name));
  }
  SEQBOAT_CHECK(!error, ErrorKind::kData, "{}: cannot be read: {}", folder.string(), error.message());
  std::sort(names.begin(), names.end());
  return names;
}

/// Folders that stand for a word: names with '_' in front are noise and the like, as in Speech Commands.
std::vector<std::string> word_folders(const fs::path& where) {
  return names_in(where, [](const fs::directory_entry& entry) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with('_') || !is_folder(entry.path())) return false;
    std::error_code error;
    for (fs::directory_iterator file(entry.path(), error), end; !error && file != end; file.increment(error)) {
      if (is_sound(file->path())) return true;
    }
    return false;
  });
}

std::optional<int64_t> number_of(std::string_view text) {
  int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  const bool plain = !text.empty() && text[0] >= '0' && text[0] <= '9' && (text.size() == 1 || text[0] != '0');
  if (!plain || error != std::errc() || stop != end) return std::nullopt;
  return value;
}

/// The same on every machine, and well mixed in its high bits.
uint64_t hash_of(std::string_view text) {
  uint64_t hash = checksum(text.data(), text.size());
  hash ^= hash >> 33;
  hash *= 0xff51afd7ed558ccd;
  return hash ^ hash >> 33;
}

std::string some_of(const std::vector<std::string>& names) {
  constexpr size_t kShown = 12;
  const auto end = names.begin() + static_cast<std::ptrdiff_t>(std::min(kShown, names.size()));
  return fmt::format("{}{}", fmt::join(names.begin(), end, ", "), names.size() > kShown ? ", ..." : "");
}

std::string text_of(const fs::path& file) {
  try {
    return read_file(file);
  } catch (const Error& error) {
    throw Error(ErrorKind::kData, error.what());
  }
}

/// Calls line(text, number from 1 on) for each line, LF or CRLF.
template <class Line>
void for_each_line(std::string_view text, const Line& line) {
  for (int64_t number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view row = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (!row.empty() && row.back() == '\r') row.remove_suffix(1);
    line(row, number);
  }
}

const char* how_to_get(SpeechForm form) {
  switch (form) {
    case SpeechForm::kSpeechCommands:
      return "Get Speech Commands (speech_commands_v0.02.tar.gz, from download.tensorflow.org/data), unpack it, and name its folder with --data DIR; "
             "any "
             "folder with a folder of sound files for each word will do";
    case SpeechForm::kFsdd:
      return "Get the Free Spoken Digit Dataset (github.com/Jakobovski/free-spoken-digit-dataset) and name its folder, or that of its recordings, "
             "with --data DIR";
    case SpeechForm::kAsc10:
      return "They are made from the Arabic Speech Commands Dataset (github.com/abdulkaderghandoura/arabic-speech-commands-dataset): records of "
             "16,000 "
             "mu-law bytes, one second at 16 kHz, beside a .tsv with record, label, keyword, speaker and source_file; name their folder with --data "
             "DIR";
  }
  return "";
}

// --- speech-commands ---

/// Who speaks: Speech Commands names a file SPEAKER_nohash_NUMBER.wav.
std::string speaker_of(const std::string& name) {
  size_t end = name.find("_nohash_");
  if (end == std::string::npos) end = name.find('_');
  return name.substr(0, end == std::string::npos ? name.find_last_of('.') : end);
}

/// The words of a list as WORD/FILE, with the lines they stand in.
std::map<std::string, int64_t> read_list(const fs::path& file) {
  std::map<std::string, int64_t> out;
  for_each_line(text_of(file), [&](std::string_view row, int64_t number) {
    if (!row.empty()) out.emplace(row, number);
  });
  return out;
}

/// WORD/FILE -> split, as the lists say.
std::map<std::string, Split> splits_by_lists(const fs::path& where, const std::vector<std::string>& words,
                                             const std::map<std::string, Split>& everything) {
  std::map<std::string, Split> out = everything;
  const std::pair<Split, const char*> lists[] = {{Split::kValid, "validation_list.txt"}, {Split::kTest, "testing_list.txt"}};
  for (const auto& [split, name] : lists) {
    const fs::path list = where / name;
    SEQBOAT_CHECK(is_file(list), ErrorKind::kData,
                  "{}: no such file: the official split needs validation_list.txt and testing_list.txt; data.split = \"speakers\" or \"stratified\" "
                  "does without (--set data.split=speakers)",
                  list.string());
    for (const auto& [path, line] : read_list(list)) {
      const std::string word = path.substr(0, path.find('/'));
      if (std::find(words.begin(), words.end(), word) == words.end()) continue;
      const auto found = out.find(path);
      SEQBOAT_CHECK(found != out.end(), ErrorKind::kData, "{}:{}: names {}, which is not in {}", list.string(), line, in_quotes(path),
                    where.string());
      SEQBOAT_CHECK(found->second == Split::kTrain, ErrorKind::kData, "{}:{}: names {}, which the other list has, too", list.string(), line,
                    in_quotes(path));
      found->second = split;
    }
  }
  return out;
}

std::vector<std::string> commands_labels(const fs::path& where, const SpeechListOptions& options) {
  const std::vector<std::string> folders = word_folders(where);
  if (options.words.empty()) return folders;
  for (const std::string& word : options.words) {
    SEQBOAT_CHECK(std::find(folders.begin(), folders.end(), word) != folders.end(), ErrorKind::kData,
                  "{}: expected a folder with sound files for the word {}, found the folders {}", where.string(), in_quotes(word), some_of(folders));
    SEQBOAT_CHECK(std::count(options.words.begin(), options.words.end(), word) == 1, ErrorKind::kConfig, "data.words names {} twice",
                  in_quotes(word));
  }
  return options.words;
}

ClipList list_commands(const fs::path& where, Split split, const SpeechListOptions& options) {
  ClipList out;
  out.labels = commands_labels(where, options);
  std::map<std::string, Split> split_of;  // by WORD/FILE
  std::vector<std::vector<std::string>> files;
  for (const std::string& word : out.labels) {
    files.push_back(names_in(where / word, [](const fs::directory_entry& entry) { return is_sound(entry.path()) && is_file(entry.path()); }));
    for (const std::string& name : files.back()) split_of.emplace(word + "/" + name, Split::kTrain);
  }
  if (options.split == SpeechSplit::kOfficial) {
    split_of = splits_by_lists(where, out.labels, split_of);
  } else if (options.split == SpeechSplit::kSpeakers) {
    for (auto& [path, of] : split_of) {
      const uint64_t percent = hash_of(speaker_of(path.substr(path.find('/') + 1))) % 100;
      of = percent < 10 ? Split::kTest : percent < 20 ? Split::kValid : Split::kTrain;
    }
  } else {
    for (size_t label = 0; label < files.size(); ++label) {
      std::vector<std::string> order = files[label];
      std::stable_sort(order.begin(), order.end(), [](const std::string& a, const std::string& b) { return hash_of(a) < hash_of(b); });
      const size_t n = order.size(), train = n - 2 * (n * 15 / 100);
      for (size_t i = train; i < n; ++i) split_of[out.labels[label] + "/" + order[i]] = i < (train + n) / 2 ? Split::kValid : Split::kTest;
    }
  }
  for (size_t label = 0; label < files.size(); ++label) {
    for (const std::string& name : files[label]) {
      const std::string& word = out.labels[label];
      if (split_of.at(word + "/" + name) != split) continue;
      out.clips.push_back({.file = where / word / name, .label = static_cast<int64_t>(label), .speaker = speaker_of(name)});
    }
  }
  // By the name of the file, which begins with a hash of the speaker: any prefix has clips of most words.
  std::stable_sort(out.clips.begin(), out.clips.end(), [](const Clip& a, const Clip& b) { return a.file.filename() < b.file.filename(); });
  return out;
}

// --- fsdd ---

struct Recording {
  Clip clip;
  int64_t index = 0;
};

std::vector<Recording> read_recordings(const fs::path& where) {
  std::vector<Recording> out;
  for (const std::string& name : names_in(where, [](const fs::directory_entry& entry) { return is_sound(entry.path()); })) {
    const std::string_view stem = std::string_view(name).substr(0, name.find_last_of('.'));
    const size_t first = std::min(stem.find('_'), stem.size()), last = stem.find_last_of('_');
    const auto digit = number_of(stem.substr(0, first));
    const auto index = number_of(last == std::string_view::npos ? std::string_view() : stem.substr(last + 1));
    SEQBOAT_CHECK(digit && *digit <= 9 && index && last > first + 1, ErrorKind::kData,
                  "{}: expected files named DIGIT_SPEAKER_INDEX.wav (7_jackson_32.wav), found {}", where.string(), in_quotes(name));
    out.push_back({{.file = where / name, .label = *digit, .speaker = std::string(stem.substr(first + 1, last - first - 1))}, *index});
  }
  // First takes first, speaker by speaker: any prefix has all digits.
  const auto key = [](const Recording& r) { return std::tie(r.index, r.clip.speaker, r.clip.label); };
  std::stable_sort(out.begin(), out.end(), [&](const Recording& a, const Recording& b) { return key(a) < key(b); });
  return out;
}

ClipList list_fsdd(const fs::path& where, Split split, const SpeechListOptions& options) {
  SEQBOAT_CHECK(options.split != SpeechSplit::kStratified, ErrorKind::kConfig,
                "data.split: expected \"official\" or \"speakers\" for fsdd, found \"stratified\"");
  const bool by_speakers = options.split == SpeechSplit::kSpeakers;
  std::vector<Recording> recordings = read_recordings(where);
  std::set<std::string> names;
  for (const Recording& r : recordings) names.insert(r.clip.speaker);
  const std::vector<std::string> speakers(names.begin(), names.end());
  const auto is_held_out = [&](const std::string& speaker) {
    return std::find(options.test_speakers.begin(), options.test_speakers.end(), speaker) != options.test_speakers.end();
  };
  if (by_speakers) {
    SEQBOAT_CHECK(!options.test_speakers.empty(), ErrorKind::kConfig, "data.test_speakers: expected one or more of {}, found none",
                  some_of(speakers));
    for (const std::string& speaker : options.test_speakers) {
      SEQBOAT_CHECK(names.count(speaker) == 1, ErrorKind::kConfig, "data.test_speakers: expected one or more of {}, found {}", some_of(speakers),
                    in_quotes(speaker));
    }
    SEQBOAT_CHECK(!std::all_of(speakers.begin(), speakers.end(), is_held_out), ErrorKind::kConfig,
                  "data.test_speakers: expected at least one of {} to train on, found none", some_of(speakers));
  }
  ClipList out;
  for (int digit = 0; digit <= 9; ++digit) out.labels.push_back(std::to_string(digit));
  for (Recording& r : recordings) {
    Split of = Split::kTrain;
    if (by_speakers) {
      if (is_held_out(r.clip.speaker)) {
        of = Split::kTest;
      } else if (r.index < kFsddTest) {
        of = Split::kValid;
      }
    } else if (r.index < kFsddTest) {
      of = Split::kTest;
    } else if (r.index < kFsddValid && !options.validate_on_test) {
      of = Split::kValid;
    }
    const bool wanted = of == split || (of == Split::kTest && split == Split::kValid && options.validate_on_test);
    if (wanted) out.clips.push_back(std::move(r.clip));
  }
  return out;
}

// --- asc10 ---

fs::path asc_file(const fs::path& where, Split split, const char* ending) {
  return where / fmt::format("asc10_{}{}", split_name(split), ending);
}

struct AscRow {
  int64_t label = 0;
  std::string keyword, speaker;
};

/// The .tsv: record, label, keyword, speaker, source_file under a line with these words.
std::vector<AscRow> read_asc_rows(const fs::path& file) {
  const std::string where = file.string(), text = text_of(file);
  SEQBOAT_CHECK(!text.empty(), ErrorKind::kData, "{}: the file is empty: expected a line for each record", where);
  std::vector<AscRow> rows;
  for_each_line(text, [&](std::string_view line, int64_t number) {
    std::vector<std::string_view> cells;
    for (std::string_view rest = line;;) {
      const size_t end = std::min(rest.find('\t'), rest.size());
      cells.push_back(rest.substr(0, end));
      if (end == rest.size()) break;
      rest.remove_prefix(end + 1);
    }
    SEQBOAT_CHECK(cells.size() == 5, ErrorKind::kData,
                  "{}:{}: expected 5 columns (record, label, keyword, speaker and source_file, a tab between them), found {}", where, number,
                  cells.size());
    if (number == 1 && cells[0] == "record") return;
    const auto record = number_of(cells[0]), label = number_of(cells[1]);
    SEQBOAT_CHECK(record && *record == static_cast<int64_t>(rows.size()), ErrorKind::kData, "{}:{}: record: expected {}, found {}", where, number,
                  rows.size(), in_quotes(cells[0], 40));
    SEQBOAT_CHECK(label && *label < 1000, ErrorKind::kData, "{}:{}: label: expected a number from 0 to 999, found {}", where, number,
                  in_quotes(cells[1], 40));
    SEQBOAT_CHECK(!cells[2].empty(), ErrorKind::kData, "{}:{}: keyword: expected a word, found none", where, number);
    rows.push_back({*label, std::string(cells[2]), std::string(cells[3])});
  });
  SEQBOAT_CHECK(!rows.empty(), ErrorKind::kData, "{}: expected a line for each record, found none", where);
  return rows;
}

/// The keyword of each label, by all files that are there: a split alone may lack one.
std::vector<std::string> asc_labels(const fs::path& where) {
  std::map<int64_t, std::string> found;
  for (const Split split : kSplits) {
    const fs::path file = asc_file(where, split, ".tsv");
    if (!is_file(file)) continue;
    for (const AscRow& row : read_asc_rows(file)) {
      const std::string& keyword = found.emplace(row.label, row.keyword).first->second;
      SEQBOAT_CHECK(keyword == row.keyword, ErrorKind::kData, "{}: label {} is {} and {}: expected one keyword", file.string(), row.label,
                    in_quotes(keyword), in_quotes(row.keyword));
    }
  }
  std::vector<std::string> labels;
  for (const auto& [label, keyword] : found) {
    SEQBOAT_CHECK(label == static_cast<int64_t>(labels.size()), ErrorKind::kData, "{}: expected labels from 0 on without a gap, found no {}",
                  where.string(), labels.size());
    labels.push_back(keyword);
  }
  return labels;
}

ClipList list_asc(const fs::path& where, Split split, const SpeechListOptions& options) {
  SEQBOAT_CHECK(options.split == SpeechSplit::kOfficial, ErrorKind::kConfig,
                "data.split: expected \"official\" for asc10, whose speakers are disjoint");
  const fs::path records = asc_file(where, split, "_16k.ulaw"), table = asc_file(where, split, ".tsv");
  for (const fs::path& file : {records, table}) {
    const std::string packed = file.string() + ".xz";
    SEQBOAT_CHECK(is_file(file) || !is_file(packed), ErrorKind::kData, "{}: no such file, but a packed one beside it: run xz -dk {}", file.string(),
                  packed);
    SEQBOAT_CHECK(is_file(file), ErrorKind::kData, "{}: no such file. {}", file.string(), how_to_get(SpeechForm::kAsc10));
  }
  const std::vector<AscRow> rows = read_asc_rows(table);
  std::error_code error;
  const auto size = static_cast<int64_t>(fs::file_size(records, error));
  SEQBOAT_CHECK(!error && size == kAscRecord * static_cast<int64_t>(rows.size()), ErrorKind::kData,
                "{}: expected {} records of {} bytes, as {} names them, found {} bytes", records.string(), rows.size(), kAscRecord,
                table.filename().string(), size);
  ClipList out;
  out.labels = asc_labels(where);
  for (size_t i = 0; i < rows.size(); ++i) {
    out.clips.push_back({.file = records, .record = static_cast<int64_t>(i), .label = rows[i].label, .speaker = rows[i].speaker});
  }
  return out;
}

// --- reading ---

/// What of a clip is kept at the wanted rate; false: nothing, for its length.
bool fit(const SpeechReadOptions& options, const Sound& sound, std::vector<float>* samples) {
  if (options.seconds == 0) return true;
  const double own = options.seconds * static_cast<double>(sound.sample_rate);
  if (options.fit == SpeechFit::kExact && static_cast<double>(sound.samples.size()) != std::round(own)) return false;
  const auto wanted = static_cast<size_t>(std::max<int64_t>(1, std::llround(options.seconds * static_cast<double>(options.sample_rate))));
  if (samples->size() > wanted || options.fit != SpeechFit::kCut) samples->resize(wanted);
  return true;
}

}  // namespace

const char* speech_form_name(SpeechForm form) {
  return form == SpeechForm::kSpeechCommands ? "speech-commands" : form == SpeechForm::kFsdd ? "fsdd" : "asc10";
}

bool is_speech_form(const std::string& name) {
  return name == "speech-commands" || name == "fsdd" || name == "asc10";
}

SpeechForm parse_speech_form(const std::string& name) {
  for (const SpeechForm form : {SpeechForm::kSpeechCommands, SpeechForm::kFsdd, SpeechForm::kAsc10}) {
    if (name == speech_form_name(form)) return form;
  }
  fail(ErrorKind::kUsage, "data.name: expected speech-commands, fsdd or asc10, found {}", in_quotes(name));
}

SpeechSplit parse_speech_split(const std::string& name) {
  if (name == "official") return SpeechSplit::kOfficial;
  if (name == "speakers") return SpeechSplit::kSpeakers;
  if (name == "stratified") return SpeechSplit::kStratified;
  fail(ErrorKind::kUsage, "data.split: expected official, speakers or stratified, found {}", in_quotes(name));
}

SpeechFit parse_speech_fit(const std::string& name) {
  if (name == "cut") return SpeechFit::kCut;
  if (name == "pad") return SpeechFit::kPad;
  if (name == "exact") return SpeechFit::kExact;
  fail(ErrorKind::kUsage, "data.fit: expected cut, pad or exact, found {}", in_quotes(name));
}

int16_t decode_mu_law(uint8_t byte) noexcept {
  const int u = ~byte & 0xff, exponent = u >> 4 & 7, magnitude = ((((u & 15) << 3) + 132) << exponent) - 132;
  return static_cast<int16_t>((u & 128) != 0 ? -magnitude : magnitude);
}

fs::path find_speech(SpeechForm form, const fs::path& where) {
  if (!is_folder(where)) return {};
  switch (form) {
    case SpeechForm::kSpeechCommands:
      return word_folders(where).empty() ? fs::path() : where;
    case SpeechForm::kFsdd: {
      const auto is_recording = [](const fs::directory_entry& entry) { return is_sound(entry.path()); };
      if (is_folder(where / "recordings") && !names_in(where / "recordings", is_recording).empty()) return where / "recordings";
      return names_in(where, is_recording).empty() ? fs::path() : where;
    }
    case SpeechForm::kAsc10:
      for (const Split split : kSplits) {
        if (is_file(asc_file(where, split, "_16k.ulaw"))) return where;
      }
      return {};
  }
  return {};
}

fs::path require_speech(SpeechForm form, const fs::path& where) {
  if (fs::path found = find_speech(form, where); !found.empty()) return found;
  SEQBOAT_CHECK(!is_file(where), ErrorKind::kData, "{}: expected a folder, found a file. {}", where.string(), how_to_get(form));
  if (form == SpeechForm::kAsc10) {
    const std::string packed = asc_file(where, Split::kTrain, "_16k.ulaw").string() + ".xz";
    SEQBOAT_CHECK(!is_file(packed), ErrorKind::kData, "{}: no records, but packed ones: run xz -dk {}", where.string(),
                  (where / "asc10_*_16k.ulaw.xz").string());
  }
  const fs::path zip = where / "fsdd_wav.zip", archive = where / "speech_commands_v0.02.tar.gz";
  SEQBOAT_CHECK(form != SpeechForm::kFsdd || !is_file(zip), ErrorKind::kData,
                "{}: no recordings, but the archive that holds them: run unzip {} -d {}", where.string(), zip.string(), where.string());
  SEQBOAT_CHECK(form != SpeechForm::kSpeechCommands || !is_file(archive), ErrorKind::kData,
                "{}: no words, but the archive that holds them: run tar xzf {} -C {}", where.string(), archive.string(), where.string());
  static constexpr const char* kExpected[] = {"a folder of .wav or .flac files for each word", "recordings/DIGIT_SPEAKER_INDEX.wav",
                                              "asc10_{train,val,test}_16k.ulaw and .tsv"};
  fail(ErrorKind::kData, "{}: {}: expected {}. {}", where.string(), is_folder(where) ? "no spoken words" : "no such folder",
       kExpected[static_cast<int>(form)], how_to_get(form));
}

bool guess_speech_form(const fs::path& where, SpeechForm* form) {
  if (!is_folder(where)) return false;
  const auto begins = [&](const char* with) {
    return !names_in(where, [&](const fs::directory_entry& entry) { return entry.path().filename().string().starts_with(with); }).empty();
  };
  if (begins("asc10_")) {
    *form = SpeechForm::kAsc10;
  } else if (is_file(where / "fsdd_wav.zip") || is_folder(where / "recordings") || !find_speech(SpeechForm::kFsdd, where).empty()) {
    *form = SpeechForm::kFsdd;
  } else if (begins("speech_commands_v0.") || !find_speech(SpeechForm::kSpeechCommands, where).empty()) {
    *form = SpeechForm::kSpeechCommands;
  } else {
    return false;
  }
  return true;
}

std::vector<std::string> speech_labels(SpeechForm form, const fs::path& where, const SpeechListOptions& options) {
  const fs::path place = require_speech(form, where);
  if (form == SpeechForm::kSpeechCommands) return commands_labels(place, options);
  if (form == SpeechForm::kAsc10) return asc_labels(place);
  std::vector<std::string> digits;
  for (int digit = 0; digit <= 9; ++digit) digits.push_back(std::to_string(digit));
  return digits;
}

ClipList list_clips(SpeechForm form, const fs::path& where, Split split, const SpeechListOptions& options) {
  const fs::path place = require_speech(form, where);
  ClipList out = form == SpeechForm::kSpeechCommands ? list_commands(place, split, options)
                 : form == SpeechForm::kFsdd         ? list_fsdd(place, split, options)
                                                     : list_asc(place, split, options);
  SEQBOAT_CHECK(!out.clips.empty(), ErrorKind::kData, "{}: the {} split holds no clips", place.string(), split_name(split));
  return out;
}

SoundDataset read_clips(const ClipList& list, const SpeechReadOptions& options, const SoundTools& tools, const ClipProgress& progress) {
  SoundDataset out;
  out.sample_rate = options.sample_rate;
  out.label_names = list.labels;
  std::map<fs::path, MappedFile> records;
  int64_t done = 0;
  for (const Clip& clip : list.clips) {
    Sound sound;
    if (clip.record >= 0) {
      auto file = records.find(clip.file);
      if (file == records.end()) file = records.emplace(clip.file, MappedFile::open(clip.file)).first;
      const size_t begin = static_cast<size_t>(clip.record * kAscRecord);
      SEQBOAT_CHECK(begin + kAscRecord <= file->second.size(), ErrorKind::kData, "{}: record {} lies beyond its {} bytes", clip.file.string(),
                    clip.record, file->second.size());
      sound.sample_rate = kAscRecord;
      for (size_t i = 0; i < kAscRecord; ++i)
        sound.samples.push_back(sample_of_s16(decode_mu_law(static_cast<uint8_t>(file->second.data()[begin + i]))));
    } else {
      SEQBOAT_CHECK(tools.read != nullptr, ErrorKind::kFailed, "{}: nothing here can read sound files", clip.file.string());
      sound = tools.read(clip.file);
    }
    std::vector<float> samples = sound.samples;
    if (sound.sample_rate != options.sample_rate) {
      SEQBOAT_CHECK(tools.resample != nullptr, ErrorKind::kFailed, "{}: nothing here can bring {} Hz to {} Hz", clip.file.string(), sound.sample_rate,
                    options.sample_rate);
      samples = tools.resample(sound.samples, sound.sample_rate, options.sample_rate);
    }
    if (fit(options, sound, &samples)) {
      out.samples.insert(out.samples.end(), samples.begin(), samples.end());
      out.offsets.push_back(static_cast<int64_t>(out.samples.size()));
      out.labels.push_back(clip.label);
    }
    ++done;
    if (progress) progress(done, static_cast<int64_t>(list.clips.size()));
  }
  SEQBOAT_CHECK(out.size() > 0, ErrorKind::kData, "{}: expected clips of exactly {} seconds, found none among {}",
                list.clips.empty() ? std::string() : list.clips.front().file.parent_path().string(), options.seconds, list.clips.size());
  return out;
}

}  // namespace seqboat::data
