#include "seqboat/base/machine.h"

#include <sched.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace seqboat {
namespace {

namespace fs = std::filesystem;

std::string first_line(const fs::path& file) {
  std::ifstream stream(file);
  std::string line;
  std::getline(stream, line);
  return line;
}

std::optional<int64_t> whole_number(const std::string& text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  return value;
}

// The number behind a word that begins a line: "inactive_file 4096", "MemTotal:  16 kB".
std::optional<int64_t> number_of(const fs::path& file, const std::string& word) {
  std::ifstream stream(file);
  for (std::string line; std::getline(stream, line);) {
    std::istringstream words(line);
    std::string name, value;
    if (words >> name >> value && name == word) return whole_number(value);
  }
  return std::nullopt;
}

// The folders of a group, its own first. A container often sees its own group at the top of the mount, while /proc still names the path outside.
std::vector<fs::path> folders_up(const fs::path& mount, const std::string& group) {
  std::vector<fs::path> folders;
  std::error_code error;
  for (fs::path path = fs::path(group).relative_path(); !path.empty(); path = path.parent_path()) {
    if (fs::is_directory(mount / path, error)) folders.push_back(mount / path);
  }
  folders.push_back(mount);
  return folders;
}

void take_cores(int64_t quota, int64_t period, GroupLimits* limits) {
  if (quota > 0 && period > 0) limits->cores = std::min(limits->cores, static_cast<double>(quota) / static_cast<double>(period));
}

void take_memory(const std::optional<int64_t>& limit, const std::optional<int64_t>& used, const std::optional<int64_t>& cached, GroupLimits* limits) {
  // Version 1 writes "no limit" as a number near 2^63.
  if (!limit || *limit < 0 || *limit >= (int64_t{1} << 60)) return;
  const int64_t kept = std::max<int64_t>(0, used.value_or(0) - cached.value_or(0));
  const int64_t left = std::max<int64_t>(0, *limit - kept);
  if (left < limits->memory_left_bytes) {
    limits->memory_bytes = *limit;
    limits->memory_left_bytes = left;
  }
}

bool has_word(const std::string& list, const std::string& word) {
  return ("," + list + ",").find("," + word + ",") != std::string::npos;
}

}  // namespace

int64_t usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1U, std::thread::hardware_concurrency());
}

GroupLimits group_limits(const fs::path& root) {
  GroupLimits limits;
  const fs::path mount = root / "sys/fs/cgroup";
  std::ifstream groups(root / "proc/self/cgroup");
  // "0::/path" is version 2, "4:cpu,cpuacct:/path" version 1.
  for (std::string line; std::getline(groups, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string group = line.substr(second + 1);
    if (controllers.empty()) {
      // Both versions at once mount this one in a folder of its own.
      std::error_code error;
      const fs::path unified = fs::is_directory(mount / "unified", error) ? mount / "unified" : mount;
      for (const fs::path& folder : folders_up(unified, group)) {
        std::istringstream words(first_line(folder / "cpu.max"));  // "150000 100000" or "max 100000"
        std::string quota, period;
        words >> quota >> period;
        take_cores(whole_number(quota).value_or(0), whole_number(period).value_or(0), &limits);
        take_memory(whole_number(first_line(folder / "memory.max")), whole_number(first_line(folder / "memory.current")),
                    number_of(folder / "memory.stat", "inactive_file"), &limits);
      }
    }
    if (has_word(controllers, "cpu")) {
      for (const fs::path& folder : folders_up(mount / "cpu", group))
        take_cores(whole_number(first_line(folder / "cpu.cfs_quota_us")).value_or(0),
                   whole_number(first_line(folder / "cpu.cfs_period_us")).value_or(0), &limits);
    }
    if (has_word(controllers, "memory")) {
      for (const fs::path& folder : folders_up(mount / "memory", group))
        take_memory(whole_number(first_line(folder / "memory.limit_in_bytes")), whole_number(first_line(folder / "memory.usage_in_bytes")),
                    number_of(folder / "memory.stat", "total_inactive_file"), &limits);
    }
  }
  return limits;
}

int64_t default_threads(const fs::path& root) {
  const double allowed = std::ceil(group_limits(root).cores);
  const int64_t cores = usable_cores();
  return allowed < static_cast<double>(cores) ? std::max<int64_t>(1, static_cast<int64_t>(allowed)) : cores;
}

MachineMemory machine_memory(const fs::path& root) {
  const auto bytes = [&root](const char* word) {
    const std::optional<int64_t> kib = number_of(root / "proc/meminfo", word);
    return kib ? *kib * 1024 : -1;
  };
  return {bytes("MemTotal:"), bytes("MemAvailable:")};
}

}  // namespace seqboat
