// What all kernels share: number formats, vectors of 16 bytes, division by invariants.
// Compiles for the host (g++), for devices (nvcc) and for the emulated device of the tests.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__) || defined(PSR_EMULATE)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define PSR_HD __host__ __device__ __forceinline__
#else
#define PSR_HD inline __attribute__((always_inline))
#endif

namespace psr {

enum class DType : int32_t { f32 = 0, f16 = 1, bf16 = 2, f64 = 3 };

// Storage formats of two bytes. Arithmetic is done in float.
struct f16 {
  uint16_t bits;
};
struct bf16 {
  uint16_t bits;
};

// What sums of a format are accumulated in.
template <class T>
struct Accumulator {
  using type = float;
};
template <>
struct Accumulator<double> {
  using type = double;
};
template <class T>
using acc_t = typename Accumulator<T>::type;

PSR_HD float load(float v) { return v; }
PSR_HD double load(double v) { return v; }

PSR_HD float load(bf16 v) {
  const uint32_t bits = static_cast<uint32_t>(v.bits) << 16;
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  float out;
  std::memcpy(&out, &bits, sizeof(out));
  return out;
#endif
}

PSR_HD float load(f16 v) {
#if defined(__CUDA_ARCH__) || defined(PSR_EMULATE)
  return __half2float(__ushort_as_half(v.bits));
#elif defined(__CUDACC__)
  return 0.0f * v.bits;  // nvcc's host pass: never called, and old host compilers lack _Float16
#else
  _Float16 half;
  std::memcpy(&half, &v.bits, sizeof(half));
  return static_cast<float>(half);
#endif
}

template <class T>
PSR_HD T store(acc_t<T> v) {
  return v;
}

template <>
PSR_HD bf16 store<bf16>(float v) {
#if defined(__CUDA_ARCH__)
  return bf16{__bfloat16_as_ushort(__float2bfloat16_rn(v))};
#else
  uint32_t bits;
  std::memcpy(&bits, &v, sizeof(bits));
  const uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);  // to nearest, ties to even
  return bf16{static_cast<uint16_t>(v != v ? 0x7fc0u : rounded >> 16)};
#endif
}

template <>
PSR_HD f16 store<f16>(float v) {
#if defined(__CUDA_ARCH__) || defined(PSR_EMULATE)
  return f16{__half_as_ushort(__float2half_rn(v))};
#elif defined(__CUDACC__)
  return f16{static_cast<uint16_t>(v)};  // nvcc's host pass: never called
#else
  const _Float16 half = static_cast<_Float16>(v);
  f16 out;
  std::memcpy(&out.bits, &half, sizeof(half));
  return out;
#endif
}

// N values that move in one access.
template <class T, int N>
struct alignas(sizeof(T) * N) Vec {
  T v[N];
};

// How many values of a format 16 bytes hold.
template <class T>
constexpr int kLanes = static_cast<int>(16 / sizeof(T));

inline bool aligned16(const void* pointer) {
  return (reinterpret_cast<uintptr_t>(pointer) & 15u) == 0;
}

// Quotients by a number known at launch, for dividends below 2^31: one product instead of a
// division (Granlund and Montgomery, PLDI 1994, figure 4.1 for N = 31).
struct Divider {
  uint32_t divisor = 1, multiplier = 0, shift = 0;

  Divider() = default;
  explicit Divider(uint32_t d) : divisor(d) {
    while ((1ull << shift) < d) ++shift;
    multiplier = static_cast<uint32_t>(((1ull << 32) * ((1ull << shift) - d)) / d + 1);
  }

  PSR_HD uint32_t div(uint32_t n) const {
#if defined(__CUDA_ARCH__)
    const uint32_t high = __umulhi(n, multiplier);
#else
    const uint32_t high = static_cast<uint32_t>((static_cast<uint64_t>(n) * multiplier) >> 32);
#endif
    return (high + n) >> shift;
  }

  PSR_HD uint32_t mod(uint32_t n) const { return n - div(n) * divisor; }
};

// Runs `body` over ranges that cover [0, count) on the caller's threads.
using ParallelBody = void (*)(int64_t begin, int64_t end, void* context);
using ParallelFor = void (*)(int64_t count, int64_t grain, ParallelBody body, void* context);

template <class F>
void parallel(ParallelFor run, int64_t count, int64_t grain, const F& f) {
  run(
      count, grain,
      [](int64_t begin, int64_t end, void* context) {
        (*static_cast<const F*>(context))(begin, end);
      },
      const_cast<void*>(static_cast<const void*>(&f)));
}

// Calls `f` with a value of the storage type that `dtype` names.
template <class F>
auto with_dtype(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f16: return f(f16{});
    case DType::bf16: return f(bf16{});
    case DType::f64: return f(double{});
    default: return f(float{});
  }
}

}  // namespace psr
