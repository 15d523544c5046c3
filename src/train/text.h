#pragma once

// Private to src/train: numbers for people.

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <vector>

namespace seqboat::train {

/// 1234567 -> "1,234,567"
inline std::string with_commas(int64_t value) {
  const std::string digits = std::to_string(value);
  std::string out;
  for (size_t i = 0; i < digits.size(); ++i) {
    const bool starts_group = i > 0 && digits[i - 1] != '-' && (digits.size() - i) % 3 == 0;
    if (starts_group) out += ',';
    out += digits[i];
  }
  return out;
}

/// 71234 -> "71.2k"
inline std::string short_number(double value) {
  if (value < 1e3) return fmt::format("{:.0f}", value);
  if (value < 1e6) return fmt::format("{:.1f}k", value / 1e3);
  if (value < 1e9) return fmt::format("{:.1f}M", value / 1e6);
  return fmt::format("{:.1f}G", value / 1e9);
}

/// 75 -> "1:15 min"
inline std::string duration_text(double seconds) {
  const auto s = static_cast<int64_t>(seconds + 0.5);
  if (s < 60) return fmt::format("{:.1f} s", seconds);
  if (s < 3600) return fmt::format("{}:{:02} min", s / 60, s % 60);
  return fmt::format("{}:{:02} h", s / 3600, s / 60 % 60);
}

/// Two decimals each, blanks between.
inline std::string rates_text(const std::vector<double>& rates) {
  std::string out;
  for (const double rate : rates) out += fmt::format("{}{:.2f}", out.empty() ? "" : " ", rate);
  return out;
}

}  // namespace seqboat::train
