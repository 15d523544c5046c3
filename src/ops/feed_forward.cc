#include "seqboat/ops/feed_forward.h"

#include "ops/feed_forward_arguments.h"

namespace seqboat::ops {

at::Tensor feed_forward(const FeedForwardArguments& arguments) {
  return call_fused(arguments);
}

TORCH_LIBRARY_FRAGMENT(seqboat, m) {
  define_fused<FeedForwardArguments>(m);
}

TORCH_LIBRARY_IMPL(seqboat, Meta, m) {
  implement_fused_meta<FeedForwardArguments>(m);
}

}  // namespace seqboat::ops
