#include "seqboat/data/speech.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <set>

#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"
#include "unit/base/temp_dir.h"

namespace seqboat::data {
namespace {

using test::expect_error;
using test::TempDir;
namespace fs = std::filesystem;

// A file of these tests is a text with its number of samples; its samples count from 0 on in steps of 1/32768. At "16000" Hz if it ends in 'h'.
Sound read_text(const fs::path& file) {
  const std::string text = read_file(file);
  Sound sound{.sample_rate = text.back() == 'h' ? 16000 : 8000, .samples = {}};
  for (int i = 0; i < std::stoi(text); ++i) sound.samples.push_back(static_cast<float>(i) / 32768.0f);
  return sound;
}
std::vector<float> take_each(std::span<const float> samples, int64_t from, int64_t to) {
  EXPECT_EQ(from, 2 * to);
  std::vector<float> out;
  for (size_t i = 0; i < samples.size(); i += 2) out.push_back(samples[i]);
  return out;
}
const SoundTools kTools{.read = read_text, .resample = take_each};

constexpr Split kSplits[] = {Split::kTrain, Split::kValid, Split::kTest};

class Speech : public ::testing::Test {
 protected:
  void write(const std::string& name, const std::string& content) const {
    fs::create_directories((dir_ / name).parent_path());
    std::ofstream(dir_ / name, std::ios::binary) << content;
  }
  void write_digits(const std::vector<std::string>& speakers = {"ann", "bob", "cy_d"}) const {
    for (const std::string& speaker : speakers) {
      for (int digit = 0; digit < 10; ++digit) {
        for (int index = 0; index < 12; ++index) write("d/recordings/" + name(digit, speaker, index), std::to_string(10 * digit + index + 1));
      }
    }
  }
  static std::string name(int digit, const std::string& speaker, int index) {
    return std::to_string(digit) + "_" + speaker + "_" + std::to_string(index) + ".wav";
  }
  /// Words yes and no of 20 speakers with 2 clips each, and noise.
  void write_commands(bool lists) const {
    std::string valid, test;
    for (const std::string word : {"yes", "no"}) {
      for (int speaker = 0; speaker < 20; ++speaker) {
        for (int take = 0; take < 2; ++take) {
          const std::string file = word + "/s" + std::to_string(speaker) + "_nohash_" + std::to_string(take) + ".wav";
          write("c/" + file, "100");
          if (speaker < 2) valid += file + "\n";
          if (speaker >= 2 && speaker < 5) test += file + "\r\n";
        }
      }
    }
    write("c/_background_noise_/hum.wav", "100");
    write("c/yes/notes.txt", "no sound");
    fs::create_directories(dir_ / "c/empty");
    if (!lists) return;
    write("c/validation_list.txt", valid);
    write("c/testing_list.txt", test);
  }
  /// `rows` records a split of two keywords.
  void write_asc(int rows) const {
    for (const char* split : {"train", "val", "test"}) {
      std::string table = "record\tlabel\tkeyword\tspeaker\tsource_file\n";
      for (int i = 0; i < rows; ++i) table += std::to_string(i) + "\t" + (i % 2 == 0 ? "0\tyes" : "1\tno") + "\t00" + split + "\tx.wav\n";
      write(std::string("a/asc10_") + split + ".tsv", table);
      write(std::string("a/asc10_") + split + "_16k.ulaw", std::string(static_cast<size_t>(rows) * 16000, '\xff'));
    }
  }
  /// Files of each split; they must be disjoint.
  std::map<Split, std::set<std::string>> splits(SpeechForm form, const std::string& where, const SpeechListOptions& options) const {
    std::map<Split, std::set<std::string>> out;
    std::set<std::string> all;
    for (const Split split : kSplits) {
      for (const Clip& clip : list_clips(form, dir_ / where, split, options).clips) {
        const std::string file = clip.file.parent_path().filename().string() + "/" + clip.file.filename().string();
        EXPECT_TRUE(all.insert(file).second) << file << " is in two splits";
        out[split].insert(file);
      }
    }
    return out;
  }
  TempDir dir_;
};

TEST_F(Speech, DigitsByIndex) {
  write_digits();
  for (const char* where : {"d", "d/recordings"}) {
    const auto by_split = splits(SpeechForm::kFsdd, where, {});
    EXPECT_EQ(by_split.at(Split::kTest).size(), 150u);
    EXPECT_EQ(by_split.at(Split::kValid).size(), 150u);
    EXPECT_EQ(by_split.at(Split::kTrain).size(), 60u);
    EXPECT_TRUE(by_split.at(Split::kTest).count("recordings/3_ann_4.wav"));
    EXPECT_TRUE(by_split.at(Split::kValid).count("recordings/3_cy_d_5.wav"));
    EXPECT_TRUE(by_split.at(Split::kTrain).count("recordings/9_bob_11.wav"));
  }
  const ClipList list = list_clips(SpeechForm::kFsdd, dir_ / "d", Split::kTest);
  EXPECT_EQ(list.labels.front() + list.labels.back(), "09");
  EXPECT_EQ(list.clips[12].label, 2);
  EXPECT_EQ(list.clips[20].speaker, "cy_d");
  std::set<int64_t> first;
  for (int i = 0; i < 10; ++i) first.insert(list.clips[static_cast<size_t>(i)].label);
  EXPECT_EQ(first.size(), 10u) << "the first clips must not be of one digit";
  // With the test's clips to validate on, theirs are to train on.
  const SpeechListOptions on_test{.validate_on_test = true};
  EXPECT_EQ(list_clips(SpeechForm::kFsdd, dir_ / "d", Split::kValid, on_test).clips.size(), 150u);
  EXPECT_EQ(list_clips(SpeechForm::kFsdd, dir_ / "d", Split::kTrain, on_test).clips.size(), 210u);
}

TEST_F(Speech, DigitsBySpeaker) {
  write_digits();
  SpeechListOptions options{.split = SpeechSplit::kSpeakers, .test_speakers = {"cy_d"}};
  const auto by_split = splits(SpeechForm::kFsdd, "d", options);
  EXPECT_EQ(by_split.at(Split::kTest).size(), 120u);
  EXPECT_EQ(by_split.at(Split::kValid).size(), 100u);
  EXPECT_EQ(by_split.at(Split::kTrain).size(), 140u);
  for (const std::string& file : by_split.at(Split::kTest)) EXPECT_NE(file.find("cy_d"), std::string::npos) << file;
  const auto expect_bad = [&](std::vector<std::string> speakers, std::vector<std::string> pieces) {
    options.test_speakers = std::move(speakers);
    expect_error(ErrorKind::kConfig, pieces, [&] { list_clips(SpeechForm::kFsdd, dir_ / "d", Split::kTest, options); });
  };
  expect_bad({"dora"}, {"data.test_speakers", "ann, bob, cy_d", "dora"});
  expect_bad({}, {"data.test_speakers", "found none"});
  expect_bad({"ann", "bob", "cy_d"}, {"at least one", "to train on"});
  options = {.split = SpeechSplit::kStratified};
  expect_error(ErrorKind::kConfig, {"data.split", "stratified"}, [&] { list_clips(SpeechForm::kFsdd, dir_ / "d", Split::kTest, options); });
}

TEST_F(Speech, DigitsWithBadNames) {
  for (const char* bad : {"12_ann_3.wav", "x_ann_3.wav", "3_ann.wav", "3__4.wav", "3_ann_04.wav", "3_ann_.wav", "hello.wav"}) {
    TempDir other;
    write_file_atomically(other / bad, "5");
    expect_error(ErrorKind::kData, {"DIGIT_SPEAKER_INDEX.wav", bad}, [&] { list_clips(SpeechForm::kFsdd, other.path(), Split::kTrain); });
  }
}

TEST_F(Speech, CommandsByTheirLists) {
  write_commands(true);
  const auto by_split = splits(SpeechForm::kSpeechCommands, "c", {});
  EXPECT_EQ(by_split.at(Split::kValid).size(), 8u);
  EXPECT_EQ(by_split.at(Split::kTest).size(), 12u);
  EXPECT_EQ(by_split.at(Split::kTrain).size(), 60u);
  EXPECT_TRUE(by_split.at(Split::kTest).count("no/s4_nohash_1.wav"));
  EXPECT_EQ(list_clips(SpeechForm::kSpeechCommands, dir_ / "c", Split::kTest).labels, (std::vector<std::string>{"no", "yes"}));
  // In the order of data.words; what is not named is left out of the lists, too.
  const ClipList yes = list_clips(SpeechForm::kSpeechCommands, dir_ / "c", Split::kTest, {.words = {"yes", "no"}});
  EXPECT_EQ(yes.labels, (std::vector<std::string>{"yes", "no"}));
  // By the names of files: the words come in turns.
  EXPECT_EQ(yes.clips[0].file, dir_ / "c/yes/s2_nohash_0.wav");
  EXPECT_EQ(yes.clips[1].file, dir_ / "c/no/s2_nohash_0.wav");
  EXPECT_EQ(list_clips(SpeechForm::kSpeechCommands, dir_ / "c", Split::kTest, {.words = {"yes"}}).clips.size(), 6u);

  const auto expect_bad = [&](const char* list, const std::string& rows, std::vector<std::string> pieces) {
    write(std::string("c/") + list, rows);
    expect_error(ErrorKind::kData, pieces, [&] { list_clips(SpeechForm::kSpeechCommands, dir_ / "c", Split::kTrain); });
  };
  expect_bad("testing_list.txt", "yes/s7_nohash_0.wav\nyes/gone.wav\n", {"testing_list.txt:2", "yes/gone.wav"});
  expect_bad("testing_list.txt", "yes/s1_nohash_0.wav\n", {"testing_list.txt:1", "the other list"});
  fs::remove(dir_ / "c/testing_list.txt");
  expect_error(ErrorKind::kData, {"testing_list.txt", "no such file", "data.split"},
               [&] { list_clips(SpeechForm::kSpeechCommands, dir_ / "c", Split::kTrain); });
}

TEST_F(Speech, CommandsBySpeakersAndByWords) {
  write_commands(false);
  const auto speakers = splits(SpeechForm::kSpeechCommands, "c", {.split = SpeechSplit::kSpeakers});
  std::map<std::string, std::set<Split>> split_of;
  size_t clips = 0;
  for (const auto& [split, files] : speakers) {
    for (const std::string& file : files) split_of[file.substr(file.find('/') + 1, file.find("_nohash") - file.find('/') - 1)].insert(split);
    clips += files.size();
  }
  EXPECT_EQ(clips, 80u);
  EXPECT_EQ(split_of.size(), 20u);
  for (const auto& [speaker, of] : split_of) EXPECT_EQ(of.size(), 1u) << speaker;

  const auto words = splits(SpeechForm::kSpeechCommands, "c", {.split = SpeechSplit::kStratified});
  for (const char* word : {"yes/", "no/"}) {
    const auto count = [&](Split split) {
      return std::count_if(words.at(split).begin(), words.at(split).end(), [&](const std::string& file) { return file.starts_with(word); });
    };
    EXPECT_EQ(count(Split::kTrain), 28);
    EXPECT_EQ(count(Split::kValid), 6);
    EXPECT_EQ(count(Split::kTest), 6);
  }
  expect_error(ErrorKind::kData, {"'maybe'", "no, yes"},
               [&] { list_clips(SpeechForm::kSpeechCommands, dir_ / "c", Split::kTest, {.split = SpeechSplit::kSpeakers, .words = {"maybe"}}); });
}

TEST_F(Speech, RecordsOfMuLaw) {
  write_asc(4);
  const ClipList list = list_clips(SpeechForm::kAsc10, dir_ / "a", Split::kValid);
  EXPECT_EQ(list.labels, (std::vector<std::string>{"yes", "no"}));
  ASSERT_EQ(list.clips.size(), 4u);
  EXPECT_EQ(list.clips[3].label, 1);
  const SoundDataset set = read_clips(list, {.sample_rate = 8000}, kTools);
  EXPECT_EQ(set.size(), 4);
  EXPECT_EQ(set.length(2), 8000);
  EXPECT_EQ(set.samples[5], 0.0f);  // 0xff is silence

  const auto expect_bad = [&](const std::string& table, std::vector<std::string> pieces) {
    write("a/asc10_val.tsv", table);
    expect_error(ErrorKind::kData, pieces, [&] { list_clips(SpeechForm::kAsc10, dir_ / "a", Split::kValid); });
  };
  expect_bad("", {"asc10_val.tsv", "empty"});
  expect_bad("0\t0\tyes\ts\n", {"asc10_val.tsv:1", "5 columns", "found 4"});
  expect_bad("0\t0\tyes\ts\tx\n2\t0\tyes\ts\tx\n", {"asc10_val.tsv:2", "record: expected 1", "'2'"});
  expect_bad("0\tzero\tyes\ts\tx\n", {"asc10_val.tsv:1", "label", "'zero'"});
  expect_bad("0\t0\tyes\ts\tx\n", {"asc10_val_16k.ulaw", "1 records of 16000", "found 64000"});
  expect_bad("0\t0\tyes\ts\tx\n1\t0\tyes\ts\tx\n2\t0\tyes\ts\tx\n3\t1\tnope\ts\tx\n", {"label 1", "'no'", "'nope'"});
  expect_error(ErrorKind::kConfig, {"data.split"},
               [&] { list_clips(SpeechForm::kAsc10, dir_ / "a", Split::kTest, {.split = SpeechSplit::kSpeakers}); });
  fs::rename(dir_ / "a/asc10_test_16k.ulaw", dir_ / "a/asc10_test_16k.ulaw.xz");
  expect_error(ErrorKind::kData, {"run xz -dk", "asc10_test_16k.ulaw.xz"}, [&] { list_clips(SpeechForm::kAsc10, dir_ / "a", Split::kTest); });
}

TEST(MuLaw, IsG711) {
  // Silence, the smallest step, and full scale on either side.
  EXPECT_EQ(decode_mu_law(0xff), 0);
  EXPECT_EQ(decode_mu_law(0x7f), 0);
  EXPECT_EQ(decode_mu_law(0xfe), 8);
  EXPECT_EQ(decode_mu_law(0x7e), -8);
  EXPECT_EQ(decode_mu_law(0x80), 32124);
  EXPECT_EQ(decode_mu_law(0x00), -32124);
  EXPECT_EQ(decode_mu_law(0x8f), 16764);
  for (int i = 0x81; i <= 0xff; ++i) EXPECT_LT(decode_mu_law(static_cast<uint8_t>(i)), decode_mu_law(static_cast<uint8_t>(i - 1))) << i;
}

TEST_F(Speech, LengthsOfClips) {
  write("w/a/short.wav", "4000");
  write("w/a/exact.wav", "8000");
  write("w/a/high.wav", "16000h");
  write("w/b/long.wav", "9000");
  const ClipList list = [&] {
    ClipList out = list_clips(SpeechForm::kSpeechCommands, dir_ / "w", Split::kTrain, {.split = SpeechSplit::kStratified});
    EXPECT_EQ(out.clips.size(), 4u);  // by name: exact, high, long, short
    return out;
  }();
  const auto lengths = [&](const SpeechReadOptions& options) {
    const SoundDataset set = read_clips(list, options, kTools);
    std::vector<int64_t> out;
    for (int64_t i = 0; i < set.size(); ++i) out.push_back(set.length(i));
    return out;
  };
  using Lengths = std::vector<int64_t>;
  EXPECT_EQ(lengths({.sample_rate = 8000}), (Lengths{8000, 8000, 8000, 4000}));
  EXPECT_EQ(lengths({.sample_rate = 8000, .seconds = 0}), (Lengths{8000, 8000, 9000, 4000}));
  EXPECT_EQ(lengths({.sample_rate = 8000, .seconds = 0.75}), (Lengths{6000, 6000, 6000, 4000}));
  EXPECT_EQ(lengths({.sample_rate = 8000, .fit = SpeechFit::kPad}), (Lengths{8000, 8000, 8000, 8000}));
  EXPECT_EQ(lengths({.sample_rate = 8000, .fit = SpeechFit::kExact}), (Lengths{8000, 8000}));
  const SoundDataset padded = read_clips(list, {.sample_rate = 8000, .fit = SpeechFit::kPad}, kTools);
  EXPECT_EQ(padded.clip(3)[3999], 3999.0f / 32768);
  EXPECT_EQ(padded.clip(3)[4000], 0.0f);
  EXPECT_EQ(padded.label_names, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(padded.labels, (Lengths{0, 0, 1, 0}));
  expect_error(ErrorKind::kData, {"exactly 3 seconds", "none among 4"},
               [&] { read_clips(list, {.sample_rate = 8000, .seconds = 3, .fit = SpeechFit::kExact}, kTools); });
  expect_error(ErrorKind::kFailed, {"can read sound files"}, [&] { read_clips(list, {.sample_rate = 8000}, {}); });
}

TEST_F(Speech, WhatIsMissingIsNamed) {
  for (const auto& [form, word] : {std::pair{SpeechForm::kFsdd, "free-spoken-digit-dataset"},
                                   {SpeechForm::kSpeechCommands, "speech_commands_v0.02"},
                                   {SpeechForm::kAsc10, "arabic-speech-commands-dataset"}}) {
    expect_error(ErrorKind::kData, {"nowhere", "no such folder", word, "--data DIR"}, [&] { list_clips(form, dir_ / "nowhere", Split::kTest); });
    fs::create_directories(dir_ / "hollow");
    expect_error(ErrorKind::kData, {"hollow", "no spoken words", word}, [&] { list_clips(form, dir_ / "hollow", Split::kTest); });
    SpeechForm guessed{};
    EXPECT_FALSE(guess_speech_form(dir_ / "hollow", &guessed));
    EXPECT_FALSE(guess_speech_form(dir_ / "nowhere", &guessed));
  }
  write("zip/fsdd_wav.zip", "x");
  expect_error(ErrorKind::kData, {"run unzip"}, [&] { list_clips(SpeechForm::kFsdd, dir_ / "zip", Split::kTest); });
  write("tar/speech_commands_v0.02.tar.gz", "x");
  expect_error(ErrorKind::kData, {"run tar xzf"}, [&] { list_clips(SpeechForm::kSpeechCommands, dir_ / "tar", Split::kTest); });
  write("xz/asc10_train_16k.ulaw.xz", "x");
  expect_error(ErrorKind::kData, {"run xz -dk"}, [&] { list_clips(SpeechForm::kAsc10, dir_ / "xz", Split::kTest); });
  write("file", "x");
  expect_error(ErrorKind::kData, {"expected a folder, found a file"}, [&] { list_clips(SpeechForm::kFsdd, dir_ / "file", Split::kTest); });
  for (const auto& [where, form] : {std::pair{"zip", SpeechForm::kFsdd}, {"tar", SpeechForm::kSpeechCommands}, {"xz", SpeechForm::kAsc10}}) {
    SpeechForm guessed{};
    EXPECT_TRUE(guess_speech_form(dir_ / where, &guessed));
    EXPECT_EQ(guessed, form) << where;
  }
}

}  // namespace
}  // namespace seqboat::data
