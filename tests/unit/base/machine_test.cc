#include "seqboat/base/machine.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <cmath>
#include <fstream>

#include "unit/base/temp_dir.h"

namespace seqboat {
namespace {

namespace fs = std::filesystem;
using test::TempDir;

void write(const fs::path& file, const std::string& text) {
  fs::create_directories(file.parent_path());
  std::ofstream(file) << text;
}

TEST(UsableCores, FollowTheAffinity) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  EXPECT_EQ(usable_cores(), CPU_COUNT(&before));
  int first = 0;
  while (!CPU_ISSET(first, &before)) ++first;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  EXPECT_EQ(usable_cores(), 1);
  ASSERT_EQ(sched_setaffinity(0, sizeof before, &before), 0);
}

TEST(GroupLimits, NothingToReadIsNoLimit) {
  const TempDir root;
  const GroupLimits limits = group_limits(root.path());
  EXPECT_TRUE(std::isinf(limits.cores));
  EXPECT_EQ(limits.memory_bytes, kNoLimit);
  EXPECT_EQ(limits.memory_left_bytes, kNoLimit);
}

TEST(GroupLimits, Version2TakesTheTightestOnTheWayUp) {
  const TempDir root;
  const fs::path mount = root.path() / "sys/fs/cgroup";
  write(root.path() / "proc/self/cgroup", "0::/outer/inner\n");
  write(mount / "outer/inner/cpu.max", "max 100000\n");
  write(mount / "outer/cpu.max", "150000 100000\n");
  write(mount / "outer/inner/memory.max", "max\n");
  write(mount / "outer/memory.max", "4000000\n");
  write(mount / "outer/memory.current", "3000000\n");
  write(mount / "outer/memory.stat", "anon 1\ninactive_file 1000000\n");
  write(mount / "memory.max", "9000000\n");
  GroupLimits limits = group_limits(root.path());
  EXPECT_EQ(limits.cores, 1.5);
  EXPECT_EQ(limits.memory_bytes, 4000000);
  EXPECT_EQ(limits.memory_left_bytes, 2000000);

  // A wider limit may have less room.
  write(mount / "memory.current", "8500000\n");
  limits = group_limits(root.path());
  EXPECT_EQ(limits.memory_bytes, 9000000);
  EXPECT_EQ(limits.memory_left_bytes, 500000);
}

TEST(GroupLimits, ContainerSeesItsGroupAtTheTop) {
  const TempDir root;
  write(root.path() / "proc/self/cgroup", "0::/machine/that/is/not/mounted\n");
  write(root.path() / "sys/fs/cgroup/cpu.max", "50000 100000\n");
  EXPECT_EQ(default_threads(root.path()), 1);
  EXPECT_EQ(group_limits(root.path()).cores, 0.5);
}

TEST(GroupLimits, Version1) {
  const TempDir root;
  const fs::path mount = root.path() / "sys/fs/cgroup";
  write(root.path() / "proc/self/cgroup", "5:memory:/box\n4:cpu,cpuacct:/box\n1:name=systemd:/box\nnonsense\n");
  write(mount / "cpu/box/cpu.cfs_quota_us", "250000\n");
  write(mount / "cpu/box/cpu.cfs_period_us", "100000\n");
  write(mount / "cpu/cpu.cfs_quota_us", "-1\n");
  write(mount / "cpu/cpu.cfs_period_us", "100000\n");
  write(mount / "memory/box/memory.limit_in_bytes", "1000000\n");
  write(mount / "memory/box/memory.usage_in_bytes", "2000000\n");
  write(mount / "memory/memory.limit_in_bytes", "9223372036854771712\n");
  const GroupLimits limits = group_limits(root.path());
  EXPECT_EQ(limits.cores, 2.5);
  EXPECT_EQ(limits.memory_bytes, 1000000);
  EXPECT_EQ(limits.memory_left_bytes, 0);
}

TEST(MachineMemory, ReadsMeminfo) {
  const TempDir root;
  EXPECT_EQ(machine_memory(root.path()).total_bytes, -1);
  EXPECT_EQ(machine_memory(root.path()).available_bytes, -1);
  write(root.path() / "proc/meminfo", "MemTotal:       16384 kB\nMemFree:  1 kB\nMemAvailable:    1000 kB\n");
  EXPECT_EQ(machine_memory(root.path()).total_bytes, 16384 * 1024);
  EXPECT_EQ(machine_memory(root.path()).available_bytes, 1000 * 1024);
  EXPECT_GT(machine_memory().total_bytes, machine_memory().available_bytes);
}

}  // namespace
}  // namespace seqboat
