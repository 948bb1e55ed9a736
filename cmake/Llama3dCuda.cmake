# LLAMA3D_CUDA: the back end for NVIDIA GPUs, on where there is a CUDA compiler.

include(CheckLanguage)
if(NOT DEFINED LLAMA3D_CUDA)
  check_language(CUDA)
endif()
option(LLAMA3D_CUDA "Build the back end for NVIDIA GPUs" $<BOOL:${CMAKE_CUDA_COMPILER}>)
if(LLAMA3D_CUDA)
  # Ampere code runs on every later GPU of the same major version; Hopper has instructions of its own, and the
  # PTX of sm_80 is what newer GPUs compile.
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES "80;90a-real")
  endif()
  enable_language(CUDA)
  find_package(CUDAToolkit 12.4 REQUIRED)
endif()
