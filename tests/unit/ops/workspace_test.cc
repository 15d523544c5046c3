#include <gtest/gtest.h>

#include <limits>

#include "../../../src/ops/common.h"

namespace seqboat::ops {
namespace {

TEST(Workspace, ServesOnAfterOneThatThereWasNoRoomFor) {
  float* first = thread_workspace<float>(1000);
  first[999] = 1;
  EXPECT_THROW(thread_workspace<float>(std::numeric_limits<size_t>::max() / 64), std::bad_alloc);
  float* again = thread_workspace<float>(1000);
  ASSERT_NE(again, nullptr);
  again[999] = 2;
  EXPECT_EQ(again[999], 2);
}

}  // namespace
}  // namespace seqboat::ops
