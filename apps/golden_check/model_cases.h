#pragma once

#include "golden_case.h"
#include "seqboat/config/model_config.h"

namespace golden {

/// Whether the official config is a language model's (else a classifier's).
bool is_language_model(const json& config);

/// Our config of the official model that a case trains or evaluates.
seqboat::config::ModelConfig classifier_config(const GoldenCase& golden, const json& config);
seqboat::config::ModelConfig language_model_config(const GoldenCase& golden, const json& config);

}  // namespace golden
