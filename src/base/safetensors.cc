#include "seqboat/base/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "seqboat/base/error.h"
#include "seqboat/base/file_io.h"
#include "seqboat/base/text.h"

namespace seqboat {
namespace {

static_assert(std::endian::native == std::endian::little, "views are handed out as they lie in the file, which is little-endian");

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr size_t kLengthBytes = 8;
constexpr const char* kMetadataKey = "__metadata__";

struct DTypeInfo {
  DType dtype;
  const char* name;
  size_t size;
};
constexpr std::array<DTypeInfo, 13> kDTypes = {{{DType::kBool, "BOOL", 1},
                                                {DType::kU8, "U8", 1},
                                                {DType::kI8, "I8", 1},
                                                {DType::kI16, "I16", 2},
                                                {DType::kU16, "U16", 2},
                                                {DType::kF16, "F16", 2},
                                                {DType::kBF16, "BF16", 2},
                                                {DType::kI32, "I32", 4},
                                                {DType::kU32, "U32", 4},
                                                {DType::kF32, "F32", 4},
                                                {DType::kF64, "F64", 8},
                                                {DType::kI64, "I64", 8},
                                                {DType::kU64, "U64", 8}}};

const DTypeInfo& info(DType dtype) {
  for (const DTypeInfo& entry : kDTypes) {
    if (entry.dtype == dtype) return entry;
  }
  fail(ErrorKind::kFailed, "dtype {} is none of the format's", static_cast<int>(dtype));
}

std::string shape_text(const std::vector<int64_t>& shape) {
  constexpr size_t kShown = 16;
  std::string result = "[";
  for (size_t i = 0; i < std::min(shape.size(), kShown); ++i) result += fmt::format("{}{}", i > 0 ? ", " : "", shape[i]);
  return result + (shape.size() > kShown ? fmt::format(", ... {} dimensions]", shape.size()) : "]");
}

/// Bytes of a tensor of this shape, or nothing when they do not fit into 63 bits. A zero anywhere makes the whole empty, but the other dimensions
/// must not overflow among themselves either: whoever multiplies them in another order would.
std::optional<uint64_t> bytes_of(const std::vector<int64_t>& shape, size_t element_bytes) {
  uint64_t nonzero = element_bytes;
  bool empty = false;
  for (int64_t size : shape) {
    if (size < 0) return std::nullopt;
    if (size == 0) {
      empty = true;
    } else if (__builtin_mul_overflow(nonzero, static_cast<uint64_t>(size), &nonzero) || nonzero > std::numeric_limits<int64_t>::max()) {
      return std::nullopt;
    }
  }
  return empty ? 0 : nonzero;
}

struct Entry {
  std::string name;
  std::optional<std::string> dtype;
  std::optional<std::vector<int64_t>> shape;
  std::optional<std::vector<uint64_t>> offsets;
};

/// Reads the header event by event: what does not belong there is refused where it stands, so neither nesting nor repeated keys ever get into a
/// tree, and the parser itself keeps no stack of calls. Any refusal leaves `problem` filled and stops the parser.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::vector<Entry> entries;
  std::map<std::string, std::string> metadata;
  std::string problem;

  bool null() override { return refuse("null"); }
  bool boolean(bool value) override { return refuse(value ? "true" : "false"); }
  bool number_float(double, const std::string& text) override { return refuse(fmt::format("the number {}", in_quotes(text))); }
  bool binary(nlohmann::json::binary_t&) override { return refuse("binary data"); }

  bool number_integer(int64_t value) override { return refuse(fmt::format("the number {}", value)); }  // the parser calls this for a leading minus

  bool number_unsigned(uint64_t value) override {
    if (place_ == Place::kShapeList) {
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return refuse(fmt::format("the number {}", value));
      entries.back().shape->push_back(static_cast<int64_t>(value));
      return true;
    }
    if (place_ == Place::kOffsetList && entries.back().offsets->size() < 2) {
      entries.back().offsets->push_back(value);
      return true;
    }
    return refuse(fmt::format("the number {}", value));
  }

  bool string(std::string& value) override {
    if (place_ == Place::kMetadataValue) {
      metadata.emplace(key_, value);
      place_ = Place::kMetadata;
      return true;
    }
    if (place_ == Place::kDTypeValue) {
      entries.back().dtype = value;
      place_ = Place::kTensor;
      return true;
    }
    return refuse(fmt::format("the string {}", in_quotes(value)));
  }

  bool start_object(size_t) override {
    switch (place_) {
      case Place::kStart:
        place_ = Place::kTop;
        return true;
      case Place::kTensorValue:
        place_ = Place::kTensor;
        return true;
      case Place::kMetadataObject:
        place_ = Place::kMetadata;
        return true;
      default:
        return refuse("an object");
    }
  }

  bool key(std::string& name) override {
    switch (place_) {
      case Place::kTop:
        if (name == kMetadataKey) {
          if (has_metadata_) return fail_with(fmt::format("the key {} comes twice", in_quotes(name)));
          has_metadata_ = true;
          place_ = Place::kMetadataObject;
          return true;
        }
        if (!names_.insert(name).second) return fail_with(fmt::format("tensor {} comes twice", in_quotes(name)));
        entries.push_back({name, {}, {}, {}});
        place_ = Place::kTensorValue;
        return true;
      case Place::kMetadata:
        if (metadata.contains(name)) return fail_with(fmt::format("the key {} of __metadata__ comes twice", in_quotes(name)));
        key_ = name;
        place_ = Place::kMetadataValue;
        return true;
      case Place::kTensor: {
        Entry& entry = entries.back();
        if (name == "dtype" && !entry.dtype) {
          place_ = Place::kDTypeValue;
        } else if (name == "shape" && !entry.shape) {
          place_ = Place::kShapeValue;
        } else if (name == "data_offsets" && !entry.offsets) {
          place_ = Place::kOffsetValue;
        } else {
          return fail_with(fmt::format("tensor {}: expected each of dtype, shape and data_offsets once and nothing else, found {}{}",
                                       in_quotes(entry.name), in_quotes(name),
                                       name == "dtype" || name == "shape" || name == "data_offsets" ? " twice" : ""));
        }
        return true;
      }
      default:
        return fail_with(fmt::format("unexpected key {}", in_quotes(name)));
    }
  }

  bool end_object() override {
    switch (place_) {
      case Place::kTop:
        place_ = Place::kEnd;
        return true;
      case Place::kMetadata:
        place_ = Place::kTop;
        return true;
      case Place::kTensor: {
        const Entry& entry = entries.back();
        const char* missing = !entry.dtype ? "dtype" : !entry.shape ? "shape" : !entry.offsets ? "data_offsets" : nullptr;
        if (missing != nullptr)
          return fail_with(fmt::format("tensor {}: expected dtype, shape and data_offsets, found no {}", in_quotes(entry.name), missing));
        place_ = Place::kTop;
        return true;
      }
      default:
        return fail_with("unexpected end of an object");
    }
  }

  bool start_array(size_t) override {
    if (place_ == Place::kShapeValue) {
      entries.back().shape.emplace();
      place_ = Place::kShapeList;
      return true;
    }
    if (place_ == Place::kOffsetValue) {
      entries.back().offsets.emplace();
      place_ = Place::kOffsetList;
      return true;
    }
    return refuse("a list");
  }

  bool end_array() override {
    if (place_ == Place::kOffsetList && entries.back().offsets->size() != 2) {
      return fail_with(
          fmt::format("tensor {}: data_offsets: expected two numbers, found {}", in_quotes(entries.back().name), entries.back().offsets->size()));
    }
    place_ = Place::kTensor;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception& error) override {
    // The library's own text quotes the input at any length and in any encoding: only its verdict is passed on.
    const bool encoding = std::string_view(error.what()).find("ill-formed UTF-8") != std::string_view::npos;
    return fail_with(
        fmt::format("the header must be JSON in UTF-8, found {} at its byte {}", encoding ? "invalid UTF-8" : "a syntax error", position));
  }

 private:
  enum class Place {
    kStart,
    kTop,
    kTensorValue,
    kTensor,
    kDTypeValue,
    kShapeValue,
    kShapeList,
    kOffsetValue,
    kOffsetList,
    kMetadataObject,
    kMetadata,
    kMetadataValue,
    kEnd
  };

  bool fail_with(std::string text) {
    problem = std::move(text);
    return false;
  }

  bool refuse(const std::string& found) {
    const std::string name = entries.empty() ? "" : in_quotes(entries.back().name);
    switch (place_) {
      case Place::kStart:
        return fail_with("the header must be a JSON object, found " + found);
      case Place::kTensorValue:
        return fail_with(fmt::format("tensor {}: expected an object with dtype, shape and data_offsets, found {}", name, found));
      case Place::kDTypeValue:
        return fail_with(fmt::format("tensor {}: dtype: expected a string, found {}", name, found));
      case Place::kShapeValue:
        return fail_with(fmt::format("tensor {}: shape: expected a list, found {}", name, found));
      case Place::kShapeList:
        return fail_with(fmt::format("tensor {}: shape: expected integers from 0 to 2^63 - 1, found {}", name, found));
      case Place::kOffsetValue:
        return fail_with(fmt::format("tensor {}: data_offsets: expected a list, found {}", name, found));
      case Place::kOffsetList:
        return fail_with(fmt::format("tensor {}: data_offsets: expected two integers from 0, found {}", name, found));
      case Place::kMetadataObject:
        return fail_with("__metadata__: expected an object of strings, found " + found);
      case Place::kMetadataValue:
        return fail_with(fmt::format("__metadata__: {}: expected a string, found {}", in_quotes(key_), found));
      default:
        return fail_with("unexpected " + found);
    }
  }

  Place place_ = Place::kStart;
  bool has_metadata_ = false;
  std::string key_;
  std::unordered_set<std::string> names_;
};

/// In quotes and escaped. The JSON library's exception for what is no UTF-8.
std::string json_string(const std::string& text) {
  return nlohmann::json(text).dump();
}

bool is_utf8(const std::string& text) {
  // The JSON library's own judgement, so that what is written can be read.
  try {
    static_cast<void>(json_string(text));
    return true;
  } catch (const nlohmann::json::exception&) {
    return false;
  }
}

}  // namespace

size_t dtype_size(DType dtype) {
  return info(dtype).size;
}

const char* dtype_name(DType dtype) {
  return info(dtype).name;
}

int64_t TensorView::count() const {
  int64_t result = 1;
  for (int64_t size : shape) result *= size;
  return result;
}

bool TensorView::is_aligned() const {
  return reinterpret_cast<uintptr_t>(data) % dtype_size(dtype) == 0;
}

struct SafetensorsFile::Impl {
  std::filesystem::path path;
  MappedFile file;
  std::vector<TensorView> tensors;
  std::unordered_map<std::string, size_t> index;
  std::map<std::string, std::string> metadata;
};

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  const std::string where = path.string();
  auto impl = std::make_shared<Impl>();
  impl->path = path;
  try {
    impl->file = MappedFile::open(path);
  } catch (const Error& error) {
    // Whatever the reason, the model is not there.
    if (error.kind() != ErrorKind::kFailed) throw;
    throw Error(ErrorKind::kModel, error.what());
  }
  const char* bytes = impl->file.data();
  const size_t file_size = impl->file.size();

  SEQBOAT_CHECK(file_size >= kLengthBytes, ErrorKind::kModel, "{}: not a safetensors file: expected at least {} bytes, found {}", where, kLengthBytes,
                file_size);
  uint64_t header_size;
  std::memcpy(&header_size, bytes, kLengthBytes);
  SEQBOAT_CHECK(header_size <= kMaxHeaderBytes, ErrorKind::kModel, "{}: not a safetensors file: header length: expected at most {}, found {}", where,
                kMaxHeaderBytes, header_size);
  SEQBOAT_CHECK(header_size <= file_size - kLengthBytes, ErrorKind::kModel,
                "{}: cut short, or not a safetensors file: a header of {} bytes is announced, {} bytes follow", where, header_size,
                file_size - kLengthBytes);
  SEQBOAT_CHECK(header_size >= 2, ErrorKind::kModel, "{}: not a safetensors file: header length: expected at least 2, found {}", where, header_size);
  const char* header = bytes + kLengthBytes;
  // A byte-order mark, which the JSON library would pass over, is not part of the format.
  SEQBOAT_CHECK(header[0] == '{', ErrorKind::kModel,
                "{}: not a safetensors file: the header must be a JSON object and begin with '{{', found byte {}", where,
                static_cast<int>(static_cast<unsigned char>(header[0])));

  HeaderReader reader;
  const bool parsed = nlohmann::json::sax_parse(header, header + header_size, &reader);
  SEQBOAT_CHECK(parsed, ErrorKind::kModel, "{}: {}", where, reader.problem.empty() ? "the header is no valid JSON" : reader.problem);

  const uint64_t data_size = file_size - kLengthBytes - header_size;
  const char* data = header + header_size;
  impl->tensors.reserve(reader.entries.size());
  for (Entry& entry : reader.entries) {
    const auto known = std::find_if(kDTypes.begin(), kDTypes.end(), [&](const DTypeInfo& each) { return *entry.dtype == each.name; });
    if (known == kDTypes.end()) {
      std::string words;
      for (const DTypeInfo& each : kDTypes) words += fmt::format("{}{}", words.empty() ? "" : ", ", each.name);
      fail(ErrorKind::kModel, "{}: tensor {}: dtype: expected one of {}, found {}", where, in_quotes(entry.name), words, in_quotes(*entry.dtype));
    }
    const uint64_t begin = (*entry.offsets)[0];
    const uint64_t end = (*entry.offsets)[1];
    SEQBOAT_CHECK(begin <= end && end <= data_size, ErrorKind::kModel,
                  "{}: tensor {}: data_offsets: expected a range within the {} bytes of data, found [{}, {}]", where, in_quotes(entry.name),
                  data_size, begin, end);
    const std::optional<uint64_t> expected = bytes_of(*entry.shape, known->size);
    SEQBOAT_CHECK(expected.has_value(), ErrorKind::kModel, "{}: tensor {}: shape {} of {} does not fit into memory", where, in_quotes(entry.name),
                  shape_text(*entry.shape), known->name);
    SEQBOAT_CHECK(*expected == end - begin, ErrorKind::kModel, "{}: tensor {}: shape {} of {} takes {} bytes, data_offsets [{}, {}] hold {}", where,
                  in_quotes(entry.name), shape_text(*entry.shape), known->name, *expected, begin, end, end - begin);
    impl->tensors.push_back({std::move(entry.name), known->dtype, std::move(*entry.shape), data + begin, static_cast<size_t>(end - begin)});
  }
  // Empty tensors share their offset with the next one and go first.
  std::stable_sort(impl->tensors.begin(), impl->tensors.end(), [](const TensorView& a, const TensorView& b) {
    return a.data != b.data ? std::less<const void*>()(a.data, b.data) : a.size_bytes < b.size_bytes;
  });
  const char* reached = data;
  for (const TensorView& tensor : impl->tensors) {
    const char* begin = static_cast<const char*>(tensor.data);
    SEQBOAT_CHECK(begin >= reached, ErrorKind::kModel, "{}: tensor {}: overlaps another: expected to begin at offset {}, found {}", where,
                  in_quotes(tensor.name), reached - data, begin - data);
    SEQBOAT_CHECK(begin == reached, ErrorKind::kModel, "{}: tensor {}: a hole lies before it: expected to begin at offset {}, found {}", where,
                  in_quotes(tensor.name), reached - data, begin - data);
    reached = begin + tensor.size_bytes;
  }
  SEQBOAT_CHECK(static_cast<uint64_t>(reached - data) == data_size, ErrorKind::kModel,
                "{}: the tensors must cover the file: they end at offset {}, the data at {}", where, reached - data, data_size);
  for (size_t i = 0; i < impl->tensors.size(); ++i) impl->index.emplace(impl->tensors[i].name, i);
  impl->metadata = std::move(reader.metadata);

  SafetensorsFile result;
  result.impl_ = std::move(impl);
  return result;
}

const std::vector<TensorView>& SafetensorsFile::tensors() const {
  return impl_->tensors;
}

const TensorView* SafetensorsFile::find(const std::string& name) const {
  const auto found = impl_->index.find(name);
  return found == impl_->index.end() ? nullptr : &impl_->tensors[found->second];
}

const TensorView& SafetensorsFile::at(const std::string& name) const {
  const TensorView* tensor = find(name);
  SEQBOAT_CHECK(tensor != nullptr, ErrorKind::kModel, "{}: tensor {} is missing ({} others are there)", impl_->path.string(), in_quotes(name),
                impl_->tensors.size());
  return *tensor;
}

const std::map<std::string, std::string>& SafetensorsFile::metadata() const {
  return impl_->metadata;
}

void write_safetensors(const std::filesystem::path& path, const std::vector<TensorView>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  const std::string where = path.string();
  std::vector<const TensorView*> order;
  std::unordered_set<std::string> names;
  for (const TensorView& tensor : tensors) {
    SEQBOAT_CHECK(is_utf8(tensor.name) && tensor.name != kMetadataKey, ErrorKind::kModel, "{}: {} cannot be the name of a tensor", where,
                  in_quotes(tensor.name));
    SEQBOAT_CHECK(names.insert(tensor.name).second, ErrorKind::kModel, "{}: tensor {} is given twice", where, in_quotes(tensor.name));
    const std::optional<uint64_t> expected = bytes_of(tensor.shape, dtype_size(tensor.dtype));
    SEQBOAT_CHECK(expected.has_value() && *expected == tensor.size_bytes, ErrorKind::kModel,
                  "{}: tensor {}: shape {} of {} does not take the {} bytes given", where, in_quotes(tensor.name), shape_text(tensor.shape),
                  dtype_name(tensor.dtype), tensor.size_bytes);
    order.push_back(&tensor);
  }
  std::stable_sort(order.begin(), order.end(), [](const TensorView* a, const TensorView* b) { return dtype_size(a->dtype) > dtype_size(b->dtype); });

  // As text at once: a tree of JSON allocates when it is destroyed, and ends the process where it cannot.
  std::string text = "{";
  if (!metadata.empty()) {
    for (const auto& [key, value] : metadata) {
      SEQBOAT_CHECK(is_utf8(key) && is_utf8(value), ErrorKind::kModel, "{}: __metadata__: {} is no UTF-8", where, in_quotes(key));
      text += fmt::format("{}{}:{}", key == metadata.begin()->first ? "\"__metadata__\":{" : ",", json_string(key), json_string(value));
    }
    text += "}";
  }
  uint64_t offset = 0;
  for (const TensorView* tensor : order) {
    const uint64_t end = offset + tensor->size_bytes;
    text += fmt::format("{}{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}", text.size() > 1 ? "," : "", json_string(tensor->name),
                        dtype_name(tensor->dtype), fmt::join(tensor->shape, ","), offset, end);
    offset = end;
  }
  text += "}";
  text.resize((text.size() + 7) / 8 * 8, ' ');
  SEQBOAT_CHECK(text.size() <= kMaxHeaderBytes, ErrorKind::kModel, "{}: the header would take {} bytes, the format allows {}", where, text.size(),
                kMaxHeaderBytes);

  AtomicFileWriter writer(path);
  const uint64_t header_size = text.size();
  writer.append({reinterpret_cast<const char*>(&header_size), kLengthBytes});
  writer.append(text);
  for (const TensorView* tensor : order) {
    if (tensor->size_bytes > 0) writer.append({static_cast<const char*>(tensor->data), tensor->size_bytes});
  }
  writer.commit();
}

}  // namespace seqboat
