#include "seqboat/ops/transformer_layer.h"

#include "ops/transformer_layer_arguments.h"

namespace seqboat::ops {

at::Tensor transformer_layer(const TransformerLayerArguments& arguments) {
  return call_fused(arguments);
}

TORCH_LIBRARY_FRAGMENT(seqboat, m) {
  define_fused<TransformerLayerArguments>(m);
}

TORCH_LIBRARY_IMPL(seqboat, Meta, m) {
  implement_fused_meta<TransformerLayerArguments>(m);
}

}  // namespace seqboat::ops
