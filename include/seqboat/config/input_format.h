#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace seqboat::config {

/// What a program must know to feed a model and to name its answer, beyond sizes and functions: the section "data" of config.json. A program that is
/// given a model folder and a stream of samples needs nothing else.
///
///   "data": {"name": "fsdd", "sample_rate": 8000, "frame": 80, "gain": 1.0, "normalize": "none", "labels": ["0", ..., "9"]}
///
/// Models of tasks that have nothing to say here have no such section.
struct InputFormat {
  std::string name;                 ///< data.name of the recipe; empty = nothing is known
  int64_t sample_rate = 0;          ///< of sound: samples a second
  int64_t frame = 0;                ///< of sound: samples a step (data/frames.h); the last one of a clip is filled up with zeros
  double gain = 1;                  ///< what each sample in [-1, 1] is multiplied by
  std::string normalize = "none";   ///< none | time-index, which needs whole clips and their training data: no stream can do it
  std::vector<std::string> labels;  ///< what the classes are called, in the order of the logits

  bool empty() const { return name.empty(); }
  friend bool operator==(const InputFormat&, const InputFormat&) = default;
};

nlohmann::ordered_json to_json(const InputFormat& format);
/// All keys must be there and no others: Error (kModel) naming the key, what was expected and what was found. `where` begins the message.
InputFormat input_format_from_json(const nlohmann::ordered_json& json, const std::string& where);

}  // namespace seqboat::config
