# One place for what every target is compiled with.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)

find_program(SEQBOAT_CCACHE ccache)
if(SEQBOAT_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${SEQBOAT_CCACHE})
endif()

# Sources are built for the baseline CPU; Highway picks the vector width at run time. Contraction is off so that
# plain C++ arithmetic gives the same bits whatever the optimiser does; kernels ask for fused multiply-adds by name.
add_library(seqboat_options INTERFACE)
target_compile_options(seqboat_options INTERFACE -Wall -Wextra -Wpedantic $<$<CXX_COMPILER_ID:GNU>:-Wshadow=local> -ffp-contract=off -fno-math-errno)

# For what only calls the libraries (programs, tests): a higher level would double the time to compile them and gain nothing.
add_library(seqboat_glue_options INTERFACE)
target_link_libraries(seqboat_glue_options INTERFACE seqboat_options)
target_compile_options(seqboat_glue_options INTERFACE $<$<CONFIG:Release>:-O1>)

set(SEQBOAT_SANITIZE "" CACHE STRING "Sanitizers to build with, e.g. address,undefined")
if(SEQBOAT_SANITIZE)
  target_compile_options(seqboat_options INTERFACE -fsanitize=${SEQBOAT_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(seqboat_options INTERFACE -fsanitize=${SEQBOAT_SANITIZE})
endif()
option(SEQBOAT_FUZZ "Build the fuzz targets, and the libraries so that libFuzzer sees where it goes; needs clang" OFF)
if(SEQBOAT_FUZZ)
  target_compile_options(seqboat_options INTERFACE -fsanitize=fuzzer-no-link)
  # One target of Highway: which one is none of the readers' business, and its kernels under sanitizers take minutes each.
  target_compile_definitions(seqboat_options INTERFACE HWY_COMPILE_ONLY_STATIC)
endif()
option(SEQBOAT_COVERAGE "Instrument for gcov" OFF)
if(SEQBOAT_COVERAGE)
  target_compile_options(seqboat_options INTERFACE --coverage)
  target_link_options(seqboat_options INTERFACE --coverage)
endif()
