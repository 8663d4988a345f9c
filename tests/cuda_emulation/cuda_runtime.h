// A CUDA runtime on the CPU, for tests: see README.md. Takes the place of the real header of this
// name when its folder comes first in the include path.
#pragma once

#ifdef __CUDACC__
#error "this folder is for g++; nvcc has its own cuda_runtime.h"
#endif

#include "emu_intrinsics.h"
#include "emu_launch.h"

// Hidden, so that each library has its own shared memory also for kernels of the same name
// (otherwise the loader merges the static variables of templates of all libraries of a process).
// Kernels that are static are hidden anyway; g++ would warn.
#pragma GCC diagnostic ignored "-Wattributes"
#define __global__ __attribute__((visibility("hidden")))
#define __device__ __attribute__((visibility("hidden")))
#define __host__
#define __constant__
#define __shared__ static thread_local
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

#define threadIdx (static_cast<const uint3&>(psr_emu::engine.current->thread))
#define blockIdx (static_cast<const uint3&>(psr_emu::engine.block_index))
#define blockDim (static_cast<const dim3&>(psr_emu::engine.block_size))
#define gridDim (static_cast<const dim3&>(psr_emu::engine.grid_size))
constexpr int warpSize = 32;

#define PSR_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
    psr_emu::launcher(#kernel, kernel, grid, block, shared_bytes, stream)(__VA_ARGS__)
#define PSR_DYNAMIC_SHARED(type, name) \
    type* name = reinterpret_cast<type*>(psr_emu::engine.shared.dynamic())
