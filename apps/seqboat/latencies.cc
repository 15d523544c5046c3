#include "latencies.h"

#include <algorithm>
#include <cmath>

namespace seqboat::app {

void Latencies::add(double seconds) {
  int exponent = 0;
  const double fraction = std::frexp(std::max(seconds, 0.0), &exponent);  // seconds = fraction 2^exponent, fraction in [0.5, 1), or 0
  const int place = (exponent - kLeast) * kPerOctave + static_cast<int>((2 * fraction - 1) * kPerOctave);
  ++counts_[static_cast<size_t>(seconds > 0 ? std::clamp(place, 0, kPerOctave * kOctaves - 1) : 0)];
  ++count_;
  sum_ += seconds;
}

double Latencies::us(double q) const {
  const auto wanted = std::max<int64_t>(1, static_cast<int64_t>(std::ceil(q * static_cast<double>(count_))));
  int64_t seen = 0;
  for (int place = 0; place < kPerOctave * kOctaves; ++place) {
    seen += counts_[static_cast<size_t>(place)];
    if (seen < wanted) continue;
    const double middle = (1 + (place % kPerOctave + 0.5) / kPerOctave) / 2;
    return 1e6 * std::ldexp(middle, kLeast + place / kPerOctave);
  }
  return 0;
}

}  // namespace seqboat::app
