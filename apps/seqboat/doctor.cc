// seqboat doctor
#include <dlfcn.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "command.h"
#include "program_path.h"
#include "recipe_store.h"
#include "seqboat/base/error.h"
#include "seqboat/base/machine.h"
#include "seqboat/base/text.h"
#include "seqboat/data/listops_cache.h"
#include "seqboat/kernels/simd.h"
#include "verbs.h"

namespace seqboat::app {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// What a check came to, the worst last. Only kMissing makes the exit code 1.
enum class Status {
  kOk,
  kNote,     ///< worth knowing; nothing needs to be done
  kPoor,     ///< it works, but slowly or near a limit
  kMissing,  ///< what is needed is not there or does not work
};

const char* status_name(Status status) {
  switch (status) {
    case Status::kOk:
      return "ok";
    case Status::kNote:
      return "note";
    case Status::kPoor:
      return "poor";
    case Status::kMissing:
      return "missing";
  }
  return "";
}

/// One line of the report: what was found, and what to do about it. Several findings about one thing are joined, the worst gives the status.
struct Check {
  std::string name;
  Status status = Status::kOk;
  std::string found = {};
  std::string remedy = {};

  void add(Status worse, const std::string& what, const std::string& what_to_do = "") {
    status = std::max(status, worse);
    if (!what.empty()) found += (found.empty() ? "" : "; ") + what;
    if (!what_to_do.empty()) remedy += (remedy.empty() ? "" : "; ") + what_to_do;
  }
};

// An environment variable that is set to something; what it holds is shown to the user, in quotes where it is not plain.
std::optional<std::string> variable(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr || *value == '\0') return std::nullopt;
  return value;
}

std::string shown(const char* name, const std::string& value) {
  const bool plain = std::all_of(value.begin(), value.end(), [](unsigned char c) { return c > 0x20 && c < 0x7f; }) && value.size() <= 100;
  return fmt::format("{}={}", name, plain ? value : in_quotes(value));
}

std::string size_text(int64_t bytes) {
  const auto size = static_cast<double>(bytes);
  return bytes < (int64_t{1} << 30) ? fmt::format("{:.0f} MiB", size / (1 << 20)) : fmt::format("{:.1f} GiB", size / (1 << 30));
}

std::string count_text(int64_t count, const char* what) {
  return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s");
}

// The remedy that our errors name stands behind this word.
void add_error(const std::string& message, const std::string& otherwise, Check* check) {
  const std::string mark = ". Remedy: ";
  const size_t at = message.find(mark);
  check->add(Status::kMissing, message.substr(0, at), at == std::string::npos ? otherwise : message.substr(at + mark.size()));
}

constexpr const char* kBuildWithTorch = "tools/quickstart --build-only, or cmake --preset release && cmake --build --preset release";

Check check_program() {
  Check check{"program"};
  check.add(Status::kOk, fmt::format("seqboat {}, {}, compiler {}, {}", SEQBOAT_VERSION, SEQBOAT_BUILD_TYPE, __VERSION__, program_dir().string()));
#if !defined(__OPTIMIZE__)
  check.add(Status::kPoor, "built without optimisation: kernels are many times slower", "build with preset release or runtime");
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  check.add(Status::kNote, "built with sanitizers: for finding faults, not for work");
#endif
  return check;
}

// Loads the module and asks it, in a process of its own: a library that crashes while it is loaded, or hangs, or binds this thread to a core, is then
// a finding and not our end. The answer is torch_json(), "cores" (those left to the thread that loaded it) added, or {"error"}.
Json ask_train_module() {
  constexpr auto kPatience = std::chrono::seconds(60);  // a cold disk may take long over half a gigabyte of libraries
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return {{"error", fmt::format("no pipe can be made: {}", std::strerror(errno))}};
  const pid_t child = ::fork();
  if (child < 0) {
    const int error = errno;
    ::close(ends[0]);
    ::close(ends[1]);
    return {{"error", fmt::format("no process can be made: {}", std::strerror(error))}};
  }
  if (child == 0) {
    // What libraries say while they are loaded is not ours.
    if (const int nowhere = ::open("/dev/null", O_WRONLY | O_CLOEXEC); nowhere >= 0) {
      ::dup2(nowhere, STDOUT_FILENO);
      ::dup2(nowhere, STDERR_FILENO);
    }
    Json answer;
    try {
      auto* describe = reinterpret_cast<decltype(&seqboat_describe_torch)>(train_module_function("seqboat_describe_torch"));
      describe(&answer);
      answer["cores"] = usable_cores();
    } catch (const std::exception& error) {
      answer = {{"error", error.what()}};
    }
    const std::string text = answer.dump(-1, ' ', true, Json::error_handler_t::replace);
    size_t written = 0;
    while (written < text.size()) {
      const ssize_t n = ::write(ends[1], text.data() + written, text.size() - written);
      if (n < 0 && errno != EINTR) break;
      if (n > 0) written += static_cast<size_t>(n);
    }
    ::_exit(0);  // past LibTorch's destructors
  }

  ::close(ends[1]);
  std::string text;
  bool late = false;
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now()).count();
    pollfd wait = {ends[0], POLLIN, 0};
    const int ready = ::poll(&wait, 1, static_cast<int>(std::max<int64_t>(0, left)));
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) {
      late = true;
      ::kill(child, SIGKILL);
      break;
    }
    char piece[4096];
    const ssize_t n = ::read(ends[0], piece, sizeof piece);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    text.append(piece, static_cast<size_t>(n));
  }
  ::close(ends[0]);
  int ended = 0;
  while (::waitpid(child, &ended, 0) < 0 && errno == EINTR) {
  }
  const std::string file = train_module_path().string();
  if (late) return {{"error", fmt::format("{}: not loaded after {} s", file, std::chrono::seconds(kPatience).count())}};
  if (WIFSIGNALED(ended)) {
    return {
        {"error", fmt::format("{}: the process that loaded it was ended by signal {} ({})", file, WTERMSIG(ended), ::strsignal(WTERMSIG(ended)))}};
  }
  Json answer = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!answer.is_object()) return {{"error", fmt::format("{}: loaded without an answer", file)}};
  return answer;
}

// `torch` is the module's answer, or null where there is no module.
Check check_libtorch(const Json& torch) {
  Check check{"libtorch"};
  if (torch.is_null()) {
    if (SEQBOAT_HAS_TRAIN_MODULE == 0) {
      check.add(Status::kNote, "not in this build: train, eval and bench are not there", kBuildWithTorch);
    } else {
      check.add(
          Status::kMissing,
          fmt::format("libseqboat_train_verbs.so, which train, eval and bench need, is neither beside {} nor in ../lib", program_dir().string()),
          "build or install program and module together (component train)");
    }
    return check;
  }
  if (torch.contains("error")) {
    add_error(torch["error"].get<std::string>(), "build again with the LibTorch that is installed now (tools/quickstart)", &check);
    return check;
  }
  const std::string version = torch.value("version", "");
  const std::string built_for = torch.value("built_for", "");
  check.add(Status::kOk,
            fmt::format("{}, its loops on {}, {}, {}; layers run on our own GEMM and kernels", version.empty() ? "unknown version" : version,
                        torch.value("capability", ""), torch.value("mkl", false) ? "with MKL" : "without MKL", torch.value("library", "")));
  if (!version.empty() && version != built_for) {
    check.add(Status::kPoor, fmt::format("the module was built for {}", built_for),
              "build again with the LibTorch that is installed now (tools/quickstart)");
  }
  if (!torch.value("openmp", false))
    check.add(Status::kPoor, "built without OpenMP: one thread only", "use the wheel that tools/quickstart installs");
  return check;
}

Check check_simd(bool has_torch) {
  Check check{"simd"};
  const std::string target = kernels::simd_target();
  check.add(Status::kOk, fmt::format("{} (this machine and build run {}); no environment variable restricts our kernels", target,
                                     fmt::join(kernels::supported_simd_targets(), ", ")));
  if (target == "scalar" || target == "emu128") {
    check.add(Status::kPoor, "no vector instructions: kernels are several times slower",
              "a processor with AVX2, SSE4 or NEON, and a compiler that knows it");
  }
  if (const auto value = variable("ATEN_CPU_CAPABILITY"); value && has_torch) {
    check.add(Status::kNote, shown("ATEN_CPU_CAPABILITY", *value) + " restricts LibTorch's own loops", "unset ATEN_CPU_CAPABILITY");
  }
  return check;
}

Check check_denormals() {
  Check check{"denormals"};
  const kernels::FlushDenormals flush;
  volatile float smallest = std::numeric_limits<float>::min();
  volatile float half = smallest * 0.5F;
  if (half == 0.0F) {
    check.add(Status::kOk, "flushed to zero in the threads that compute");
  } else {
    check.add(Status::kPoor, "this processor's switch is not known: states that fade away slow the arithmetic down", "a processor with SSE or NEON");
  }
  return check;
}

Check check_threads(int64_t asked) {
  Check check{"threads"};
  const int64_t cores = usable_cores();
  const int64_t taken = asked > 0 ? asked : default_threads();
  const double quota = group_limits().cores;
  check.add(Status::kOk, fmt::format("{}; --threads {} takes {}", count_text(cores, "usable core"), asked, taken));
  const double most = std::min(static_cast<double>(cores), quota);
  const int64_t fit = std::max<int64_t>(1, std::llround(std::ceil(most)));
  if (quota < static_cast<double>(cores)) {
    check.add(taken > fit ? Status::kPoor : Status::kNote,
              fmt::format("a control group (cpu.max) allows {:.4g} of them{}", quota, taken > fit ? ": more threads are halted in turn" : ""),
              taken > fit ? fmt::format("--threads {}, or train.threads={} in a recipe", fit, fit) : "");
  } else if (taken > cores) {
    check.add(Status::kPoor, "threads that share a core wait for each other", fmt::format("--threads {}, or a wider affinity (taskset)", cores));
  }
  return check;
}

// Settings of the OpenMP runtime and of MKL, which the module brings. Without it they mean nothing.
Check check_openmp(const Json& torch, int64_t asked) {
  Check check{"openmp"};
  if (!torch.is_object() || torch.contains("error")) {
    check.add(Status::kOk, "not used: the module with LibTorch brings it");
    return check;
  }
  const int64_t cores = usable_cores();
  const int64_t threads = asked > 0 ? asked : default_threads();
  for (const char* name : {"OMP_NUM_THREADS", "MKL_NUM_THREADS"}) {
    if (const auto value = variable(name)) check.add(Status::kNote, shown(name, *value) + " has no effect: --threads and train.threads decide");
  }
  if (const auto value = variable("OMP_THREAD_LIMIT"); value && std::atoll(value->c_str()) > 0 && std::atoll(value->c_str()) < threads) {
    check.add(Status::kPoor,
              fmt::format("{}: fewer than the {} that are asked for", shown("OMP_THREAD_LIMIT", *value), count_text(threads, "thread")),
              "unset OMP_THREAD_LIMIT");
  }
  if (const auto value = variable("OMP_DYNAMIC"); value && (*value == "true" || *value == "TRUE" || *value == "1")) {
    check.add(Status::kNote, shown("OMP_DYNAMIC", *value) + " lets the runtime take fewer threads", "unset OMP_DYNAMIC");
  }
  // The runtime binds the thread that loads it: what is left of the cores was asked behind that.
  const int64_t left = torch.value("cores", cores);
  bool named = false;
  for (const char* name : {"OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY"}) {
    const auto value = variable(name);
    if (!value || *value == "false" || *value == "FALSE") continue;
    named = true;
    if (left < cores) {
      check.add(Status::kPoor,
                fmt::format("{} binds the program to {} of {}, and --threads 0 takes no more", shown(name, *value), left, count_text(cores, "core")),
                fmt::format("unset {}", name));
    } else {
      check.add(Status::kNote, shown(name, *value) + " places threads: another program on the same cores then slows training");
    }
  }
  if (left < cores && !named) {
    check.add(Status::kPoor, fmt::format("loading it leaves {} of {} to the program", left, count_text(cores, "core")),
              "look for settings of OpenMP (env | grep OMP)");
  }
  if (const auto value = variable("GOMP_SPINCOUNT")) {
    const long long count = std::atoll(value->c_str());
    const bool endless = !value->empty() && !std::isdigit(static_cast<unsigned char>(value->front()));
    if (endless || count > kSpinCount) {
      check.add(Status::kPoor,
                fmt::format("{}: threads spin longer than the {} that we set, which a second program on the same cores makes very slow",
                            shown("GOMP_SPINCOUNT", *value), kSpinCount),
                "unset GOMP_SPINCOUNT");
    } else {
      check.add(Status::kNote, shown("GOMP_SPINCOUNT", *value) + " takes the place of our own");
    }
  } else if (const auto policy = variable("OMP_WAIT_POLICY")) {
    check.add(Status::kNote, fmt::format("{} has no effect: the program sets GOMP_SPINCOUNT={}", shown("OMP_WAIT_POLICY", *policy), kSpinCount));
  }
  if (check.found.empty()) check.add(Status::kOk, "no setting in the environment interferes");
  return check;
}

Check check_memory() {
  constexpr int64_t kLittle = int64_t{1} << 30;  // the quick recipe of ListOps takes a quarter of this, data and LibTorch included
  Check check{"memory"};
  const MachineMemory memory = machine_memory();
  int64_t room = memory.available_bytes >= 0 ? memory.available_bytes : kNoLimit;
  check.add(Status::kOk, memory.total_bytes < 0
                             ? "size unknown (no /proc/meminfo)"
                             : fmt::format("{}, of which {} available", size_text(memory.total_bytes), size_text(memory.available_bytes)));
  std::string remedy = "end other programs, or train with a smaller train.batch_size or train.max_tokens";
  const GroupLimits group = group_limits();
  if (group.memory_bytes < std::max<int64_t>(memory.total_bytes, 0)) {
    check.add(Status::kNote,
              fmt::format("a control group allows {}, of which {} left", size_text(group.memory_bytes), size_text(group.memory_left_bytes)));
    if (group.memory_left_bytes < room) {
      room = group.memory_left_bytes;
      remedy = "raise the limit of the container or control group (memory.max)";
    }
  }
  rlimit limit = {};
  if (::getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
    const auto bytes = static_cast<int64_t>(std::min<rlim_t>(limit.rlim_cur, kNoLimit));
    check.add(Status::kNote, fmt::format("the address space is limited to {}", size_text(bytes)));
    if (bytes < room) {
      room = bytes;
      remedy = "ulimit -v unlimited";
    }
  }
  if (room < kLittle) check.add(Status::kPoor, fmt::format("less than {} to work with", size_text(kLittle)), remedy);
  return check;
}

Check check_allocator() {
  Check check{"allocator"};
  // Whose malloc it is: a preloaded library may have put its own in front.
  Dl_info library = {};
  void* function = ::dlsym(RTLD_DEFAULT, "malloc");
  const bool known = function != nullptr && ::dladdr(function, &library) != 0 && library.dli_fname != nullptr;
  const std::string file = known ? fs::path(library.dli_fname).filename().string() : "unknown";
#if defined(__GLIBC__)
  const bool glibc = file.rfind("libc.so", 0) == 0 || file.rfind("libc-", 0) == 0;
#else
  const bool glibc = false;
#endif
  if (glibc) {
    check.add(Status::kOk, "malloc of glibc; train, eval and bench have it keep its pages (no mmap for large blocks, no trimming)");
  } else {
    check.add(Status::kNote, fmt::format("malloc of {}: our settings, by which freed pages are kept, are for glibc's alone", file));
    if (const auto value = variable("LD_PRELOAD")) check.add(Status::kNote, shown("LD_PRELOAD", *value));
    return check;
  }
  // The three that mallopt sets over; two that cost time at every call; the rest is told.
  for (const char* name : {"MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_"}) {
    if (const auto value = variable(name))
      check.add(Status::kNote, shown(name, *value) + " has no effect on train, eval and bench, which set their own");
  }
  if (const auto value = variable("MALLOC_ARENA_MAX"))
    check.add(Status::kNote, shown("MALLOC_ARENA_MAX", *value) + ": threads wait for each other's allocations");
  for (const char* name : {"MALLOC_PERTURB_", "MALLOC_CHECK_"}) {
    const auto value = variable(name);
    if (value && *value != "0") {
      check.add(Status::kPoor, shown(name, *value) + " costs time at every allocation: for finding faults, not for work",
                fmt::format("unset {}", name));
    }
  }
  if (const auto value = variable("GLIBC_TUNABLES"); value && value->find("glibc.malloc.") != std::string::npos) {
    const bool slow = value->find("glibc.malloc.perturb") != std::string::npos || value->find("glibc.malloc.check") != std::string::npos;
    check.add(slow ? Status::kPoor : Status::kNote,
              shown("GLIBC_TUNABLES", *value) +
                  (slow ? " costs time at every allocation" : ": of these mmap, trim and top_pad have no effect on train, eval and bench"),
              slow ? "unset GLIBC_TUNABLES" : "");
  }
  return check;
}

Check check_recipes() {
  Check check{"recipes"};
  const char* remedy = "set SEQBOAT_RECIPES to the folder recipes of the sources, or install program and recipes together";
  try {
    const size_t count = stored_recipes().size();
    check.add(count > 0 ? Status::kOk : Status::kMissing,
              fmt::format("{} in {}", count_text(static_cast<int64_t>(count), "recipe"), recipes_dir().string()), count > 0 ? "" : remedy);
  } catch (const std::exception& error) {
    add_error(error.what(), remedy, &check);
  }
  return check;
}

// Tries to make something there and takes it away again: permissions alone do not tell of read-only disks, quotas, or folders that are none.
// An errno, or 0.
int try_to_write(const fs::path& folder, bool make_folder) {
  std::string name = (folder / ".seqboat-doctor-XXXXXX").string();
  if (make_folder) {
    if (::mkdtemp(name.data()) == nullptr) return errno;
    ::rmdir(name.c_str());
    return 0;
  }
  const int fd = ::mkstemp(name.data());
  if (fd < 0) return errno;
  ::close(fd);
  ::unlink(name.c_str());
  return 0;
}

Check check_cache() {
  constexpr int64_t kLittle = int64_t{1} << 30;
  const char* remedy = "set XDG_CACHE_HOME to a folder that can be written, or give --data DIR";
  Check check{"cache"};
  fs::path folder;
  try {
    folder = data::default_cache_dir();
  } catch (const std::exception& error) {
    check.add(Status::kMissing, error.what(), "export HOME or XDG_CACHE_HOME, or give --data DIR");
    return check;
  }
  // What is not there yet is made when it is needed: then its nearest folder counts.
  std::error_code error;
  fs::path there = folder;
  while (there.has_relative_path() && !fs::exists(fs::symlink_status(there, error))) there = there.parent_path();
  const bool exists = there == folder;
  const int fault = fs::is_directory(there, error) ? try_to_write(there, /*make_folder=*/!exists) : ENOTDIR;
  if (fault != 0) {
    check.add(Status::kMissing,
              fmt::format("{} cannot be {}: {}: {}", folder.string(), exists ? "written" : "made", there.string(), std::strerror(fault)), remedy);
    return check;
  }
  struct statvfs disk = {};
  const bool known = ::statvfs(there.c_str(), &disk) == 0;
  const auto free_bytes = static_cast<int64_t>(std::min<uint64_t>(static_cast<uint64_t>(disk.f_bavail) * disk.f_frsize, kNoLimit));
  check.add(Status::kOk,
            fmt::format("{}{}, {} free", folder.string(), exists ? "" : " (made when it is needed)", known ? size_text(free_bytes) : "unknown"));
  if (known && free_bytes < kLittle) check.add(Status::kPoor, fmt::format("less than {}", size_text(kLittle)), remedy);
  return check;
}

Check check_terminal() {
  Check check{"terminal"};
  const auto stream = [](const char* name, int fd) {
    const char* what = ::isatty(fd) == 0 ? "no terminal" : wants_colour(fd) ? "a terminal with colours" : "a terminal without colours";
    return fmt::format("{} is {}", name, what);
  };
  check.add(Status::kOk, fmt::format("{}, {}", stream("stdout", STDOUT_FILENO), stream("stderr", STDERR_FILENO)));
  if (const auto value = variable("NO_COLOR")) check.add(Status::kOk, shown("NO_COLOR", *value));
  if (!is_terminal(STDERR_FILENO)) {
    check.add(Status::kOk, "progress is a line every ten seconds");
  } else if (!locale_is_utf8()) {
    check.add(Status::kNote, "the locale is not UTF-8: the progress bar is drawn in ASCII", "export LC_ALL=C.UTF-8");
  } else {
    check.add(Status::kOk, "UTF-8");
  }
  return check;
}

std::string report_text(const std::vector<Check>& checks, bool ok) {
  const bool colour = wants_colour(STDOUT_FILENO);
  static constexpr const char* kColours[] = {"\033[32m", "\033[36m", "\033[33m", "\033[1;31m"};
  std::string text;
  std::vector<std::string> worst[4];
  for (const Check& check : checks) {
    worst[static_cast<size_t>(check.status)].push_back(check.name);
    const std::string status = fmt::format("{:<7}", status_name(check.status));
    text +=
        fmt::format("{}  {:<9}  {}\n", colour ? kColours[static_cast<size_t>(check.status)] + status + "\033[0m" : status, check.name, check.found);
    if (!check.remedy.empty()) text += fmt::format("{:<7}  {:<9}  remedy: {}\n", "", "", check.remedy);
  }
  const auto& missing = worst[static_cast<size_t>(Status::kMissing)];
  const auto& poor = worst[static_cast<size_t>(Status::kPoor)];
  if (!ok) return text + fmt::format("not ready: {}\n", fmt::join(missing, ", "));
  const char* what = SEQBOAT_HAS_TRAIN_MODULE != 0 || !train_module_path().empty() ? "ready to train" : "ready, without train, eval and bench";
  return text + (poor.empty() ? fmt::format("{}\n", what) : fmt::format("{}; could be better: {}\n", what, fmt::join(poor, ", ")));
}

int examine(int64_t threads, Reporter& reporter) {
  const Json torch = train_module_path().empty() ? Json() : ask_train_module();
  const std::vector<Check> checks = {check_program(),   check_libtorch(torch),  check_simd(torch.is_object()),
                                     check_denormals(), check_threads(threads), check_openmp(torch, threads),
                                     check_memory(),    check_allocator(),      check_recipes(),
                                     check_cache(),     check_terminal()};
  const bool ok = std::none_of(checks.begin(), checks.end(), [](const Check& check) { return check.status == Status::kMissing; });
  Json json;
  json["checks"] = Json::array();
  for (const Check& check : checks) {
    json["checks"].push_back({{"name", check.name}, {"status", status_name(check.status)}, {"found", check.found}, {"remedy", check.remedy}});
  }
  json["ok"] = ok;
  reporter.result(json, report_text(checks, ok));
  return ok ? 0 : exit_code(ErrorKind::kFailed);
}

}  // namespace

void add_doctor(CLI::App* app, Invocation* invocation) {
  CLI::App* command = app->add_subcommand("doctor", "what is missing or slow on this machine, and the remedy");
  add_common_options(command, invocation);
  command->footer(examples("seqboat doctor", "seqboat doctor --json"));
  command->callback(
      [invocation] { invocation->action = [invocation](Reporter& reporter) { return examine(invocation->common.threads, reporter); }; });
}

}  // namespace seqboat::app
