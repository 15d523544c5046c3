#include "stream_input.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cmath>
#include <string_view>

#include "seqboat/base/error.h"
#include "seqboat/base/text.h"
#include "seqboat/data/bytes.h"

namespace seqboat::app {
namespace {

class BytesInput : public StreamInput {
 public:
  bool take(std::span<const uint8_t> bytes, EventStream* out) override {
    tokens_.clear();
    for (const uint8_t byte : bytes) tokens_.push_back(data::token_of_byte(byte));
    return out->feed(std::span<const int64_t>(tokens_));
  }
  bool finish(EventStream*, bool) override { return true; }

 private:
  std::vector<int64_t> tokens_;
};

class PcmInput : public StreamInput {
 public:
  PcmInput(const data::FrameFormat& format, bool is_float) : framer_(format), is_float_(is_float), frame_(format.frame) {}

  bool take(std::span<const uint8_t> bytes, EventStream* out) override {
    samples_.clear();
    try {
      decode_all(bytes);
    } catch (const Error&) {
      feed(out);  // what stands before the bad sample counts, however the input came in pieces
      throw;
    }
    return feed(out);
  }

  bool finish(EventStream* out, bool goes_on) override {
    SEQBOAT_CHECK(pending_ == 0, ErrorKind::kData, "standard input ends within a sample: expected a multiple of {} bytes, found {}", width(),
                  taken_ * static_cast<int64_t>(width()) + static_cast<int64_t>(pending_));
    left_out_ = goes_on ? framer_.pending() : 0;
    if (goes_on || !framer_.pad()) return true;
    return out->feed(framer_.frame());
  }

  std::string left_out() const override {
    return left_out_ == 0 ? "" : fmt::format("the last {} samples, which are no whole step of {}", left_out_, frame_);
  }

 private:
  size_t width() const { return is_float_ ? 4 : 2; }

  bool feed(EventStream* out) {
    values_.clear();
    for (std::span<const float> samples = samples_; framer_.take(&samples);) {
      values_.insert(values_.end(), framer_.frame().begin(), framer_.frame().end());
    }
    return out->feed(std::span<const float>(values_));
  }

  void decode_all(std::span<const uint8_t> bytes) {
    while (!bytes.empty()) {
      if (pending_ == 0 && bytes.size() >= width()) {
        const size_t whole = bytes.size() / width() * width();
        decode(bytes.first(whole));
        bytes = bytes.subspan(whole);
        continue;
      }
      part_[pending_++] = bytes.front();
      bytes = bytes.subspan(1);
      if (pending_ < width()) continue;
      pending_ = 0;
      decode(std::span(part_).first(width()));
    }
  }

  void decode(std::span<const uint8_t> bytes) {
    if (!is_float_) {
      const size_t count = bytes.size() / 2;
      samples_.resize(samples_.size() + count);
      data::decode_s16le(bytes, std::span(samples_).last(count));
      taken_ += static_cast<int64_t>(count);
      return;
    }
    for (; !bytes.empty(); bytes = bytes.subspan(4)) {
      const float sample = std::bit_cast<float>(static_cast<uint32_t>(bytes[0]) | static_cast<uint32_t>(bytes[1]) << 8 |
                                                static_cast<uint32_t>(bytes[2]) << 16 | static_cast<uint32_t>(bytes[3]) << 24);
      SEQBOAT_CHECK(std::isfinite(sample), ErrorKind::kData, "standard input: sample {} (byte {}): expected a finite number, found {}", taken_,
                    4 * taken_, sample);
      samples_.push_back(sample);
      ++taken_;
    }
  }

  data::Framer framer_;
  bool is_float_;
  int64_t frame_;
  std::array<uint8_t, 4> part_{};
  size_t pending_ = 0;  ///< bytes of part_
  int64_t taken_ = 0;   ///< samples, the first one is number 0
  int64_t left_out_ = 0;
  std::vector<float> samples_, values_;
};

class CsvInput : public StreamInput {
 public:
  explicit CsvInput(int64_t channels) : channels_(channels), longest_(static_cast<size_t>(channels) * 64 + 1024) {}

  bool take(std::span<const uint8_t> bytes, EventStream* out) override {
    values_.clear();
    complete_ = 0;
    std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    try {
      while (!text.empty()) {
        const size_t end = text.find('\n');
        line_.append(text.substr(0, end));
        SEQBOAT_CHECK(line_.size() <= longest_, ErrorKind::kData, "standard input: line {}: expected at most {} bytes, found more", number_ + 1,
                      longest_);
        if (end == std::string_view::npos) break;
        text.remove_prefix(end + 1);
        read_line();
      }
    } catch (const Error&) {
      out->feed(std::span<const float>(values_).first(complete_));  // the lines before the bad one count
      throw;
    }
    return out->feed(std::span<const float>(values_));
  }

  bool finish(EventStream* out, bool) override {
    if (line_.empty()) return true;
    values_.clear();
    read_line();  // the last line need not end
    return out->feed(std::span<const float>(values_));
  }

 private:
  void read_line() {
    ++number_;
    std::string_view line = line_;
    if (line.ends_with('\r')) line.remove_suffix(1);
    const int64_t fields = std::count(line.begin(), line.end(), ',') + 1;
    SEQBOAT_CHECK(line.find_first_not_of(" \t") != std::string_view::npos, ErrorKind::kData, "standard input: line {}: expected {}, found nothing",
                  number_, wanted());
    for (int64_t i = 0; i < fields; ++i) {
      const size_t comma = line.find(',');
      const float value = number_of(line.substr(0, comma), i);
      if (i < channels_) values_.push_back(value);
      if (comma != std::string_view::npos) line.remove_prefix(comma + 1);
    }
    SEQBOAT_CHECK(fields == channels_, ErrorKind::kData, "standard input: line {}: expected {}, found {}", number_, wanted(), fields);
    complete_ = values_.size();
    line_.clear();
  }

  std::string wanted() const { return channels_ == 1 ? "1 number" : fmt::format("{} numbers with commas between", channels_); }

  float number_of(std::string_view field, int64_t column) const {
    std::string_view text = field;
    while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
    while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
    if (text.size() > 1 && text.front() == '+' && text[1] != '-') text.remove_prefix(1);
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool whole = error == std::errc() && end == text.data() + text.size();
    if (!whole || !std::isfinite(static_cast<float>(value))) {
      fail(ErrorKind::kData, "standard input: line {}, column {}: expected a finite number, found {}{}", number_, column + 1, in_quotes(field, 40),
           number_ == 1 && !whole ? "; a line of names is not read: leave it out" : "");
    }
    return static_cast<float>(value);
  }

  int64_t channels_;
  size_t longest_;
  std::string line_;
  int64_t number_ = 0;  ///< lines so far
  std::vector<float> values_;
  size_t complete_ = 0;  ///< of values_: those of whole lines
};

}  // namespace

std::unique_ptr<StreamInput> bytes_input() {
  return std::make_unique<BytesInput>();
}
std::unique_ptr<StreamInput> pcm_input(const data::FrameFormat& format, bool is_float) {
  return std::make_unique<PcmInput>(format, is_float);
}
std::unique_ptr<StreamInput> csv_input(int64_t channels) {
  return std::make_unique<CsvInput>(channels);
}

}  // namespace seqboat::app
