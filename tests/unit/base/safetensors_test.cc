#include "seqboat/base/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <limits>

#include "seqboat/base/file_io.h"
#include "seqboat/base/philox.h"
#include "unit/base/temp_dir.h"

namespace seqboat {
namespace {

using test::expect_error;
using test::TempDir;

std::string file_of(const std::string& header, size_t data_bytes) {
  const uint64_t size = header.size();
  std::string result(8, '\0');
  std::memcpy(result.data(), &size, 8);
  return result + header + std::string(data_bytes, '\x01');
}

// Without the fsync of write_file_atomically, which thousands of rounds would wait for; and always a new file, as some file systems bring a file that
// is truncated and written again to the disk when it is closed.
void put(const std::filesystem::path& path, const std::string& bytes) {
  std::filesystem::remove(path);
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << bytes;
  ASSERT_TRUE(file.flush());
}

template <class T>
TensorView view(const std::string& name, DType dtype, std::vector<int64_t> shape, const std::vector<T>& values) {
  return {name, dtype, std::move(shape), values.data(), values.size() * sizeof(T)};
}

// Two tensors, one empty, one scalar, metadata.
std::string valid_file(const TempDir& dir) {
  const std::vector<float> a = {1, 2, 3, 4, 5, 6};
  const std::vector<int64_t> b = {-1};
  const std::vector<uint8_t> c = {7, 8, 9};
  const std::vector<float> empty;
  write_safetensors(
      dir / "valid",
      {view("a", DType::kF32, {2, 3}, a), view("b", DType::kI64, {}, b), view("c", DType::kU8, {3}, c), view("empty", DType::kF32, {0, 4}, empty)},
      {{"format", "pt"}, {"note", "\"quotes\" and \xc3\xa9"}});
  return read_file(dir / "valid");
}

TEST(Safetensors, WhatIsWrittenIsRead) {
  TempDir dir;
  const std::string bytes = valid_file(dir);
  const SafetensorsFile file = SafetensorsFile::open(dir / "valid");
  ASSERT_EQ(file.tensors().size(), 4u);
  EXPECT_EQ(file.at("a").shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(file.at("a").dtype, DType::kF32);
  EXPECT_EQ(file.at("a").count(), 6);
  float a[6];
  std::memcpy(a, file.at("a").data, sizeof a);
  EXPECT_EQ(a[5], 6.0f);
  EXPECT_TRUE(file.at("b").shape.empty());
  EXPECT_EQ(file.at("b").count(), 1);
  EXPECT_EQ(file.at("empty").count(), 0);
  EXPECT_EQ(file.at("empty").size_bytes, 0u);
  EXPECT_EQ(file.metadata().at("note"), "\"quotes\" and \xc3\xa9");
  EXPECT_EQ(file.find("absent"), nullptr);
  expect_error(ErrorKind::kModel, {"valid", "'absent'"}, [&] { file.at("absent"); });
  for (const TensorView& tensor : file.tensors()) EXPECT_TRUE(tensor.is_aligned()) << tensor.name;
  uint64_t header_bytes;
  std::memcpy(&header_bytes, bytes.data(), 8);
  EXPECT_EQ(header_bytes % 8, 0u);
  valid_file(dir);
  EXPECT_EQ(read_file(dir / "valid"), bytes);  // same input, same bytes
}

TEST(Safetensors, EveryDType) {
  TempDir dir;
  std::vector<TensorView> tensors;
  const std::vector<uint8_t> bytes(16, 3);
  for (int i = 0; i <= static_cast<int>(DType::kU64); ++i) {
    const auto dtype = static_cast<DType>(i);
    tensors.push_back({dtype_name(dtype), dtype, {2}, bytes.data(), 2 * dtype_size(dtype)});
  }
  write_safetensors(dir / "f", tensors);
  const SafetensorsFile file = SafetensorsFile::open(dir / "f");
  EXPECT_EQ(file.tensors().size(), tensors.size());
  for (const TensorView& tensor : tensors) {
    EXPECT_EQ(file.at(tensor.name).dtype, tensor.dtype);
    EXPECT_EQ(file.at(tensor.name).size_bytes, tensor.size_bytes);
  }
}

TEST(Safetensors, NoTensorsAtAll) {
  TempDir dir;
  write_safetensors(dir / "f", {});
  EXPECT_TRUE(SafetensorsFile::open(dir / "f").tensors().empty());
  write_file_atomically(dir / "f", file_of("{}", 0));
  EXPECT_TRUE(SafetensorsFile::open(dir / "f").tensors().empty());
}

TEST(Safetensors, ViewsOutliveTheObjectThatMadeThem) {
  TempDir dir;
  valid_file(dir);
  SafetensorsFile copy = SafetensorsFile::open(dir / "valid");
  copy = SafetensorsFile(copy);
  float first;
  std::memcpy(&first, copy.at("a").data, 4);
  EXPECT_EQ(first, 1.0f);
}

TEST(Safetensors, AcceptsForeignButLegalFiles) {
  TempDir dir;
  const auto opens = [&](const std::string& header, size_t data_bytes) {
    write_file_atomically(dir / "f", file_of(header, data_bytes));
    return SafetensorsFile::open(dir / "f");
  };
  // Order in the header is free; tensors come by offset; data need not be aligned.
  const SafetensorsFile file =
      opens(R"({"z":{"shape":[1],"dtype":"F32","data_offsets":[3,7]},"y":{"data_offsets":[0,3],"dtype":"U8","shape":[3]}})", 7);
  EXPECT_EQ(file.tensors()[0].name, "y");
  EXPECT_EQ(file.tensors()[1].name, "z");
  EXPECT_EQ(opens("{ \n\t}   \n ", 0).tensors().size(), 0u);
  EXPECT_EQ(opens(R"({"__metadata__":{}})", 0).metadata().size(), 0u);
  // Empty tensors at the beginning, in the middle (same offset as the next) and at the end.
  EXPECT_EQ(opens(R"({"c":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},)"
                  R"("d":{"dtype":"U8","shape":[1],"data_offsets":[2,3]},"e":{"dtype":"U8","shape":[5,0],"data_offsets":[2,2]},)"
                  R"("f":{"dtype":"U8","shape":[0,9],"data_offsets":[3,3]}})",
                  3)
                .tensors()
                .size(),
            5u);
  EXPECT_EQ(opens("{\"\xe6\xbc\xa2\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}", 1).tensors()[0].name, "\xe6\xbc\xa2");
}

struct BadHeader {
  const char* what;
  std::string header;
  size_t data_bytes;
  std::vector<std::string> pieces;
};

TEST(Safetensors, RefusesBadHeaders) {
  const auto one = [](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return R"({"w":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
  };
  const std::string good = R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})";
  const std::vector<BadHeader> cases = {
      {"not json", "{nonsense}", 0, {"syntax error"}},
      {"text after", "{}x", 0, {"syntax error"}},
      {"cut short", R"({"w":{"dtype":"F3)", 0, {"syntax error"}},
      {"list", "[]", 0, {"JSON object"}},
      {"number", "17", 0, {"JSON object"}},
      {"null", "null", 0, {"JSON object"}},
      {"zero bytes", std::string(16, '\0'), 0, {"JSON object"}},
      {"byte-order mark", "\xef\xbb\xbf{}", 0, {"JSON object"}},
      {"invalid utf-8 name", "{\"\xff\xfe\":" + good + "}", 4, {"invalid UTF-8"}},
      {"overlong utf-8", "{\"\xc0\xaf\":" + good + "}", 4, {"invalid UTF-8"}},
      {"lone surrogate", R"({"\ud800":)" + good + "}", 4, {"syntax error"}},
      {"duplicate tensor", R"({"w":)" + good + R"(,"w":)" + good + "}", 4, {"'w'", "twice"}},
      {"duplicate by escape", R"({"w":)" + good + R"(,"\u0077":)" + good + "}", 4, {"'w'", "twice"}},
      {"duplicate key", R"({"w":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4, {"'w'", "'dtype' twice"}},
      {"unknown key", R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"extra":1}})", 4, {"'w'", "'extra'"}},
      {"no dtype", R"({"w":{"shape":[1],"data_offsets":[0,4]}})", 4, {"'w'", "no dtype"}},
      {"no shape", R"({"w":{"dtype":"F32","data_offsets":[0,4]}})", 4, {"'w'", "no shape"}},
      {"no offsets", R"({"w":{"dtype":"F32","shape":[1]}})", 4, {"'w'", "no data_offsets"}},
      {"empty tensor object", R"({"w":{}})", 4, {"'w'", "no dtype"}},
      {"tensor is a list", R"({"w":[]})", 4, {"'w'", "a list"}},
      {"tensor is null", R"({"w":null})", 4, {"'w'", "null"}},
      {"unknown dtype", one(R"("F8_E5M2")", "[4]", "[0,4]"), 4, {"'w'", "dtype", "F32", "'F8_E5M2'"}},
      {"dtype in small letters", one(R"("f32")", "[1]", "[0,4]"), 4, {"'w'", "'f32'"}},
      {"dtype is a number", one("3", "[1]", "[0,4]"), 4, {"'w'", "dtype", "the number 3"}},
      {"shape is a number", one(R"("F32")", "1", "[0,4]"), 4, {"'w'", "shape", "the number 1"}},
      {"shape of strings", one(R"("F32")", R"(["1"])", "[0,4]"), 4, {"'w'", "shape", "'1'"}},
      {"shape nested", one(R"("F32")", "[[1]]", "[0,4]"), 4, {"'w'", "a list"}},
      {"shape with a fraction", one(R"("F32")", "[1.0]", "[0,4]"), 4, {"'w'", "shape", "1.0"}},
      {"negative shape", one(R"("F32")", "[-1]", "[0,4]"), 4, {"'w'", "shape", "-1"}},
      {"two negatives", one(R"("F32")", "[-1,-1]", "[0,4]"), 4, {"'w'", "shape", "-1"}},
      {"shape beyond 64 bits", one(R"("F32")", "[99999999999999999999]", "[0,4]"), 4, {"'w'", "shape", "99999999999999999999"}},
      {"shape beyond 63 bits", one(R"("U8")", "[9223372036854775808]", "[0,4]"), 4, {"'w'", "shape", "9223372036854775808"}},
      {"product wraps to 4 bytes", one(R"("F32")", "[4611686018427387905]", "[0,4]"), 4, {"'w'", "does not fit"}},
      {"product wraps to 0", one(R"("F32")", "[4294967296,4294967296]", "[0,0]"), 0, {"'w'", "does not fit"}},
      {"overflow hidden by a zero", one(R"("F32")", "[0,4294967296,4294967296]", "[0,0]"), 0, {"'w'", "does not fit"}},
      {"number too large for a double", one(R"("F32")", "[1e999]", "[0,4]"), 4, {"syntax error"}},
      {"offsets: one", one(R"("F32")", "[1]", "[0]"), 4, {"'w'", "data_offsets", "found 1"}},
      {"offsets: none", one(R"("F32")", "[1]", "[]"), 4, {"'w'", "data_offsets", "found 0"}},
      {"offsets: three", one(R"("F32")", "[1]", "[0,4,4]"), 4, {"'w'", "data_offsets"}},
      {"offsets negative", one(R"("F32")", "[1]", "[-4,0]"), 4, {"'w'", "data_offsets", "-4"}},
      {"offsets reversed", one(R"("F32")", "[1]", "[4,0]"), 4, {"'w'", "[4, 0]"}},
      {"offsets out of range", one(R"("F32")", "[2]", "[0,8]"), 4, {"'w'", "4 bytes of data", "[0, 8]"}},
      {"offsets huge", one(R"("F32")", "[1]", "[18446744073709551612,18446744073709551615]"), 4, {"'w'", "18446744073709551612"}},
      {"size too small", one(R"("F32")", "[2]", "[0,4]"), 4, {"'w'", "takes 8 bytes", "hold 4"}},
      {"size too large", one(R"("F32")", "[1]", "[0,8]"), 8, {"'w'", "takes 4 bytes", "hold 8"}},
      {"overlap",
       R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
       4,
       {"'b'", "overlaps"}},
      {"same place", R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})", 3, {"overlaps"}},
      {"empty inside another",
       R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[0],"data_offsets":[2,2]}})",
       3,
       {"'b'", "overlaps"}},
      {"hole between",
       R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
       3,
       {"'b'", "hole"}},
      {"hole in front", one(R"("U8")", "[1]", "[1,2]"), 2, {"'w'", "hole"}},
      {"data left over", one(R"("U8")", "[1]", "[0,1]"), 2, {"cover the file", "offset 1", "at 2"}},
      {"data without tensors", "{}", 1, {"cover the file"}},
      {"metadata is a list", R"({"__metadata__":[]})", 0, {"__metadata__", "a list"}},
      {"metadata value a number", R"({"__metadata__":{"k":1}})", 0, {"__metadata__", "'k'", "the number 1"}},
      {"metadata value an object", R"({"__metadata__":{"k":{}}})", 0, {"__metadata__", "'k'", "an object"}},
      {"metadata value null", R"({"__metadata__":{"k":null}})", 0, {"__metadata__", "'k'", "null"}},
      {"metadata key twice", R"({"__metadata__":{"k":"1","k":"2"}})", 0, {"__metadata__", "'k'", "twice"}},
      {"metadata twice", R"({"__metadata__":{},"__metadata__":{}})", 0, {"__metadata__", "twice"}},
      {"control bytes in a name", R"({"a\nb\u0000":[]})", 0, {"'a\\x0ab\\x00'"}},
  };
  TempDir dir;
  for (const BadHeader& bad : cases) {
    SCOPED_TRACE(bad.what);
    put(dir / "bad.safetensors", file_of(bad.header, bad.data_bytes));
    std::vector<std::string> pieces = bad.pieces;
    pieces.push_back("bad.safetensors: ");
    expect_error(ErrorKind::kModel, pieces, [&] { SafetensorsFile::open(dir / "bad.safetensors"); });
  }
}

TEST(Safetensors, RefusesHostileNestingAndSizes) {
  TempDir dir;
  const auto refuse = [&](const std::string& header, const std::vector<std::string>& pieces) {
    put(dir / "f", file_of(header, 0));
    expect_error(ErrorKind::kModel, pieces, [&] { SafetensorsFile::open(dir / "f"); });
  };
  const size_t deep = 20'000'000;
  refuse(R"({"w":)" + std::string(deep, '['), {"a list"});
  refuse(R"({"w":{"shape":)" + std::string(deep, '['), {"a list"});
  std::string objects;
  for (int i = 0; i < 1000000; ++i) objects += R"({"w":)";
  refuse(objects, {"'w'", "'w'"});
  refuse(R"({"__metadata__":)" + objects, {"__metadata__"});
  // A name of megabytes must not become a message of megabytes.
  try {
    put(dir / "f", file_of("{\"" + std::string(5'000'000, 'n') + "\":3}", 0));
    SafetensorsFile::open(dir / "f");
    FAIL() << "opened";
  } catch (const Error& error) {
    EXPECT_LT(std::strlen(error.what()), 1000u);
  }
  std::string many_dimensions = R"({"w":{"dtype":"U8","data_offsets":[0,1],"shape":[1)";
  for (int i = 0; i < 100000; ++i) many_dimensions += ",2";
  refuse(many_dimensions + "]}}", {"'w'"});
}

TEST(Safetensors, RefusesBadLengths) {
  TempDir dir;
  const auto refuse = [&](const std::string& bytes, const std::vector<std::string>& pieces) {
    put(dir / "f", bytes);
    expect_error(ErrorKind::kModel, pieces, [&] { SafetensorsFile::open(dir / "f"); });
  };
  expect_error(ErrorKind::kModel, {"absent", "No such file"}, [&] { SafetensorsFile::open(dir / "absent"); });
  expect_error(ErrorKind::kModel, {"found a folder"}, [&] { SafetensorsFile::open(dir.path()); });
  refuse("", {"at least 8 bytes", "found 0"});
  refuse("1234567", {"at least 8 bytes", "found 7"});
  refuse(std::string(8, '\0'), {"header length", "found 0"});
  refuse(std::string(8, '\0') + "{}", {"header length", "found 0"});
  refuse(std::string(8, '\xff') + "{}", {"header length", "18446744073709551615"});
  refuse(std::string("\x03\0\0\0\0\0\0\0{}", 10), {"cut short", "3 bytes", "2 bytes follow"});
  refuse(std::string("\x01\0\0\0\0\0\0\0{", 9), {"header length", "found 1"});
  const uint64_t limit = 100'000'000;
  for (uint64_t size : {limit, limit + 1}) {
    std::string bytes(8, '\0');
    std::memcpy(bytes.data(), &size, 8);
    refuse(bytes + "{}", {size == limit ? "cut short" : "expected at most 100000000"});
  }
  // Longer than allowed and really there: still refused.
  std::string huge = file_of("{}" + std::string(limit, ' '), 0);
  refuse(huge, {"expected at most 100000000, found 100000002"});
  huge = file_of("{}" + std::string(limit - 2, ' '), 0);
  put(dir / "f", huge);
  EXPECT_TRUE(SafetensorsFile::open(dir / "f").tensors().empty());
}

TEST(Safetensors, TruncatedAnywhereIsRefused) {
  TempDir dir;
  const std::string bytes = valid_file(dir);
  for (size_t size = 0; size < bytes.size(); ++size) {
    put(dir / "f", bytes.substr(0, size));
    expect_error(ErrorKind::kModel, {"f: "}, [&] { SafetensorsFile::open(dir / "f"); });
  }
  put(dir / "f", bytes + "x");
  expect_error(ErrorKind::kModel, {"cover the file"}, [&] { SafetensorsFile::open(dir / "f"); });
}

// Flips, inserts, removes and copies pieces of a valid file. Every result must either open, with views inside the file, or throw Error.
TEST(Safetensors, MutatedFilesOpenOrThrow) {
  TempDir dir;
  const std::string valid = valid_file(dir);
  const std::vector<std::string> words = {"\"dtype\"",
                                          "\"shape\"",
                                          "\"data_offsets\"",
                                          "\"F32\"",
                                          "\"U8\"",
                                          "\"a\":",
                                          "[",
                                          "]",
                                          "{",
                                          "}",
                                          ",",
                                          ":",
                                          "-1",
                                          "0",
                                          "18446744073709551615",
                                          "1e308",
                                          "9223372036854775807",
                                          "null",
                                          "\\u0000",
                                          "\xff",
                                          "__metadata__"};
  PhiloxStream random(20260101, 1);
  int opened = 0;
  int refused = 0;
  for (int round = 0; round < 10000; ++round) {
    std::string bytes = valid;
    const uint64_t mutations = 1 + random.next_below(3);
    for (uint64_t m = 0; m < mutations && !bytes.empty(); ++m) {
      const size_t where = random.next_below(bytes.size());
      switch (random.next_below(8)) {
        case 0:
          bytes[where] = static_cast<char>(random.next_u32());
          break;
        case 1:
          bytes[where] = static_cast<char>(bytes[where] ^ (1 << random.next_below(8)));
          break;
        case 2:
          bytes.insert(where, words[random.next_below(words.size())]);
          break;
        case 3:
          bytes.erase(where, 1 + random.next_below(12));
          break;
        case 4:
          bytes.insert(where, bytes.substr(random.next_below(bytes.size()), random.next_below(60)));
          break;
        case 5:
          bytes.replace(random.next_below(std::min<size_t>(8, bytes.size())), 1, 1, static_cast<char>(random.next_u32()));
          break;
        case 7:
          bytes.back() = static_cast<char>(random.next_u32());
          break;   // data
        case 6: {  // a digit of the header becomes another one: shapes and offsets change and the JSON stays valid
          const size_t digit = bytes.find_first_of("0123456789", where);
          if (digit != std::string::npos) bytes[digit] = static_cast<char>('0' + random.next_below(10));
          break;
        }
      }
    }
    if (random.next_below(2) == 0 && bytes.size() > 8) {
      // Repair the length so that the mutation reaches the JSON behind it.
      const size_t end = bytes.rfind('}');
      const uint64_t size = end == std::string::npos || end < 8 ? 0 : end + 1 - 8;
      std::memcpy(bytes.data(), &size, 8);
    }
    put(dir / "f", bytes);
    try {
      const SafetensorsFile file = SafetensorsFile::open(dir / "f");
      ++opened;
      size_t total = 0;
      unsigned sum = 0;
      for (const TensorView& tensor : file.tensors()) {
        ASSERT_EQ(static_cast<size_t>(tensor.count()) * dtype_size(tensor.dtype), tensor.size_bytes);
        for (size_t i = 0; i < tensor.size_bytes; ++i) sum += static_cast<const unsigned char*>(tensor.data)[i];
        total += tensor.size_bytes;
      }
      ASSERT_LT(total, bytes.size()) << sum;
    } catch (const Error& error) {
      ++refused;
      ASSERT_EQ(error.kind(), ErrorKind::kModel) << error.what();
      ASSERT_LT(std::strlen(error.what()), 2000u);
    }
  }
  // Both sides must have been seen, or the test tests nothing.
  EXPECT_GT(opened, 100);
  EXPECT_GT(refused, 1000);
}

TEST(Safetensors, WriterRefusesWhatNoReaderTakes) {
  TempDir dir;
  write_file_atomically(dir / "f", "old");
  const std::vector<float> a = {1, 2};
  const auto refuse = [&](const std::vector<TensorView>& tensors, const std::map<std::string, std::string>& metadata,
                          const std::vector<std::string>& pieces) {
    expect_error(ErrorKind::kModel, pieces, [&] { write_safetensors(dir / "f", tensors, metadata); });
  };
  refuse({view("a", DType::kF32, {2}, a), view("a", DType::kF32, {2}, a)}, {}, {"'a'", "twice"});
  refuse({view("a", DType::kF32, {3}, a)}, {}, {"'a'", "[3]", "8 bytes"});
  refuse({view("a", DType::kF64, {2}, a)}, {}, {"'a'", "F64"});
  refuse({view("a", DType::kF32, {-2}, a)}, {}, {"'a'", "[-2]"});
  refuse({view("__metadata__", DType::kF32, {2}, a)}, {}, {"__metadata__"});
  refuse({view("\xff", DType::kF32, {2}, a)}, {}, {"\\xff"});
  refuse({}, {{"k", "\xff"}}, {"'k'", "UTF-8"});
  EXPECT_EQ(read_file(dir / "f"), "old");
  EXPECT_EQ(dir.list(), std::vector<std::string>{"f"});
}

}  // namespace
}  // namespace seqboat
