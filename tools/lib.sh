# Shared by tools/quickstart and tools/test, which source it: messages, logs, system packages, LibTorch, CMake.
# Every function returns non-zero after it has said what went wrong; nothing here ends the shell but `die`.

set -u -o pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd) || exit 1
cd -- "$root" || exit 1

# The one place that names LibTorch's version and, beside pip's own configuration, where it comes from.
torch_version=2.13.0
torch_index=${SEQBOAT_TORCH_INDEX:-https://download.pytorch.org/whl/cpu}
# TensorBoard's readers of event files, for tests alone, with no more of what it asks for than they import: no server, no pictures. No one version of
# numpy is there for every Python.
tensorboard_packages=("tensorboard==2.21.0" "protobuf==7.36.2" "absl-py==2.5.1" "numpy>=2.1,<3")
venv=$root/.venv
logs=$root/build/logs

# Package of Debian and Ubuntu, and what shows that it is there: a command, a header, or a Python module.
packages=(
  "g++ command:g++"
  "cmake command:cmake"
  "ninja-build command:ninja"
  "ccache command:ccache"
  "python3-venv module:ensurepip"
  "libhwy-dev header:hwy/highway.h"
  "libfmt-dev header:fmt/format.h"
  "nlohmann-json3-dev header:nlohmann/json.hpp"
  "libcli11-dev header:CLI/CLI.hpp"
  "libtomlplusplus-dev header:toml++/toml.h"
  "libsndfile1-dev header:sndfile.h"
  "libpng-dev header:png.h"
  "libsamplerate0-dev header:samplerate.h"
  "libgtest-dev header:gtest/gtest.h"
  "librapidcheck-dev header:rapidcheck.h"
  "libbenchmark-dev header:benchmark/benchmark.h"
)

# --- Messages -------------------------------------------------------------------------------------------------------------------

bold='' red='' green='' plain=''
if [[ -t 1 && -t 2 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then
  bold=$'\033[1m' red=$'\033[1;31m' green=$'\033[32m' plain=$'\033[0m'
fi

say() { printf '%s\n' "$*"; }
heading() { printf '%s%s%s\n' "$bold" "$*" "$plain"; }
error() { printf '%s: %serror:%s %s\n' "${0##*/}" "$red" "$plain" "$*" >&2; }
die() {
  error "$@"
  exit 1
}

# A path as the user would type it from the source folder.
short_path() { printf '%s' "${1#"$root"/}"; }

# Seconds as people say them.
duration() {
  if (($1 < 60)); then printf '%d s' "$1"; else printf '%d min %02d s' $(($1 / 60)) $(($1 % 60)); fi
}

# --- Commands with a log --------------------------------------------------------------------------------------------------------

watcher=

# Tells now and then how far the command that writes to the log has come: on a terminal in one line that is rewritten, else in a line a minute.
watch_log() {
  local label=$1 log=$2 parent=$$ ticks=0 counter
  # Not the command's output but our own; ends with the script, whatever happens to it.
  while kill -0 "$parent" 2>/dev/null; do
    sleep 1
    ((++ticks))
    [[ -t 2 ]] || ((ticks % 60 == 0)) || continue
    counter=$(tail -c 4000 "$log" 2>/dev/null | grep -oE '^\[[0-9]+/[0-9]+\]' | tail -n 1)
    if [[ -t 2 ]]; then
      printf '\r\033[K  %s %s %s' "$label" "$counter" "$(duration "$ticks")" >&2
    else
      printf '  %s %s %s\n' "$label" "$counter" "$(duration "$ticks")" >&2
    fi
  done
}

stop_watcher() {
  [[ -n $watcher ]] || return 0
  kill "$watcher" 2>/dev/null
  wait "$watcher" 2>/dev/null
  watcher=
  [[ -t 2 ]] && printf '\r\033[K' >&2
  return 0
}
trap stop_watcher EXIT

# run_logged LABEL LOG COMMAND...: runs the command with its output in the log and nothing on its standard input.
run_logged() {
  local label=$1 log=$2 rc
  shift 2
  mkdir -p -- "$(dirname -- "$log")" || return 1
  watch_log "$label" "$log" &
  watcher=$!
  "$@" >"$log" 2>&1 </dev/null
  rc=$?
  stop_watcher
  return "$rc"
}

# What a log says of a failure, on stderr: the errors that it names, else its last lines.
show_log() {
  local log=$1 lines
  lines=$(grep -E '^(E|ERROR): ' "$log" || grep -E -A 4 '(^|[^a-z])(fatal )?error[: ]|^FAILED:|undefined reference|^CMake Error' "$log")
  lines=$(head -n 40 <<<"$lines")
  [[ -n $lines ]] || lines=$(tail -n 25 "$log")
  printf '%s\n' "$lines" | sed 's/^/    /' >&2
  say "    (all of it: $(short_path "$log"))" >&2
}

# --- System packages ------------------------------------------------------------------------------------------------------------

has() {
  local what=${1#*:} include=${CPATH:-} folder
  case $1 in
    command:*) command -v "$what" >/dev/null ;;
    module:*) command -v python3 >/dev/null && python3 -c "import $what" 2>/dev/null ;;
    header:*)
      for folder in /usr/include /usr/local/include ${include//:/ }; do
        [[ -e $folder/$what ]] && return 0
      done
      return 1
      ;;
  esac
}

# Names of the packages whose signs are missing.
missing_packages() {
  local entry
  for entry in "${packages[@]}"; do
    has "${entry#* }" || printf '%s ' "${entry%% *}"
  done
}

# at_least HAVE WANT: whether version HAVE is WANT or later.
at_least() { [[ $(printf '%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]; }

check_versions() {
  local found
  found=$(cmake --version | sed -n '1s/[^0-9]*//p')
  at_least "$found" 3.25 || { error "CMake 3.25 or later is needed, found $found: Debian 12, Ubuntu 24.04 and later have it"; return 1; }
  found=$(g++ -dumpfullversion)
  at_least "$found" 12 || { error "g++ 12 or later is needed, found $found: Debian 12, Ubuntu 24.04 and later have it"; return 1; }
  found=$(python3 -c 'import platform; print(platform.python_version())')
  at_least "$found" 3.10 || { error "Python 3.10 or later is needed, found $found"; return 1; }
}

# Installs what is missing with apt-get as root; otherwise one line says what to run.
setup_packages() {
  local missing log=$logs/packages.log
  missing=$(missing_packages)
  missing=${missing% }
  if [[ -n $missing ]]; then
    if ! command -v apt-get >/dev/null; then
      error "these are missing, by their Debian names, and there is no apt-get to install them: $missing"
      return 1
    fi
    if ((EUID != 0)); then
      error "system packages are missing; run: sudo apt-get update && sudo apt-get install -y --no-install-recommends $missing"
      return 1
    fi
    say "  installing $missing"
    # A failed update is no reason to stop: the lists that are there may do.
    # shellcheck disable=SC2086
    run_logged "installing packages" "$log" env DEBIAN_FRONTEND=noninteractive sh -c \
      'apt-get update; apt-get install -y --no-install-recommends "$@"' install $missing
    local rc=$?
    hash -r
    missing=$(missing_packages)
    missing=${missing% }
    if [[ -n $missing ]]; then
      show_log "$log"
      error "apt-get (exit code $rc) did not install: $missing"
      return 1
    fi
  fi
  check_versions
}

# wish_for PACKAGE: installs what is good to have and nobody needs, where that can be done without asking.
wish_for() {
  ((EUID == 0)) && apt-cache show "$1" >/dev/null 2>&1 || return 0
  run_logged "installing $1" "$logs/$1.log" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$1"
  hash -r
}

# --- LibTorch -------------------------------------------------------------------------------------------------------------------

# Whether the virtual environment holds all of the wanted wheel. RECORD is what pip writes last. Any build of the version will do: who
# put one with CUDA there wanted it.
torch_is_installed() {
  [[ -x $venv/bin/python3 ]] && "$venv/bin/python3" - "$torch_version" <<'END' 2>/dev/null
import importlib.metadata, sys
torch = importlib.metadata.distribution("torch")
whole = torch.read_text("RECORD") and torch.locate_file("torch/lib/libtorch_cpu.so").exists()
sys.exit(not (whole and torch.version.split("+")[0] == sys.argv[1]))
END
}

# setup_venv LOG: a virtual environment with pip, made anew if it is none.
setup_venv() {
  [[ -x $venv/bin/python3 ]] && "$venv/bin/python3" -m pip --version >/dev/null 2>&1 && return 0
  run_logged "creating .venv" "$1" python3 -m venv --clear "$venv" && return 0
  show_log "$1"
  error "python3 could not create the virtual environment .venv"
  return 1
}

pip() { "$venv/bin/python3" -m pip --disable-pip-version-check --no-input "$@"; }

# Whether pip's configuration offers a build without CUDA under the plain version. The plain wheel of PyPI for Linux on x86-64 is the CUDA build,
# which asks for gigabytes of nvidia-* packages: what a wheel asks for tells, and pip 23.3 and later learn that without downloading it.
plain_build_is_cpu() {
  pip install --quiet --upgrade 'pip>=23.3' || return 1
  pip install --quiet --dry-run --no-deps --ignore-installed --only-binary :all: --report "$logs/torch-report.json" "torch==$torch_version" || return 1
  "$venv/bin/python3" - "$logs/torch-report.json" <<'END'
import json, re, sys
from pip._vendor.packaging.requirements import Requirement

wheel = json.load(open(sys.argv[1]))["install"][0]["metadata"]
needs = [Requirement(text) for text in wheel.get("requires_dist", [])]
needs = [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
accelerator = [name for name in needs if re.match("nvidia|cuda|triton|pytorch.triton|rocm|intel|onemkl|dpcpp", name, re.IGNORECASE)]
print("torch", wheel["version"], "asks for", ", ".join(accelerator) or "no package of an accelerator")
sys.exit(bool(accelerator))
END
}

# The CPU build that pip's configuration offers, else the one of PyTorch's own index. SEQBOAT_TORCH_INDEX, if set, is asked and nothing else.
install_torch() {
  if [[ -z ${SEQBOAT_TORCH_INDEX:-} ]]; then
    say "--- $torch_version+cpu of pip's configuration"
    pip install "torch==$torch_version+cpu" && return 0
    say "--- $torch_version of pip's configuration, if that is a CPU build"
    plain_build_is_cpu && pip install "torch==$torch_version" && return 0
  fi
  say "--- $torch_version of $torch_index"
  pip install --index-url "$torch_index" "torch==$torch_version"
}

setup_libtorch() {
  torch_is_installed && return 0
  local log=$logs/libtorch.log
  setup_venv "$log" || return 1
  say "  installing torch $torch_version into .venv"
  if ! run_logged "installing torch" "$log" install_torch || ! torch_is_installed; then
    show_log "$log"
    error "torch $torch_version could not be installed from pip's configuration or $torch_index; SEQBOAT_TORCH_INDEX=URL names another index"
    return 1
  fi
}

# --- TensorBoard ----------------------------------------------------------------------------------------------------------------

# Whether the virtual environment holds the packages whole, each in a version that will do. Without importing them: that takes a second.
tensorboard_is_installed() {
  [[ -x $venv/bin/python3 ]] && "$venv/bin/python3" - "${tensorboard_packages[@]}" <<'END' 2>/dev/null
import importlib.metadata, sys
from pip._vendor.packaging.requirements import Requirement

for need in map(Requirement, sys.argv[1:]):
    package = importlib.metadata.distribution(need.name)
    if not (package.read_text("RECORD") and need.specifier.contains(package.version)):
        sys.exit(1)
END
}

setup_tensorboard() {
  tensorboard_is_installed && return 0
  local log=$logs/tensorboard.log
  setup_venv "$log" || return 1
  say "  installing TensorBoard's readers into .venv"
  if ! run_logged "installing TensorBoard" "$log" pip install --no-deps --only-binary :all: "${tensorboard_packages[@]}" || ! tensorboard_is_installed; then
    show_log "$log"
    error "these could not be installed from pip's configuration: ${tensorboard_packages[*]}"
    return 1
  fi
}

# --- CMake ----------------------------------------------------------------------------------------------------------------------

# build_jobs MB: compilers that may run at once when one of them takes so many megabytes.
build_jobs() {
  local jobs available limit
  jobs=$(nproc)
  available=$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo 2>/dev/null)
  limit=$(cat /sys/fs/cgroup/memory.max 2>/dev/null)
  if [[ $limit =~ ^[0-9]{1,15}$ ]]; then
    limit=$(((limit - $(cat /sys/fs/cgroup/memory.current 2>/dev/null || echo 0)) / 1048576))
    if [[ -z $available ]] || ((limit < available)); then available=$limit; fi
  fi
  if [[ -n $available ]] && ((available / $1 < jobs)); then jobs=$((available / $1)); fi
  ((jobs >= 1)) || jobs=1
  printf '%s' "${SEQBOAT_JOBS:-$jobs}"
}

# Sources that include LibTorch take this much of the compiler, the others that.
torch_mb_per_job=1600
plain_mb_per_job=800

# configure PRESET
configure() {
  local log=$logs/$1-configure.log
  run_logged "configuring $1" "$log" cmake --preset "$1" && return 0
  show_log "$log"
  error "configuring the preset $1 failed"
  return 1
}

# build PRESET [TARGET...]; the preset `release` is taken to hold LibTorch's users.
build() {
  local preset=$1 log=$logs/$1-build.log mb=$plain_mb_per_job targets=()
  shift
  [[ $preset == release ]] && mb=$torch_mb_per_job
  (($# > 0)) && targets=(--target "$@")
  run_logged "building $preset" "$log" nice cmake --build --preset "$preset" --parallel "$(build_jobs "$mb")" "${targets[@]}" && return 0
  show_log "$log"
  error "building the preset $preset failed"
  return 1
}
