#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

namespace seqboat::config {

/// How a grey picture becomes steps: pixels row by row, or in the order of data::pixel_permutation, each as (v / 255 - mean) / std.
struct ImageFormat {
  int64_t height = 0;
  int64_t width = 0;
  double mean = 0;
  double std = 1;
  int64_t permutation_seed = 0;  ///< 0 = row by row
  friend bool operator==(const ImageFormat&, const ImageFormat&) = default;
};

/// What a program must know to feed a model and to name its answer, beyond sizes and functions: the section "data" of config.json. A program that is
/// given a model folder and a stream of samples needs nothing else.
///
///   "data": {"name": "fsdd", "sample_rate": 8000, "frame": 80, "gain": 1.0, "normalize": "none", "labels": ["0", ..., "9"]}
///
/// Of pictures there is one key more:  "image": {"height": 32, "width": 32, "mean": 0.48, "std": 0.24, "permutation_seed": 0}
/// Models of tasks that have nothing to say here have no such section.
struct InputFormat {
  std::string name;                 ///< data.name of the recipe; empty = nothing is known
  int64_t sample_rate = 0;          ///< of sound: samples a second
  int64_t frame = 0;                ///< of sound: samples a step (data/frames.h); the last one of a clip is filled up with zeros
  double gain = 1;                  ///< what each sample in [-1, 1] is multiplied by
  std::string normalize = "none";   ///< none | time-index, which needs whole clips and their training data: no stream can do it
  std::vector<std::string> labels;  ///< what the classes are called, in the order of the logits

  std::optional<ImageFormat> image = {};  ///< of pictures

  bool empty() const { return name.empty(); }
  friend bool operator==(const InputFormat&, const InputFormat&) = default;
};

nlohmann::ordered_json to_json(const InputFormat& format);
/// All keys (but `image`) must be there and no others: Error (kModel) naming the key, what was expected and what was found. `where` begins the
/// message.
InputFormat input_format_from_json(const nlohmann::ordered_json& json, const std::string& where);

}  // namespace seqboat::config
