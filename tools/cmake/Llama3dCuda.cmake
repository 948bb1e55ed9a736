# LLAMA3D_CUDA: the back end for NVIDIA GPUs, on where there is a CUDA compiler.

include(CheckLanguage)
set(have_compiler OFF)
if(NOT DEFINED LLAMA3D_CUDA)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(have_compiler ON)
  endif()
endif()
option(LLAMA3D_CUDA "Build the back end for NVIDIA GPUs" ${have_compiler})
if(LLAMA3D_CUDA)
  # Ampere code runs on every later GPU of the same major version; Hopper has instructions of its own, and the
  # PTX of sm_80 is what newer GPUs compile.
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES "80;90a-real")
  endif()
  enable_language(CUDA)
  find_package(CUDAToolkit 12.4 REQUIRED)
  # CMake before 3.26 does not know that nvcc has C++20.
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
  endif()
  # fmt leaves constexpr out under nvcc, which it need not.
  string(APPEND CMAKE_CUDA_FLAGS " --expt-relaxed-constexpr -DFMT_USE_CONSTEXPR=1")
endif()
