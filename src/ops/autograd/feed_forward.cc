#include "ops/autograd/fused_operator.h"
#include "ops/feed_forward_arguments.h"

namespace seqboat::ops {

TORCH_LIBRARY_IMPL(seqboat, Autograd, m) {
  implement_fused_autograd<FeedForwardArguments>(m);
}

}  // namespace seqboat::ops
