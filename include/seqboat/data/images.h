#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "seqboat/data/dataset.h"

/// Grey pictures of one size with a label each: CIFAR-10, MNIST, Pathfinder, as users have their files.
///
/// Inside, and in the compact form of files, a picture is a record: one byte of label, then height * width bytes of grey, row by row.
namespace seqboat::data {

enum class ImageForm { kCifar10, kMnist, kPathfinder };

ImageForm parse_image_form(std::string_view name);  ///< "cifar10", "mnist", "pathfinder"; Error (kUsage) for anything else
const char* image_form_name(ImageForm form);
/// Class 0 first. Pathfinder: "apart" (the markers lie on two contours), "together".
const std::vector<std::string>& image_labels(ImageForm form);

/// Records that lie in memory or in a mapped file; copies share them.
class ImageDataset {
 public:
  ImageDataset() = default;
  /// `bytes` holds whole records and lives as long as `owner`.
  ImageDataset(int64_t height, int64_t width, std::span<const uint8_t> bytes, std::shared_ptr<const void> owner);
  ImageDataset(int64_t height, int64_t width, std::vector<uint8_t> bytes);

  int64_t height() const { return height_; }
  int64_t width() const { return width_; }
  int64_t pixels() const { return height_ * width_; }
  int64_t size() const { return size_; }
  int64_t label(int64_t i) const { return records_[i * (pixels() + 1)]; }
  std::span<const uint8_t> image(int64_t i) const { return {records_ + i * (pixels() + 1) + 1, static_cast<size_t>(pixels())}; }
  std::span<const uint8_t> bytes() const { return {records_, static_cast<size_t>(size_ * (pixels() + 1))}; }
  /// Pictures [first, first + count).
  ImageDataset part(int64_t first, int64_t count) const;

 private:
  int64_t height_ = 0, width_ = 0, size_ = 0;
  const uint8_t* records_ = nullptr;
  std::shared_ptr<const void> owner_;
};

/// A file of records. Error (kData) with file, offset, expected and found: missing, empty, packed (.xz, .gz: with the command that unpacks it), a
/// size that is no whole number of records, a label that is `classes` or more.
ImageDataset read_image_records(const std::filesystem::path& path, int64_t height, int64_t width, int64_t classes);

/// CIFAR-10's binary form: 3,073 bytes a picture, a label and 32 x 32 bytes each of red, green and blue, made grey as PIL's mode "L" does it:
///   (19595 R + 38470 G + 7471 B + 32768) >> 16
/// Errors as read_image_records.
ImageDataset read_cifar10_binary(const std::vector<std::filesystem::path>& paths);

/// MNIST's idx files, pictures of 28 x 28 and labels. Errors as read_image_records, and for a magic number that is another's, and for numbers in a
/// header that are not those of the file's length or of the other file: no header is believed.
ImageDataset read_idx(const std::filesystem::path& images, const std::filesystem::path& labels);

struct ImageReadOptions {
  /// Of the training records the last tenth is for validation; else all are trained on and the test's validate. Pathfinder has a split of its own.
  bool validate_on_test = false;
  int64_t size = 32;  ///< Pathfinder: height and width
};

/// The files at `where` that hold a split (CIFAR-10, MNIST: kTrain and kValid have the same), in the first of these forms that is there; empty if
/// none.
///   CIFAR-10    cifar10_gray_{train,test}.bin; data_batch_1.bin to data_batch_5.bin, test_batch.bin, also in cifar-10-batches-bin/
///   MNIST       {train,t10k}-images-idx3-ubyte and -labels-idx1-ubyte (or with a dot before "idx"), also in raw/ and MNIST/raw/
///   Pathfinder  pathfinder{32,128}_{train,val,test}.bin, as `seqboat data make pathfinder` writes them
/// `where` itself may be a file of records, which then is every split.
std::vector<std::filesystem::path> find_images(ImageForm form, const std::filesystem::path& where, Split split, const ImageReadOptions& options = {});

/// A split. Errors of the readers, and (kData) that names what was looked for and how to come by it.
ImageDataset read_images(ImageForm form, const std::filesystem::path& where, Split split, const ImageReadOptions& options = {});

/// `count` numbers, a permutation of 0 .. count - 1 that depends on the seed alone; the same on every machine.
std::vector<int64_t> pixel_permutation(int64_t count, uint64_t seed);

}  // namespace seqboat::data
