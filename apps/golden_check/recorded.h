#pragma once

#include "golden_case.h"
#include "seqboat/nn/packed.h"

namespace golden {

/// Compares what one layer recorded with router.<module>.* and mid.<module>.*, whichever are stored.
///
/// The official buffers are compressed (C = the densest row's active tokens, filler behind) or not (C = T, every token); which one a tensor is
/// follows from its length C and from the json's router.<module>.compressed.
void compare_record(const GoldenCase& golden, const std::string& module, const seqboat::nn::LayerTrace& record, const Unpadded& where, int64_t length,
                    Comparison& comparison);

}  // namespace golden
