#include "ops/autograd/fused_operator.h"
#include "ops/mega_layer_arguments.h"

namespace seqboat::ops {

TORCH_LIBRARY_IMPL(seqboat, Autograd, m) {
  implement_fused_autograd<MegaLayerArguments>(m);
}

}  // namespace seqboat::ops
