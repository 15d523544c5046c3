#pragma once

#include "seqboat/base/reporter.h"
#include "seqboat/train/commands.h"

/// The functions of the module libseqboat_train_verbs.so, which holds the verbs that need LibTorch. The program loads it when one of them is asked
/// for, so that the others start in milliseconds. Exceptions pass through (both sides are built together: seqboat_verbs_version() tells).
extern "C" {

/// The project's version that the module was built from.
const char* seqboat_verbs_version();

/// What `doctor` asks: the LibTorch that came with the module (torch_json() of seqboat/train/process.h).
void seqboat_describe_torch(nlohmann::ordered_json* json);
int seqboat_run_train(const seqboat::train::TrainRequest* request, seqboat::Reporter* reporter);
int seqboat_run_eval(const seqboat::train::EvalRequest* request, seqboat::Reporter* reporter);
int seqboat_run_bench(const seqboat::train::BenchRequest* request, seqboat::Reporter* reporter);
}
