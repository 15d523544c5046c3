#include "seqboat/data/images.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"
#include "unit/base/temp_dir.h"

namespace seqboat::data {
namespace {

using test::expect_error;
using test::TempDir;

std::string big_endian(uint32_t number) {
  return {static_cast<char>(number >> 24), static_cast<char>(number >> 16 & 255), static_cast<char>(number >> 8 & 255),
          static_cast<char>(number & 255)};
}

class Images : public ::testing::Test {
 protected:
  std::filesystem::path put(const std::string& name, const std::string& content) const {
    std::filesystem::create_directories((dir_ / name).parent_path());
    write_file_atomically(dir_ / name, content);
    return dir_ / name;
  }
  /// `count` grey records of 32 x 32: picture i is full of i, and of class i % 10.
  static std::string grey_records(int count) {
    std::string out;
    for (int i = 0; i < count; ++i) out += std::string(1, static_cast<char>(i % 10)) + std::string(1024, static_cast<char>(i));
    return out;
  }
  TempDir dir_;
};

TEST_F(Images, GreyRecordsAndTheirSplits) {
  put("cifar10_gray_train.bin", grey_records(40));
  put("cifar10_gray_test.bin", grey_records(7));
  const auto read = [&](Split split, bool validate_on_test) {
    return read_images(ImageForm::kCifar10, dir_.path(), split, {.validate_on_test = validate_on_test});
  };
  EXPECT_EQ(read(Split::kTrain, false).size(), 36);
  const ImageDataset valid = read(Split::kValid, false);
  ASSERT_EQ(valid.size(), 4);  // the last tenth
  EXPECT_EQ(valid.label(0), 6);
  EXPECT_EQ(valid.image(0)[0], 36);
  EXPECT_EQ(valid.image(3)[1023], 39);
  EXPECT_EQ(read(Split::kTest, false).size(), 7);
  EXPECT_EQ(read(Split::kTrain, true).size(), 40);
  EXPECT_EQ(read(Split::kValid, true).size(), 7);
  // A file by itself is any split, whole.
  EXPECT_EQ(read_images(ImageForm::kCifar10, dir_ / "cifar10_gray_train.bin", Split::kTest).size(), 40);
}

TEST_F(Images, Cifar10ComesInColours) {
  // Red alone, green alone, blue alone, all: 0.299, 0.587, 0.114 of 255, and white.
  std::string record(1, 3);
  record += std::string(1, '\xff') + std::string(1023, 0);
  record += std::string(1, 0) + std::string(1, '\xff') + std::string(1022, 0);
  record += std::string(2, 0) + std::string(1, '\xff') + std::string(1021, 0);
  for (size_t channel = 0; channel < 3; ++channel) record[1 + channel * 1024 + 3] = '\xff';
  for (int i = 1; i <= 5; ++i) put("cifar-10-batches-bin/data_batch_" + std::to_string(i) + ".bin", record + record);
  const ImageDataset train = read_images(ImageForm::kCifar10, dir_.path(), Split::kTrain);
  ASSERT_EQ(train.size(), 9);  // ten less a tenth
  EXPECT_EQ(train.label(8), 3);
  const auto picture = train.image(8);
  EXPECT_EQ((std::vector<int>{picture[0], picture[1], picture[2], picture[3], picture[4]}), (std::vector<int>{76, 150, 29, 255, 0}));
  expect_error(ErrorKind::kData, {"test_batch.bin", "cifar10_gray_test.bin", "cs.toronto.edu"},
               [&] { read_images(ImageForm::kCifar10, dir_.path(), Split::kTest); });
  std::filesystem::remove(dir_ / "cifar-10-batches-bin/data_batch_4.bin");
  expect_error(ErrorKind::kData, {"data_batch_4.bin", "no such file, but others of its set"},
               [&] { read_images(ImageForm::kCifar10, dir_.path(), Split::kTrain); });
}

TEST_F(Images, MnistIsIdx) {
  const std::string header = big_endian(2051) + big_endian(2) + big_endian(28) + big_endian(28);
  std::string pixels(2 * 784, 0);
  pixels[784 + 27] = '\xc8';
  put("MNIST/raw/t10k-images-idx3-ubyte", header + pixels);
  put("MNIST/raw/t10k-labels-idx1-ubyte", big_endian(2049) + big_endian(2) + std::string("\x07\x01", 2));
  const ImageDataset test = read_images(ImageForm::kMnist, dir_.path(), Split::kTest);
  ASSERT_EQ(test.size(), 2);
  EXPECT_EQ((std::vector<int64_t>{test.height(), test.width(), test.label(0), test.label(1)}), (std::vector<int64_t>{28, 28, 7, 1}));
  EXPECT_EQ(test.image(1)[27], 0xc8);

  const auto expect_bad = [&](const char* name, const std::string& content, const std::vector<std::string>& parts) {
    const std::string before = read_file(dir_ / "MNIST/raw" / name);
    put(std::string("MNIST/raw/") + name, content);
    expect_error(ErrorKind::kData, parts, [&] { read_images(ImageForm::kMnist, dir_.path(), Split::kTest); });
    put(std::string("MNIST/raw/") + name, before);
  };
  const char *images = "t10k-images-idx3-ubyte", *labels = "t10k-labels-idx1-ubyte";
  expect_bad(images, header + pixels.substr(1), {images, "offset 4", "2 pictures", "1584 bytes", "1583"});
  expect_bad(images, big_endian(2049) + header.substr(4) + pixels, {images, "offset 0", "2051", "2049"});
  expect_bad(images, header.substr(0, 12) + big_endian(27) + pixels, {images, "offset 12", "28 columns", "27"});
  expect_bad(images, header.substr(0, 10), {images, "16 bytes", "10"});
  expect_bad(labels, big_endian(2049) + big_endian(1) + "\x07", {labels, "2 pictures", "found 1"});
  expect_bad(labels, big_endian(2049) + big_endian(2) + "\x07\x0a", {labels, "offset 9", "0 to 9", "10"});
  std::filesystem::rename(dir_ / "MNIST/raw/t10k-labels-idx1-ubyte", dir_ / "MNIST/raw/t10k-labels-idx1-ubyte.gz");
  expect_error(ErrorKind::kData, {"t10k-labels-idx1-ubyte", "gunzip -k"}, [&] { read_images(ImageForm::kMnist, dir_.path(), Split::kTest); });
}

TEST_F(Images, WhatIsNoFileOfPictures) {
  const auto read = [&](const std::filesystem::path& path) { return read_images(ImageForm::kCifar10, path, Split::kTest); };
  expect_error(ErrorKind::kData, {"none", "no such file", "--data"}, [&] { read(dir_ / "none"); });
  expect_error(ErrorKind::kData, {"empty"}, [&] { read(put("cifar10_gray_test.bin", "")); });
  expect_error(ErrorKind::kData, {"whole records of 1025 bytes", "2051 bytes", "offset 2050", "has 1"},
               [&] { read(put("cifar10_gray_test.bin", grey_records(2) + "x")); });
  std::string bad = grey_records(2);
  bad[1025] = 10;
  expect_error(ErrorKind::kData, {"offset 1025", "0 to 9", "10"}, [&] { read(put("cifar10_gray_test.bin", bad)); });
  expect_error(ErrorKind::kData, {"xz -dk"}, [&] { read(put("cifar10_gray_test.bin.xz", "x")); });
  expect_error(ErrorKind::kUsage, {"cifar10, mnist or pathfinder", "cifar"}, [&] { parse_image_form("cifar"); });
}

TEST(PixelPermutation, IsOneAndFollowsFromTheSeed) {
  std::vector<int64_t> order = pixel_permutation(784, 3);
  EXPECT_EQ(order, pixel_permutation(784, 3));
  EXPECT_NE(order, pixel_permutation(784, 4));
  std::sort(order.begin(), order.end());
  for (int64_t i = 0; i < 784; ++i) EXPECT_EQ(order[static_cast<size_t>(i)], i);
}

}  // namespace
}  // namespace seqboat::data
