#include "runtime/memory.h"

#include <cstring>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace seqboat::runtime {
namespace {

constexpr size_t kLargePage = size_t{2} << 20;

size_t alignment_of(int64_t bytes) {
  return bytes >= static_cast<int64_t>(kLargePage) ? kLargePage : kAlignment;
}

}  // namespace

Buffer::Buffer(int64_t bytes, const char* what, Content content) : size_(bytes) {
  const size_t size = static_cast<size_t>(round_up(bytes > 0 ? bytes : 1, static_cast<int64_t>(kAlignment)));
  data_ = static_cast<std::byte*>(::operator new (size, std::align_val_t{alignment_of(bytes)}, std::nothrow));
  SEQBOAT_CHECK(data_ != nullptr, ErrorKind::kResource, "out of memory: {} bytes for {}", size, what);
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  // Whole pages only: the rest of the last one is not ours. A system that refuses is no error.
  if (size >= kLargePage) static_cast<void>(madvise(data_, size / kLargePage * kLargePage, MADV_HUGEPAGE));
#endif
  if (content == Content::kZero) std::memset(data_, 0, size);
}

Buffer::~Buffer() {
  if (data_ != nullptr) ::operator delete (data_, std::align_val_t{alignment_of(size_)});
}

}  // namespace seqboat::runtime
