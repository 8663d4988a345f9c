// The part of the CUDA runtime's host interface that does not need the scheduler.
#pragma once

#include <cstddef>
#include <cstring>

#include "emu_types.h"

// The values are CUDA's, since C interfaces return them as integers.
enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorMisalignedAddress = 716,
    cudaErrorLaunchFailure = 719,
};

typedef struct CUstream_st* cudaStream_t;

enum cudaFuncAttribute {
    cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
    cudaFuncAttributePreferredSharedMemoryCarveout = 9,
};

enum cudaDeviceAttr {
    cudaDevAttrMaxThreadsPerBlock = 1,
    cudaDevAttrMaxSharedMemoryPerBlock = 8,
    cudaDevAttrWarpSize = 10,
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrMaxThreadsPerMultiProcessor = 39,
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrComputeCapabilityMinor = 76,
    cudaDevAttrMaxSharedMemoryPerMultiprocessor = 81,
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};

namespace psr_emu {

// Of compute capability 9.0, the smallest device with 227 KB of shared memory per block.
constexpr unsigned max_threads = 1024;
constexpr unsigned max_grid_x = 2147483647, max_grid_yz = 65535, max_block_z = 64;
constexpr size_t default_shared = 48 * 1024, max_shared = 227 * 1024;

}  // namespace psr_emu

static inline const char* cudaGetErrorString(cudaError_t error) {
    switch (error) {
        case cudaSuccess: return "no error";
        case cudaErrorInvalidValue: return "invalid argument";
        case cudaErrorInvalidConfiguration: return "invalid configuration argument";
        case cudaErrorMisalignedAddress: return "misaligned address";
        case cudaErrorLaunchFailure: return "unspecified launch failure";
    }
    return "unrecognized error code";
}

static inline cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cudaSuccess;
}

static inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    switch (attribute) {
        case cudaDevAttrMaxThreadsPerBlock: *value = psr_emu::max_threads; break;
        case cudaDevAttrMaxSharedMemoryPerBlock: *value = psr_emu::default_shared; break;
        case cudaDevAttrWarpSize: *value = 32; break;
        case cudaDevAttrMultiProcessorCount: *value = 4; break;
        case cudaDevAttrMaxThreadsPerMultiProcessor: *value = 2048; break;
        case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
        case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
        case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = 228 * 1024; break;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = psr_emu::max_shared; break;
        default: return cudaErrorInvalidValue;
    }
    return cudaSuccess;
}

// Launches are synchronous here, so "asynchronous" copies and fills are done at once.
static inline cudaError_t cudaMemsetAsync(void* target, int value, size_t bytes,
                                          cudaStream_t = nullptr) {
    std::memset(target, value, bytes);
    return cudaSuccess;
}
