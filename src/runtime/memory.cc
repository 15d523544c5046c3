#include "runtime/memory.h"

#include <cstring>

namespace seqboat::runtime {

Buffer::Buffer(int64_t bytes, const char* what) : size_(bytes) {
  const size_t size = static_cast<size_t>(round_up(bytes > 0 ? bytes : 1, static_cast<int64_t>(kAlignment)));
  data_ = static_cast<std::byte*>(::operator new (size, std::align_val_t{kAlignment}, std::nothrow));
  SEQBOAT_CHECK(data_ != nullptr, ErrorKind::kResource, "out of memory: {} bytes for {}", size, what);
  std::memset(data_, 0, size);
}

Buffer::~Buffer() {
  if (data_ != nullptr) ::operator delete (data_, std::align_val_t{kAlignment});
}

}  // namespace seqboat::runtime
