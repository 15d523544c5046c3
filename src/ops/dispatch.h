#pragma once

// Private to src/ops: how foo.cc reaches the dispatcher.

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

/// A typed handle of an operator, looked up once: SEQBOAT_OP("linear", Tensor(const Tensor&, ...)).call(...).
#define SEQBOAT_OP(name, ...)                                                                                             \
  ([]() -> const auto& {                                                                                                  \
    static const auto handle = c10::Dispatcher::singleton().findSchemaOrThrow("seqboat::" name, "").typed<__VA_ARGS__>(); \
    return handle;                                                                                                        \
  }())
