#include "seqboat/ops/mega_layer.h"

#include "ops/mega_layer_arguments.h"

namespace seqboat::ops {

at::Tensor mega_layer(const MegaLayerArguments& arguments) {
  return call_fused(arguments);
}

TORCH_LIBRARY_FRAGMENT(seqboat, m) {
  define_fused<MegaLayerArguments>(m);
}

TORCH_LIBRARY_IMPL(seqboat, Meta, m) {
  implement_fused_meta<MegaLayerArguments>(m);
}

}  // namespace seqboat::ops
