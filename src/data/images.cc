#include "seqboat/data/images.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <system_error>

#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"
#include "seqboat/base/philox.h"
#include "seqboat/base/text.h"
#include "seqboat/data/pathfinder.h"

namespace seqboat::data {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kPermutationStream = uint64_t{0x9e} << 56;  // see batching.cc
constexpr int64_t kCifarSide = 32;
constexpr int64_t kMnistSide = 28;
constexpr int64_t kDigits = 10;

struct Form {
  ImageForm form;
  const char* name;
  std::vector<std::string> labels;
  const char* source;  ///< how one comes by the files
};

const std::vector<Form>& forms() {
  static const std::vector<Form> list = {
      {ImageForm::kCifar10,
       "cifar10",
       {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"},
       "Get the binary version of CIFAR-10 (cifar-10-binary.tar.gz, from www.cs.toronto.edu/~kriz/cifar.html), unpack it, and name its folder with "
       "--data DIR"},
      {ImageForm::kMnist,
       "mnist",
       {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"},
       "Get MNIST's four files (train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz and the same of t10k, from yann.lecun.com/exdb/mnist or a "
       "mirror), run gunzip on them, and name their folder with --data DIR"},
      {ImageForm::kPathfinder, "pathfinder", {"apart", "together"}, "Make them: seqboat data make pathfinder --out DIR"},
  };
  return list;
}

const Form& form_of(ImageForm form) {
  return forms()[static_cast<size_t>(form)];
}

bool is_there(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

bool is_folder(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

/// The command that unpacks a file; empty if it is none of these.
std::string unpacking(const fs::path& path) {
  const std::string extension = path.extension().string(), name = path.string();
  if (name.ends_with(".tar.gz") || extension == ".tgz") return "tar xzf " + name;
  if (extension == ".gz") return "gunzip -k " + name;
  if (extension == ".xz") return "xz -dk " + name;
  return {};
}

MappedFile open_images(const fs::path& path) {
  const std::string command = unpacking(path);
  SEQBOAT_CHECK(command.empty(), ErrorKind::kData, "{}: expected the unpacked file: run {}", path.string(), command);
  MappedFile file;
  try {
    file = MappedFile::open(path);
  } catch (const Error& error) {
    throw Error(ErrorKind::kData, error.what());
  }
  SEQBOAT_CHECK(file.size() > 0, ErrorKind::kData, "{}: the file is empty: expected pictures", path.string());
  return file;
}

const uint8_t* bytes_of(const MappedFile& file) {
  return reinterpret_cast<const uint8_t*>(file.data());
}

void check_records(const fs::path& path, const MappedFile& file, int64_t record, int64_t classes, const char* what) {
  const auto size = static_cast<int64_t>(file.size());
  SEQBOAT_CHECK(size % record == 0, ErrorKind::kData,
                "{}: expected whole records of {} bytes ({}), found {} bytes: the last one, at offset {}, has {}", path.string(), record, what, size,
                size / record * record, size % record);
  for (int64_t at = 0; at < size; at += record) {
    SEQBOAT_CHECK(bytes_of(file)[at] < classes, ErrorKind::kData, "{}: offset {}: label: expected 0 to {}, found {}", path.string(), at, classes - 1,
                  bytes_of(file)[at]);
  }
}

uint32_t big_endian(const uint8_t* at) {
  return uint32_t{at[0]} << 24 | uint32_t{at[1]} << 16 | uint32_t{at[2]} << 8 | at[3];
}

/// Checks an idx header of one dimension (labels) or three, and that the file is as long as it says.
int64_t idx_count(const fs::path& path, const MappedFile& file, bool images) {
  const uint32_t magic = images ? 2051 : 2049;
  const int64_t header = images ? 16 : 8, each = images ? kMnistSide * kMnistSide : 1;
  const auto size = static_cast<int64_t>(file.size());
  const std::string where = path.string();
  SEQBOAT_CHECK(size >= header, ErrorKind::kData, "{}: expected a header of {} bytes, found {} bytes", where, header, size);
  const uint8_t* bytes = bytes_of(file);
  SEQBOAT_CHECK(big_endian(bytes) == magic, ErrorKind::kData, "{}: offset 0: expected the magic number {} of idx {}, found {}", where, magic,
                images ? "pictures" : "labels", big_endian(bytes));
  for (int64_t at = 8; at < header; at += 4) {
    SEQBOAT_CHECK(big_endian(bytes + at) == kMnistSide, ErrorKind::kData, "{}: offset {}: expected {} {}, found {}", where, at, kMnistSide,
                  at == 8 ? "rows" : "columns", big_endian(bytes + at));
  }
  const int64_t count = big_endian(bytes + 4);
  SEQBOAT_CHECK(count > 0 && size - header == count * each, ErrorKind::kData, "{}: offset 4: the header tells of {} {}, expected {} bytes, found {}",
                where, count, images ? "pictures" : "labels", header + count * each, size);
  return count;
}

}  // namespace

ImageForm parse_image_form(std::string_view name) {
  for (const Form& form : forms()) {
    if (name == form.name) return form.form;
  }
  fail(ErrorKind::kUsage, "expected cifar10, mnist or pathfinder, found {}", in_quotes(std::string(name)));
}

const char* image_form_name(ImageForm form) {
  return form_of(form).name;
}

const std::vector<std::string>& image_labels(ImageForm form) {
  return form_of(form).labels;
}

ImageDataset::ImageDataset(int64_t height, int64_t width, std::span<const uint8_t> bytes, std::shared_ptr<const void> owner)
    : height_(height),
      width_(width),
      size_(static_cast<int64_t>(bytes.size()) / (height * width + 1)),
      records_(bytes.data()),
      owner_(std::move(owner)) {
  SEQBOAT_DCHECK(static_cast<int64_t>(bytes.size()) % (height * width + 1) == 0);
}

ImageDataset::ImageDataset(int64_t height, int64_t width, std::vector<uint8_t> bytes) {
  auto kept = std::make_shared<const std::vector<uint8_t>>(std::move(bytes));
  *this = ImageDataset(height, width, std::span<const uint8_t>(*kept), kept);
}

ImageDataset ImageDataset::part(int64_t first, int64_t count) const {
  SEQBOAT_DCHECK(first >= 0 && count >= 0 && first + count <= size_);
  ImageDataset out = *this;
  out.records_ = records_ + first * (pixels() + 1);
  out.size_ = count;
  return out;
}

ImageDataset read_image_records(const fs::path& path, int64_t height, int64_t width, int64_t classes) {
  auto file = std::make_shared<MappedFile>(open_images(path));
  check_records(path, *file, height * width + 1, classes, fmt::format("a label and {} x {} bytes of grey", height, width).c_str());
  return ImageDataset(height, width, std::span<const uint8_t>(bytes_of(*file), file->size()), file);
}

ImageDataset read_cifar10_binary(const std::vector<fs::path>& paths) {
  constexpr int64_t kPixels = kCifarSide * kCifarSide, kRecord = 3 * kPixels + 1;
  std::vector<uint8_t> records;
  for (const fs::path& path : paths) {
    const MappedFile file = open_images(path);
    check_records(path, file, kRecord, kDigits, "a label and 32 x 32 bytes each of red, green and blue");
    records.reserve(records.size() + file.size() / 3 + 1);
    for (int64_t at = 0; at < static_cast<int64_t>(file.size()); at += kRecord) {
      const uint8_t* red = bytes_of(file) + at + 1;
      records.push_back(red[-1]);
      for (int64_t i = 0; i < kPixels; ++i) {
        const uint32_t grey = 19595U * red[i] + 38470U * red[i + kPixels] + 7471U * red[i + 2 * kPixels] + 32768U;
        records.push_back(static_cast<uint8_t>(grey >> 16));
      }
    }
  }
  return ImageDataset(kCifarSide, kCifarSide, std::move(records));
}

ImageDataset read_idx(const fs::path& images, const fs::path& labels) {
  const MappedFile pictures = open_images(images), classes = open_images(labels);
  const int64_t count = idx_count(images, pictures, true), label_count = idx_count(labels, classes, false);
  SEQBOAT_CHECK(count == label_count, ErrorKind::kData, "{}: expected a label for each of the {} pictures of {}, found {}", labels.string(), count,
                images.string(), label_count);
  constexpr int64_t kPixels = kMnistSide * kMnistSide;
  std::vector<uint8_t> records;
  records.reserve(static_cast<size_t>(count * (kPixels + 1)));
  for (int64_t i = 0; i < count; ++i) {
    const uint8_t label = bytes_of(classes)[8 + i];
    SEQBOAT_CHECK(label < kDigits, ErrorKind::kData, "{}: offset {}: label: expected 0 to 9, found {}", labels.string(), 8 + i, label);
    records.push_back(label);
    const uint8_t* picture = bytes_of(pictures) + 16 + i * kPixels;
    records.insert(records.end(), picture, picture + kPixels);
  }
  return ImageDataset(kMnistSide, kMnistSide, std::move(records));
}

namespace {

/// The files of a split, each complete set of them in one form, whether they are there or not.
std::vector<std::vector<fs::path>> candidates(ImageForm form, const fs::path& where, Split split, int64_t size) {
  const bool test = split == Split::kTest;
  std::vector<std::vector<fs::path>> out;
  if (form == ImageForm::kCifar10) {
    out.push_back({where / (test ? "cifar10_gray_test.bin" : "cifar10_gray_train.bin")});
    for (const fs::path& folder : {where, where / "cifar-10-batches-bin"}) {
      out.emplace_back();
      if (test) out.back().push_back(folder / "test_batch.bin");
      for (int i = 1; !test && i <= 5; ++i) out.back().push_back(folder / fmt::format("data_batch_{}.bin", i));
    }
  } else if (form == ImageForm::kMnist) {
    const std::string part = test ? "t10k" : "train";
    for (const fs::path& folder : {where, where / "raw", where / "MNIST" / "raw"}) {
      out.push_back({folder / (part + "-images-idx3-ubyte"), folder / (part + "-labels-idx1-ubyte")});
      out.push_back({folder / (part + "-images.idx3-ubyte"), folder / (part + "-labels.idx1-ubyte")});
    }
  } else {
    out.push_back({pathfinder_file(where, size, split)});
  }
  return out;
}

[[noreturn]] void fail_missing(ImageForm form, const fs::path& where, const std::vector<std::vector<fs::path>>& sets) {
  SEQBOAT_CHECK(is_folder(where), ErrorKind::kData, "{}: no such file or folder. {}", where.string(), form_of(form).source);
  for (const auto& files : sets) {
    // A set of which something is there is what is meant.
    const bool begun = std::any_of(files.begin(), files.end(), is_there);
    for (const fs::path& file : files) {
      for (const char* extension : {".gz", ".xz"}) {
        const fs::path packed = file.string() + extension;
        SEQBOAT_CHECK(is_there(file) || !is_there(packed), ErrorKind::kData, "{}: no such file, but a packed one beside it: run {}", file.string(),
                      unpacking(packed));
      }
      SEQBOAT_CHECK(!begun || is_there(file), ErrorKind::kData, "{}: no such file, but others of its set are beside it. {}", file.string(),
                    form_of(form).source);
    }
  }
  if (const fs::path archive = where / "cifar-10-binary.tar.gz"; form == ImageForm::kCifar10 && is_there(archive)) {
    fail(ErrorKind::kData, "{}: no pictures, but the archive that holds them: run {} -C {}", where.string(), unpacking(archive), where.string());
  }
  std::string looked_for;
  for (const auto& files : sets) looked_for += fmt::format("{}{}", looked_for.empty() ? "" : " or ", files[0].lexically_relative(where).string());
  fail(ErrorKind::kData, "{}: no {} pictures: expected {}. {}", where.string(), image_form_name(form), looked_for, form_of(form).source);
}

}  // namespace

std::vector<fs::path> find_images(ImageForm form, const fs::path& where, Split split, const ImageReadOptions& options) {
  if (is_there(where)) return {where};
  for (const auto& files : candidates(form, where, split, options.size)) {
    if (std::all_of(files.begin(), files.end(), is_there)) return files;
  }
  return {};
}

ImageDataset read_images(ImageForm form, const fs::path& where, Split split, const ImageReadOptions& options) {
  const bool has_valid = form == ImageForm::kPathfinder;
  const Split source = !has_valid && split == Split::kValid && options.validate_on_test ? Split::kTest : split;
  const std::vector<fs::path> files = find_images(form, where, source, options);
  if (files.empty()) fail_missing(form, where, candidates(form, where, source, options.size));
  ImageDataset all;
  if (form == ImageForm::kPathfinder) {
    all = read_image_records(files[0], options.size, options.size, 2);
  } else if (form == ImageForm::kMnist) {
    SEQBOAT_CHECK(files.size() == 2, ErrorKind::kData, "{}: expected a folder with MNIST's pictures and labels, found a file", where.string());
    all = read_idx(files[0], files[1]);
  } else {
    const std::string name = files[0].filename().string();
    const bool coloured = name.starts_with("data_batch") || name.starts_with("test_batch");
    all = coloured ? read_cifar10_binary(files) : read_image_records(files[0], kCifarSide, kCifarSide, kDigits);
  }
  if (has_valid || source == Split::kTest || options.validate_on_test || files[0] == where) return all;
  const int64_t held_out = all.size() / 10;
  SEQBOAT_CHECK(held_out > 0, ErrorKind::kData, "{}: expected at least 10 pictures, of which the last tenth is held out, found {}", files[0].string(),
                all.size());
  return split == Split::kValid ? all.part(all.size() - held_out, held_out) : all.part(0, all.size() - held_out);
}

std::vector<int64_t> pixel_permutation(int64_t count, uint64_t seed) {
  std::vector<int64_t> out(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) out[static_cast<size_t>(i)] = i;
  PhiloxStream random(seed, kPermutationStream);
  for (int64_t i = count - 1; i > 0; --i) std::swap(out[static_cast<size_t>(i)], out[random.next_below(static_cast<uint64_t>(i) + 1)]);
  return out;
}

}  // namespace seqboat::data
