#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "seqboat/data/dataset.h"
#include "seqboat/data/sound.h"

/// Spoken words as labelled clips, in three forms: a folder a word (Speech Commands), FSDD's recordings, and records of mu-law bytes (asc10).
namespace seqboat::data {

enum class SpeechForm {
  kSpeechCommands,  ///< WORD/*.wav (or .flac), with validation_list.txt and testing_list.txt
  kFsdd,            ///< recordings/DIGIT_SPEAKER_INDEX.wav
  kAsc10,           ///< asc10_{train,val,test}_16k.ulaw, each beside a .tsv that names its records
};

/// How clips are shared out among the splits.
enum class SpeechSplit {
  kOfficial,  ///< as the makers of the data did
  kSpeakers,  ///< each speaker is in one split alone
  kStratified,
};

const char* speech_form_name(SpeechForm form);          ///< "speech-commands", "fsdd", "asc10": data.name
SpeechForm parse_speech_form(const std::string& name);  ///< Error (kUsage) for another word
bool is_speech_form(const std::string& name);
SpeechSplit parse_speech_split(const std::string& name);  ///< "official", "speakers", "stratified": data.split

/// Which clips belong to which split:
///
///                    official                                     speakers                                     stratified
///   speech-commands  testing_list.txt, validation_list.txt, the   80 / 10 / 10 % of the speakers, by a hash    70 / 15 / 15 % of the clips of
///                    rest to train on; both lists must be there   of the name up to "_nohash_" (or the first   each word, by a hash of their
///                                                                 '_'), so new clips change no other's split   names
///   fsdd             index 0 to 4 test, 5 to 9 validation, the    every clip of test_speakers is the test; of  -
///                    rest to train on                             the others 0 to 4 validation, the rest train
///   asc10            a file each; speakers are disjoint           -                                            -
///
/// `validate_on_test` (fsdd, official): validation on the test's clips, 5 to 9 to train on as well.
struct SpeechListOptions {
  SpeechSplit split = SpeechSplit::kOfficial;
  std::vector<std::string> words = {};          ///< speech-commands: the folders that count, label 0 first; empty = all, in the order of names
  std::vector<std::string> test_speakers = {};  ///< fsdd, by speakers
  bool validate_on_test = false;
};

/// A clip that was found and not yet read.
struct Clip {
  std::filesystem::path file;
  int64_t record = -1;  ///< asc10: its number in the file; else -1
  int64_t label = 0;
  std::string speaker;  ///< empty where the name tells none
};

/// The clips of one split. In an order in which labels are mixed: speech-commands by name, fsdd by index and speaker, asc10 by record.
struct ClipList {
  std::vector<std::string> labels;  ///< what each label is called
  std::vector<Clip> clips;
};

/// The place of the data at `where`: speech-commands `where` itself; fsdd where/recordings or `where`; asc10 `where`. Empty if they are not there.
std::filesystem::path find_speech(SpeechForm form, const std::filesystem::path& where);
/// The same; where there are none, Error (kData) that says what was looked for and how to come by it.
std::filesystem::path require_speech(SpeechForm form, const std::filesystem::path& where);
/// The form of the data at a place, by its names; false where it holds none. Packed data count: require_speech() says how to unpack them.
bool guess_speech_form(const std::filesystem::path& where, SpeechForm* form);

/// What the labels are called, in order: fsdd "0" .. "9"; speech-commands `words`, else the folders; asc10 by the .tsv files. Errors as list_clips.
std::vector<std::string> speech_labels(SpeechForm form, const std::filesystem::path& where, const SpeechListOptions& options);

/// The clips of a split, without reading them. Error (kData) with file or folder, line, expected and found: what is missing and how to come by it, a
/// name that is none, a word without sounds, a list that names a file which is not there, a .tsv that does not go with its records, a split without
/// clips. Error (kConfig): a way to split that the form does not have, a speaker who is not there or leaves nobody to train on.
ClipList list_clips(SpeechForm form, const std::filesystem::path& where, Split split, const SpeechListOptions& options = {});

/// How the length of clips is dealt with.
enum class SpeechFit {
  kCut,    ///< what comes after `seconds` is left out; shorter clips stay shorter
  kPad,    ///< the same, and shorter clips get zeros at their end
  kExact,  ///< clips of another length are left out
};
SpeechFit parse_speech_fit(const std::string& name);  ///< "cut", "pad", "exact": data.fit

struct SpeechReadOptions {
  int64_t sample_rate = 16000;  ///< clips of another rate are resampled
  double seconds = 1.0;         ///< 0 = all of each clip, with kCut
  SpeechFit fit = SpeechFit::kCut;
};

/// Labelled sounds, packed: clip i is samples[offsets[i]] .. samples[offsets[i + 1] - 1].
struct SoundDataset {
  int64_t sample_rate = 0;
  std::vector<std::string> label_names;
  std::vector<float> samples;
  std::vector<int64_t> offsets = {0};  ///< size() + 1
  std::vector<int64_t> labels;         ///< size()

  int64_t size() const { return static_cast<int64_t>(labels.size()); }
  int64_t length(int64_t i) const { return offsets[i + 1] - offsets[i]; }
  std::span<const float> clip(int64_t i) const { return {samples.data() + offsets[i], static_cast<size_t>(length(i))}; }
};

/// Clip by clip; after each of them progress(done, total) is called, which may throw to stop.
using ClipProgress = std::function<void(int64_t done, int64_t total)>;

/// Reads the clips of a list. Errors of the tools, and Error (kData) if none is left, or where files must be read and there are no tools.
SoundDataset read_clips(const ClipList& list, const SpeechReadOptions& options, const SoundTools& tools, const ClipProgress& progress = {});

/// A sample of ITU G.711 mu-law as 16-bit PCM.
int16_t decode_mu_law(uint8_t byte) noexcept;

}  // namespace seqboat::data
