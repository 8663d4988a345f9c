// How a kernel is launched, and how it gets its dynamic shared memory.
//
// One form for two compilers: nvcc, and g++ with PSR_EMULATE, where tests/cuda_emulation is the
// first include folder and its cuda_runtime.h defines both macros. A template instance goes into
// parentheses:
//
//     PSR_LAUNCH((scale<float, 4>), grid, block, shared_bytes, stream, data, count);
#pragma once

#include <cuda_runtime.h>

#ifndef PSR_EMULATE

#define PSR_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
    kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__)

// `name` points to the block's dynamic shared memory, aligned to 16 bytes.
#define PSR_DYNAMIC_SHARED(type, name)                                   \
    extern __shared__ __align__(16) unsigned char psr_dynamic_shared[];  \
    type* name = reinterpret_cast<type*>(psr_dynamic_shared)

#endif
