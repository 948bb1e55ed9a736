#pragma once
// Marks functions that both compilers build, for the host and for kernels.

#ifdef __CUDACC__
#define LLAMA3D_HOST_DEVICE __host__ __device__
#else
#define LLAMA3D_HOST_DEVICE
#endif
