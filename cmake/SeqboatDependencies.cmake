# Third-party libraries, one INTERFACE target each, so that no other file names a package. The installed package reads this file too: the targets are
# IMPORTED, so that a program outside finds the same libraries by the same names. What only our own sources, programs and tests need comes last.
find_package(Threads REQUIRED)

find_package(nlohmann_json 3.11 REQUIRED)
add_library(seqboat_json INTERFACE IMPORTED GLOBAL)
target_link_libraries(seqboat_json INTERFACE nlohmann_json::nlohmann_json)

find_package(fmt 9 REQUIRED)
add_library(seqboat_fmt INTERFACE IMPORTED GLOBAL)
target_link_libraries(seqboat_fmt INTERFACE fmt::fmt-header-only)
target_link_libraries(seqboat_json INTERFACE seqboat_fmt)

# Highway's headers alone: the little of its library that dispatch needs is in src/kernels/highway_targets.cc.
find_path(SEQBOAT_HIGHWAY_INCLUDE hwy/highway.h REQUIRED)
add_library(seqboat_highway INTERFACE IMPORTED GLOBAL)
target_include_directories(seqboat_highway SYSTEM INTERFACE ${SEQBOAT_HIGHWAY_INCLUDE})
if(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64|ARM64")
  # Vectors of SVE have no size for the compiler, so they cannot stand in the kernels' arrays of accumulators.
  target_compile_definitions(seqboat_highway INTERFACE "HWY_DISABLED_TARGETS=(HWY_SVE|HWY_SVE_256|HWY_SVE2|HWY_SVE2_128)")
  # Highway's functions are compiled for this set; GCC inlines them into a constructor of the compiler's own only where all is.
  target_compile_options(seqboat_highway INTERFACE -march=armv8-a+crypto)
else()
  # No processor of use stops at SSSE3: leaving it out saves a fifth of the kernels' code and of their compile time.
  target_compile_definitions(seqboat_highway INTERFACE HWY_DISABLED_TARGETS=HWY_SSSE3)
endif()

if(SEQBOAT_WITH_TORCH)
  # LibTorch is the pip wheel. It is located without importing it, and this is the only target that mentions it.
  # An installed package comes with the folder that its libraries were built against.
  find_program(SEQBOAT_PYTHON NAMES python3 python HINTS ${PROJECT_SOURCE_DIR}/.venv/bin NO_DEFAULT_PATH)
  if(NOT SEQBOAT_PYTHON)
    find_program(SEQBOAT_PYTHON NAMES python3 REQUIRED)
  endif()
  if(NOT EXISTS "${SEQBOAT_TORCH_ROOT}/include")
    execute_process(
      COMMAND ${SEQBOAT_PYTHON} -c "import importlib.util as u, pathlib as p; s = u.find_spec('torch'); print(p.Path(s.origin).parent if s else '')"
      OUTPUT_VARIABLE SEQBOAT_TORCH_ROOT OUTPUT_STRIP_TRAILING_WHITESPACE)
  endif()
  if(NOT SEQBOAT_TORCH_ROOT)
    message(FATAL_ERROR "LibTorch not found by ${SEQBOAT_PYTHON}. Run tools/quickstart, or: python3 -m venv .venv && .venv/bin/pip install torch==2.13.0. "
                        "Without LibTorch use the preset 'runtime'.")
  endif()
  add_library(seqboat_torch INTERFACE IMPORTED GLOBAL)
  target_include_directories(seqboat_torch SYSTEM INTERFACE ${SEQBOAT_TORCH_ROOT}/include ${SEQBOAT_TORCH_ROOT}/include/torch/csrc/api/include)
  target_link_directories(seqboat_torch INTERFACE ${SEQBOAT_TORCH_ROOT}/lib)
  target_link_options(seqboat_torch INTERFACE -Wl,-rpath,${SEQBOAT_TORCH_ROOT}/lib -Wl,--no-as-needed)
  # at::parallel_for is a template that is parallel only where OpenMP is on; without it every loop of ours would silently be serial. The library must be
  # the one that LibTorch itself loads: two would be two pools of threads.
  file(GLOB SEQBOAT_TORCH_OPENMP ${SEQBOAT_TORCH_ROOT}/lib/libgomp*.so* ${SEQBOAT_TORCH_ROOT}/../torch.libs/libgomp*.so*)
  if(SEQBOAT_TORCH_OPENMP)
    list(GET SEQBOAT_TORCH_OPENMP 0 SEQBOAT_TORCH_OPENMP)
  else()
    set(SEQBOAT_TORCH_OPENMP gomp)
  endif()
  target_compile_options(seqboat_torch INTERFACE -fopenmp)
  target_link_libraries(seqboat_torch INTERFACE torch torch_cpu c10 ${SEQBOAT_TORCH_OPENMP} Threads::Threads)
endif()

if(SEQBOAT_INSTALLED)
  return()
endif()
find_path(SEQBOAT_TOML_INCLUDE toml++/toml.h REQUIRED)
add_library(seqboat_toml INTERFACE IMPORTED GLOBAL)
target_include_directories(seqboat_toml SYSTEM INTERFACE ${SEQBOAT_TOML_INCLUDE})

find_path(SEQBOAT_CLI11_INCLUDE CLI/CLI.hpp REQUIRED)
add_library(seqboat_cli11 INTERFACE IMPORTED GLOBAL)
target_include_directories(seqboat_cli11 SYSTEM INTERFACE ${SEQBOAT_CLI11_INCLUDE})

find_path(SEQBOAT_SNDFILE_INCLUDE sndfile.h REQUIRED)
find_library(SEQBOAT_SNDFILE_LIB sndfile REQUIRED)
find_path(SEQBOAT_SAMPLERATE_INCLUDE samplerate.h REQUIRED)
find_library(SEQBOAT_SAMPLERATE_LIB samplerate REQUIRED)
add_library(seqboat_sound INTERFACE IMPORTED GLOBAL)
target_include_directories(seqboat_sound SYSTEM INTERFACE ${SEQBOAT_SNDFILE_INCLUDE} ${SEQBOAT_SAMPLERATE_INCLUDE})
target_link_libraries(seqboat_sound INTERFACE ${SEQBOAT_SNDFILE_LIB} ${SEQBOAT_SAMPLERATE_LIB})

find_path(SEQBOAT_PNG_INCLUDE png.h REQUIRED)
find_library(SEQBOAT_PNG_LIB png REQUIRED)
add_library(seqboat_png INTERFACE IMPORTED GLOBAL)
target_include_directories(seqboat_png SYSTEM INTERFACE ${SEQBOAT_PNG_INCLUDE})
target_link_libraries(seqboat_png INTERFACE ${SEQBOAT_PNG_LIB})

if(SEQBOAT_BUILD_TESTS)
  find_package(GTest REQUIRED)
  find_path(SEQBOAT_RAPIDCHECK_INCLUDE rapidcheck.h REQUIRED)
  find_library(SEQBOAT_RAPIDCHECK_LIB rapidcheck REQUIRED)
  add_library(seqboat_rapidcheck INTERFACE IMPORTED GLOBAL)
  target_include_directories(seqboat_rapidcheck SYSTEM INTERFACE ${SEQBOAT_RAPIDCHECK_INCLUDE})
  target_link_libraries(seqboat_rapidcheck INTERFACE ${SEQBOAT_RAPIDCHECK_LIB})
endif()
if(SEQBOAT_BUILD_BENCHMARKS)
  find_package(benchmark REQUIRED)
endif()
