# Finds the parts of LibTorch that a CPU program links: libtorch_cpu and libc10.
#
# The TorchConfig.cmake inside the PyPI wheel insists on a CUDA toolkit at configure time. ringlet
# links only the CPU libraries and loads libtorch_cuda at run time (ringlet/nn/device.cpp), so this
# module looks for nothing else.
#
#   TORCH_DIR         folder with include/ and lib/ (a wheel's torch/ folder or a libtorch archive)
#   LibTorch_FOUND, LibTorch_VERSION, target LibTorch::cpu

set(_libtorch_hints ${TORCH_DIR} $ENV{TORCH_DIR} ${CMAKE_CURRENT_LIST_DIR}/../.deps/torch-2.15.0/torch)

find_path(LibTorch_INCLUDE_DIR ATen/ATen.h HINTS ${_libtorch_hints} PATH_SUFFIXES include
          NO_DEFAULT_PATH)
find_library(LibTorch_CPU_LIBRARY torch_cpu HINTS ${_libtorch_hints} PATH_SUFFIXES lib
             NO_DEFAULT_PATH)
find_library(LibTorch_C10_LIBRARY c10 HINTS ${_libtorch_hints} PATH_SUFFIXES lib NO_DEFAULT_PATH)

if(LibTorch_INCLUDE_DIR AND EXISTS "${LibTorch_INCLUDE_DIR}/torch/headeronly/version.h")
  file(READ "${LibTorch_INCLUDE_DIR}/torch/headeronly/version.h" _libtorch_version_text)
  foreach(part MAJOR MINOR PATCH)
    string(REGEX MATCH "TORCH_VERSION_${part} ([0-9]+)" _ "${_libtorch_version_text}")
    set(_libtorch_${part} ${CMAKE_MATCH_1})
  endforeach()
  set(LibTorch_VERSION ${_libtorch_MAJOR}.${_libtorch_MINOR}.${_libtorch_PATCH})
  set(LibTorch_VERSION_MAJOR ${_libtorch_MAJOR})
  set(LibTorch_VERSION_MINOR ${_libtorch_MINOR})
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  LibTorch
  REQUIRED_VARS LibTorch_CPU_LIBRARY LibTorch_C10_LIBRARY LibTorch_INCLUDE_DIR
  VERSION_VAR LibTorch_VERSION
  REASON_FAILURE_MESSAGE "Run scripts/bootstrap.sh, or pass -DTORCH_DIR=<folder of an installed torch>.")

if(LibTorch_FOUND AND NOT TARGET LibTorch::cpu)
  add_library(LibTorch::c10 SHARED IMPORTED GLOBAL)
  set_target_properties(LibTorch::c10 PROPERTIES IMPORTED_LOCATION "${LibTorch_C10_LIBRARY}")
  add_library(LibTorch::cpu SHARED IMPORTED GLOBAL)
  set_target_properties(LibTorch::cpu PROPERTIES IMPORTED_LOCATION "${LibTorch_CPU_LIBRARY}")
  target_include_directories(LibTorch::cpu SYSTEM INTERFACE "${LibTorch_INCLUDE_DIR}"
                             "${LibTorch_INCLUDE_DIR}/torch/csrc/api/include")
  target_link_libraries(LibTorch::cpu INTERFACE LibTorch::c10)
  # libtorch_cpu finds its own CUDA runtime stubs through its run path; the linker need not.
  # A run path of the old kind serves the libraries behind it as well.
  target_link_options(LibTorch::cpu INTERFACE -Wl,--allow-shlib-undefined -Wl,--disable-new-dtags)
endif()
mark_as_advanced(LibTorch_INCLUDE_DIR LibTorch_CPU_LIBRARY LibTorch_C10_LIBRARY)
