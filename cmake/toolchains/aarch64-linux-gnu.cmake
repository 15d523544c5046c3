# Linux on 64-bit ARM from another machine: Debian's g++-aarch64-linux-gnu, with programs run under qemu-user (docs/TESTING.md says what to install).
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
# ctest and the discovery of tests start programs through this. Their loader and C library are those of the architecture's own packages, which stand
# in the machine's /lib; under the cross compiler's, in /usr/aarch64-linux-gnu, the first thread that a program starts hangs.
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64)
# Headers without a processor (fmt, JSON, CLI11, toml++, Highway) are the machine's own; libraries are those of /usr/lib/aarch64-linux-gnu.
set(CMAKE_FIND_ROOT_PATH /usr/aarch64-linux-gnu /usr)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE BOTH)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE BOTH)
