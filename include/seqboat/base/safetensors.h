#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace seqboat {

enum class DType { kBool, kU8, kI8, kI16, kU16, kF16, kBF16, kI32, kU32, kF32, kF64, kI64, kU64 };

size_t dtype_size(DType dtype);
const char* dtype_name(DType dtype);  ///< the format's own word: "F32", "I64", ...

/// One tensor of a file: little-endian, row-major.
struct TensorView {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;
  const void* data;
  size_t size_bytes;
  int64_t count() const;
};

/// A safetensors file, memory-mapped and checked when opened: header length, JSON, dtypes, shapes against offsets, offsets in range, without
/// overlap or holes, and covering the file. Anything else is an Error (kModel) that names the file, the tensor, what was expected and found.
/// Views live as long as the object.
class SafetensorsFile {
 public:
  static SafetensorsFile open(const std::filesystem::path& path);
  const std::vector<TensorView>& tensors() const;               ///< in order of their offsets
  const TensorView* find(const std::string& name) const;        ///< nullptr if absent
  const TensorView& at(const std::string& name) const;          ///< Error (kModel) if absent
  const std::map<std::string, std::string>& metadata() const;

 private:
  struct Impl;
  std::shared_ptr<const Impl> impl_;
};

/// Writes the whole file or nothing: temporary name in the same folder, fsync, rename, fsync of the folder. The header is padded with blanks so that
/// data begins at a multiple of 8. A full disk is Error (kResource), a read-only folder Error (kFailed); what stood there before stays as it was.
void write_safetensors(const std::filesystem::path& path, const std::vector<TensorView>& tensors, const std::map<std::string, std::string>& metadata = {});

}  // namespace seqboat
