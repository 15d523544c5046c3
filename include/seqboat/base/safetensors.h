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
  std::vector<int64_t> shape;  ///< () is a scalar
  const void* data;            ///< in files from elsewhere perhaps not aligned for the dtype: copy with memcpy unless is_aligned()
  size_t size_bytes;
  int64_t count() const;    ///< product of the shape
  bool is_aligned() const;  ///< data is a multiple of the dtype's size
};

/// A safetensors file, memory-mapped and checked when opened: header length, JSON, dtypes, shapes against offsets, offsets in range, without
/// overlap or holes, and covering the file. Anything else (a missing file too) is an Error (kModel) that names the file, the tensor, what was
/// expected and found. Views live as long as the object or a copy of it.
///
///   offset 0          8                 8 + n
///          | n: u64 LE | n bytes of JSON | data ...          n <= 100,000,000; data_offsets count from 8 + n
///   JSON: {"__metadata__": {"key": "value"}, "name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}
///
/// Stricter than the format where it is silent: no key may come twice or be unknown, and the header's text ends with the object (blanks may follow).
class SafetensorsFile {
 public:
  static SafetensorsFile open(const std::filesystem::path& path);
  const std::vector<TensorView>& tensors() const;         ///< in order of their offsets
  const TensorView* find(const std::string& name) const;  ///< nullptr if absent
  const TensorView& at(const std::string& name) const;    ///< Error (kModel) if absent
  const std::map<std::string, std::string>& metadata() const;

 private:
  struct Impl;
  std::shared_ptr<const Impl> impl_;
};

/// Writes the whole file or nothing: temporary name in the same folder, fsync, rename, fsync of the folder. The header is padded with blanks so that
/// data begins at a multiple of 8, and tensors are laid down by falling size of their elements (otherwise in the given order), so that each is
/// aligned for its dtype. The same input gives the same bytes. A full disk is Error (kResource), a read-only folder Error (kFailed); what stood there
/// before stays as it was. Error (kModel) for what a reader would refuse: a name given twice, "__metadata__" or no UTF-8, a shape that does not match
/// size_bytes.
void write_safetensors(const std::filesystem::path& path, const std::vector<TensorView>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace seqboat
