#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "seqboat/data/images.h"

/// Pathfinder of the Long Range Arena, generated: do two marked ends belong to one dashed contour?
///
/// After the published generator (github.com/drewlinsley/pathfinder, snakes2.py) and with its quirks, as far as they show in the pictures. A snake is
/// a chain of strokes; each next one starts where the last one points to, ends on a circle around that place with a weight of cos^2(continuity *
/// turn) (0 beyond a quarter turn) times what is free there, and stays at a margin from all that was drawn. Two snakes of `contour_length` strokes
/// begin `seed_distance` apart, shorter ones distract. A disc marks the beginning of one snake, and another the end of the same (label 1) or of the
/// other (label 0). Strokes are drawn `antialias` times larger and reduced by Lanczos' filter; the brightest pixel is 255.
namespace seqboat::data {

/// Raised when the generator gives other pictures for the same options.
inline constexpr int kPathfinderGeneratorVersion = 1;

struct PathfinderOptions {
  int64_t size = 32;                   ///< height and width
  std::vector<int64_t> margins = {1};  ///< around strokes; one is drawn for each picture
  int64_t padding = 1;                 ///< pixels at the borders on which nothing begins or turns
  int64_t stroke_length = 2;
  double thickness = 0.5;  ///< times antialias a whole number
  int64_t antialias = 2;
  int64_t contour_length = 14;
  int64_t distractor_length = 4;
  int64_t distractors = 5;
  int64_t seed_distance = 7;
  double marker_radius = 1.5;
  double continuity = 1.0;
  double contour_contrast = 1.5;  ///< brightness of the two snakes' strokes; a marker's is 1
  double distractor_contrast = 2.0;

  /// The arena's Pathfinder-32 (size 32) and Path-X (128). Error (kConfig) for another size.
  static PathfinderOptions lra(int64_t size);
};

/// Makes pictures one at a time. Picture `index` of a split is a function of options, seed, split and index alone (where sines and arc tangents have
/// the same bits), so they can be made in any order. An object keeps the strokes that it has drawn, so it belongs to one thread.
class PathfinderGenerator {
 public:
  PathfinderGenerator(const PathfinderOptions& options, uint64_t seed);
  ~PathfinderGenerator();
  /// Writes size * size bytes, returns the label.
  int64_t make(Split split, int64_t index, uint8_t* pixels);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

/// What a folder of generated pictures holds.
struct PathfinderMakeOptions {
  int64_t size = 32;
  uint64_t seed = 0;
  int64_t train = 160000;  ///< numbers of pictures
  int64_t valid = 20000;
  int64_t test = 20000;
  int64_t count(Split split) const { return split == Split::kTrain ? train : split == Split::kValid ? valid : test; }
};

struct PathfinderProgress {
  Split split;
  int64_t done;
  int64_t total;
};

/// Called on the calling thread, every 256 pictures and at each file's end. May throw to stop: finished files stay, the unfinished one leaves
/// nothing.
using PathfinderProgressCallback = std::function<void(const PathfinderProgress&)>;

/// "pathfinder32-seed0-160000-20000-20000"
std::string pathfinder_folder_name(const PathfinderMakeOptions& options);
/// FOLDER/pathfinder32_{train,val,test}.bin: records (images.h).
std::filesystem::path pathfinder_file(const std::filesystem::path& folder, int64_t size, Split split);

/// Makes what is missing of the given splits in `folder`, and the folder itself, and returns the splits that it made; pathfinder.json beside the
/// files tells with what options they were made. Everything else as ensure_listops (listops_cache.h).
std::vector<Split> ensure_pathfinder(const std::filesystem::path& folder, const PathfinderMakeOptions& options,
                                     const PathfinderProgressCallback& progress = {},
                                     const std::vector<Split>& splits = {Split::kTrain, Split::kValid, Split::kTest});

}  // namespace seqboat::data
