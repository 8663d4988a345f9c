// Kernels for test_cuda_emulation.py: right ones, and wrong ones that must be caught.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "launch.h"

// What a thread finds in shared memory that no thread has written. Not in the namespace below: two
// libraries with this kernel must have two arrays.
template <int size>
__global__ void unwritten(float* out) {
    PSR_DYNAMIC_SHARED(float, buffer);
    __shared__ float array[size];
    out[2 * threadIdx.x] = buffer[threadIdx.x];
    out[2 * threadIdx.x + 1] = array[threadIdx.x];
    __syncthreads();
    buffer[threadIdx.x] = array[threadIdx.x] = 1.0f;  // the next block must not find this
}

namespace {

constexpr unsigned full_mask = 0xFFFFFFFFu;

cudaStream_t as_stream(void* stream) { return static_cast<cudaStream_t>(stream); }

// --- Reduction, transpose, indices ------------------------------------------------------------

template <class T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2)
        value += __shfl_xor_sync(full_mask, value, offset);
    return value;
}

// Each block sums `per_thread` values per thread, then adds its sum to total[0].
template <class T, int per_thread>
__global__ void __launch_bounds__(1024)
    block_sums(const T* __restrict__ values, T* __restrict__ sums, T* __restrict__ total, int n) {
    PSR_DYNAMIC_SHARED(T, partial);
    const int thread = threadIdx.x, lane = thread % warpSize, warp = thread / warpSize;
    T sum = 0;
    for (int i = 0; i < per_thread; ++i) {
        const int index = (blockIdx.x * per_thread + i) * blockDim.x + thread;
        if (index < n) sum += __ldg(values + index);
    }
    sum = warp_sum(sum);
    if (lane == 0) partial[warp] = sum;
    __syncthreads();
    if (warp == 0) {
        sum = lane < static_cast<int>(blockDim.x) / warpSize ? partial[lane] : T(0);
        sum = warp_sum(sum);
        if (lane == 0) {
            sums[blockIdx.x] = sum;
            atomicAdd(total, sum);
        }
    }
}

// A static array inside a template: several instances in one library. Without the barrier each
// thread may read what another has not written yet.
template <class T, int tile_size, bool with_barrier>
__global__ void transpose(const T* in, T* out, int rows, int columns) {
    __shared__ T tile[tile_size][tile_size + 1];
    const int column = blockIdx.x * tile_size + threadIdx.x;
    const int row = blockIdx.y * tile_size + threadIdx.y;
    if (row < rows && column < columns) tile[threadIdx.y][threadIdx.x] = in[row * columns + column];
    if (with_barrier) __syncthreads();
    const int out_column = blockIdx.y * tile_size + threadIdx.x;
    const int out_row = blockIdx.x * tile_size + threadIdx.y;
    if (out_row < columns && out_column < rows)
        out[out_row * rows + out_column] = tile[threadIdx.x][threadIdx.y];
}

__global__ void indices_3d(int* out) {
    const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const unsigned threads = blockDim.x * blockDim.y * blockDim.z;
    const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    int4* row = reinterpret_cast<int4*>(out) + 2 * (block * threads + thread);
    row[0] = make_int4(blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x);
    row[1] = make_int4(threadIdx.y, threadIdx.z, blockDim.y, gridDim.z);
}

// --- Warp operations --------------------------------------------------------------------------

template <class T>
__global__ void shuffle(int operation, int offset, int width, const T* in, T* out) {
    const T value = in[threadIdx.x];
    T result = 0;
    if (operation == 0) result = __shfl_sync(full_mask, value, offset, width);
    if (operation == 1) result = __shfl_up_sync(full_mask, value, offset, width);
    if (operation == 2) result = __shfl_down_sync(full_mask, value, offset, width);
    if (operation == 3) result = __shfl_xor_sync(full_mask, value, offset, width);
    out[threadIdx.x] = result;
}

__global__ void votes(unsigned* out) {
    const int thread = threadIdx.x, lane = thread % 32;
    unsigned* row = out + 12 * thread;
    const unsigned even = 0x55555555u, mine = lane % 2 ? ~even : even;
    row[0] = __ballot_sync(full_mask, lane % 3 == 0);
    row[1] = __any_sync(full_mask, thread == 40);
    row[2] = __all_sync(full_mask, thread >= 32);
    row[3] = __ballot_sync(mine, lane < 8);
    row[4] = __syncthreads_count(thread % 5 == 0);
    row[5] = __syncthreads_or(thread == 63);
    row[6] = __syncthreads_and(thread < 63);
    // Both halves of a warp at different lines: each line has its own set of active lanes.
    if (lane < 12)
        row[7] = __activemask();
    else
        row[7] = __activemask();
    // Different lines, but the same instruction with the same mask: they meet.
    if (lane % 2)
        row[8] = __shfl_sync(full_mask, thread, lane - 1);
    else
        row[8] = __shfl_sync(full_mask, thread, lane + 1);
    // Lanes that ended are not waited for.
    if (lane >= 20) return;
    __syncwarp();
    row[9] = __ballot_sync(full_mask, 1);
    row[10] = __activemask();
    row[11] = __shfl_down_sync(0xFFFFFu, thread, 16, 4);
}

// --- Scalar functions -------------------------------------------------------------------------

// Per thread: the float of a half and of a bfloat16 pattern, and the patterns of floats.
__global__ void conversions(const unsigned short* patterns, float* from_half, float* from_bfloat,
                            const float* values, unsigned short* to_half,
                            unsigned short* to_bfloat, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    from_half[i] = __half2float(__ushort_as_half(patterns[i]));
    from_bfloat[i] = __bfloat162float(__ushort_as_bfloat16(patterns[i]));
    to_half[i] = __half_as_ushort(__float2half_rn(values[i]));
    to_bfloat[i] = __bfloat16_as_ushort(__float2bfloat16_rn(values[i]));
}

__constant__ unsigned table[3] = {7, 11, 13};

__global__ void scalars(unsigned long long* out, double* real, float* atomics) {
    out[0] = __umulhi(0xDEADBEEFu, 0xCAFEBABEu);
    out[1] = __umul64hi(0xDEADBEEFCAFEBABEull, 0x123456789ABCDEFull);
    out[2] = __popc(0xF0F0u) + 100 * __clz(1) + 10000 * __clz(0);
    out[3] = min(-1, 5u);               // unsigned: 0xFFFFFFFF against 5
    out[4] = max(-1LL, 5LL) + min(7u, 3u);
    out[5] = __float_as_uint(-2.5f) + __float_as_int(1.0f);
    out[6] = table[0] * table[1] * table[2];
    real[0] = min(1.5f, 0.25);
    real[1] = max(__uint_as_float(0x7FC00000u), 3.0f);  // the number, not the NaN
    real[2] = rsqrtf(16.0f) + __expf(0.0f) + __fdividef(3.0f, 2.0f) + fmaf(2.0f, 3.0f, 1.0f);
    real[3] = __longlong_as_double(__double_as_longlong(-0.125));
    const float4 four = __ldcs(reinterpret_cast<const float4*>(atomics + 4));
    __stcs(reinterpret_cast<float2*>(atomics + 2), make_float2(four.y, four.w));
    atomicAdd(atomics, 0.5f);
    __threadfence();
}

// --- Mistakes ---------------------------------------------------------------------------------

enum Mistake {
    early_exit, two_barriers, lanes_missing, from_ended_lane, from_unnamed_lane, not_in_mask,
    masks_differ, bad_width, write_after, write_before, misaligned, mistakes
};

__global__ void mistake(Mistake kind, int* out) {
    PSR_DYNAMIC_SHARED(int, buffer);  // 64 ints for 64 threads
    const int thread = threadIdx.x, lane = thread % 32;
    buffer[thread] = 0;
    if (kind == early_exit) {
        if (thread >= 48) return;
        __syncthreads();
    } else if (kind == two_barriers) {
        if (thread < 16)
            __syncthreads();
        else
            __syncthreads();
    } else if (kind == lanes_missing) {
        if (lane < 8) __syncwarp();
        __syncthreads();
    } else if (kind == from_ended_lane) {
        if (lane >= 16) return;
        out[thread] = __shfl_xor_sync(full_mask, thread, 16);
    } else if (kind == from_unnamed_lane) {
        if (lane < 16) out[thread] = __shfl_sync(0xFFFFu, thread, 20);
    } else if (kind == not_in_mask) {
        __syncwarp(0xFFFFu);
    } else if (kind == masks_differ) {
        out[thread] = __ballot_sync(lane < 16 ? full_mask : 0xFFFF0000u, 1);
    } else if (kind == bad_width) {
        out[thread] = __shfl_sync(full_mask, thread, 0, 24);
    } else if (kind == write_after && thread == 63) {
        buffer[thread + 1] = -1;
    } else if (kind == write_before && thread == 0) {
        buffer[thread - 2] = 0;
    } else if (kind == misaligned) {
        const int2* pairs = reinterpret_cast<const int2*>(out + 1);
        out[0] = __ldg(pairs).x;
    }
}

// The order of threads and blocks, as the values of a counter.
__global__ void arrival(int* counter, int* arrivals) {
    for (int i = 0; i < 2; ++i) {
        arrivals[(i * gridDim.x + blockIdx.x) * blockDim.x + threadIdx.x] = atomicAdd(counter, 1);
        __syncthreads();
    }
}

__global__ void nothing() {}

template <int bytes>
__global__ void static_bytes(int* sum) {
    __shared__ unsigned char array[bytes];
    for (int i = threadIdx.x; i < bytes; i += blockDim.x) array[i] = 1;
    __syncthreads();
    for (int i = threadIdx.x; i < bytes; i += blockDim.x) atomicAdd(sum, int(array[i]));
}

__global__ void many_switches(float* out) {
    float sum = threadIdx.x;
    for (int i = 0; i < 10; ++i) {
        sum += __shfl_xor_sync(full_mask, sum, 1 << (i % 5));
        __syncthreads();
    }
    out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

template <class T>
int launch_shuffle(int operation, int offset, int width, const void* in, void* out) {
    PSR_LAUNCH(shuffle<T>, 1, 32, 0, nullptr, operation, offset, width, static_cast<const T*>(in),
               static_cast<T*>(out));
    return cudaGetLastError();
}

}  // namespace

extern "C" {

int st_block_sums(const double* values, double* sums, double* total, int n, int blocks,
                  int threads, void* stream) {
    cudaMemsetAsync(total, 0, sizeof *total, as_stream(stream));
    const size_t shared_bytes = (threads / 32) * sizeof(double);
    PSR_LAUNCH((block_sums<double, 3>), blocks, threads, shared_bytes, as_stream(stream), values,
               sums, total, n);
    return cudaGetLastError();
}

int st_transpose(const float* in, float* out, int rows, int columns, int with_barrier) {
    const dim3 block(16, 16), grid((columns + 15) / 16, (rows + 15) / 16);
    if (with_barrier)
        PSR_LAUNCH((transpose<float, 16, true>), grid, block, 0, nullptr, in, out, rows, columns);
    else
        PSR_LAUNCH((transpose<float, 16, false>), grid, block, 0, nullptr, in, out, rows, columns);
    return cudaGetLastError();
}

int st_indices(int* out) {
    PSR_LAUNCH(indices_3d, dim3(3, 2, 4), dim3(5, 2, 3), 0, nullptr, out);
    return cudaGetLastError();
}

int st_shuffle_int(int op, int offset, int width, const void* in, void* out) {
    return launch_shuffle<int>(op, offset, width, in, out);
}
int st_shuffle_double(int op, int offset, int width, const void* in, void* out) {
    return launch_shuffle<double>(op, offset, width, in, out);
}

int st_votes(unsigned* out) {
    PSR_LAUNCH(votes, 1, 64, 0, nullptr, out);
    return cudaGetLastError();
}

int st_conversions(const unsigned short* patterns, float* from_half, float* from_bfloat,
                   const float* values, unsigned short* to_half, unsigned short* to_bfloat,
                   int n) {
    PSR_LAUNCH(conversions, (n + 255) / 256, 256, 0, nullptr, patterns, from_half, from_bfloat,
               values, to_half, to_bfloat, n);
    return cudaGetLastError();
}

int st_scalars(unsigned long long* out, double* real, float* atomics) {
    PSR_LAUNCH(scalars, 1, 1, 0, nullptr, out, real, atomics);
    return cudaGetLastError();
}

int st_mistake(int kind, int* out) {
    PSR_LAUNCH(mistake, 2, 64, 64 * sizeof(int), nullptr, static_cast<Mistake>(kind), out);
    return cudaGetLastError();
}

int st_unwritten(float* out) {
    PSR_LAUNCH(unwritten<32>, 3, 32, 32 * sizeof(float), nullptr, out);
    return cudaGetLastError();
}

int st_arrival(int* counter, int* arrivals) {
    PSR_LAUNCH(arrival, 4, 64, 0, nullptr, counter, arrivals);
    return cudaGetLastError();
}

int st_nothing(unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
               int shared_bytes) {
    PSR_LAUNCH(nothing, dim3(gx, gy, gz), dim3(bx, by, bz), shared_bytes, nullptr, );
    return cudaGetLastError();
}

// A kernel with 40000 static bytes; the attribute allows `allowed` dynamic bytes.
int st_static_bytes(int* sum, int shared_bytes, int allowed) {
    const cudaError_t error = cudaFuncSetAttribute(
        static_bytes<40000>, cudaFuncAttributeMaxDynamicSharedMemorySize, allowed);
    if (error != cudaSuccess) return error;
    PSR_LAUNCH(static_bytes<40000>, 1, 64, shared_bytes, nullptr, sum);
    return cudaPeekAtLastError() != cudaSuccess ? cudaGetLastError() : cudaSuccess;
}

int st_many_switches(float* out, int blocks, int threads) {
    PSR_LAUNCH(many_switches, blocks, threads, 0, nullptr, out);
    return cudaGetLastError();
}

}  // extern "C"
