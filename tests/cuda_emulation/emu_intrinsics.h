// The device functions of CUDA that kernels may call.
#pragma once

#include <math.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#include "emu_engine.h"

#pragma GCC visibility push(hidden)

namespace psr_emu {

template <class To, class From>
inline To bit_cast(const From& from) {
    static_assert(sizeof(To) == sizeof(From), "same size");
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

// A device refuses a vector access that is not aligned to the vector; so do __ldg and its kin.
template <class T>
inline T* aligned(T* address) {
    if (reinterpret_cast<uintptr_t>(address) % alignof(T) != 0)
        abandon(cudaErrorMisalignedAddress, "misaligned address %p, the access needs %zu bytes",
                static_cast<const void*>(address), alignof(T));
    return address;
}

inline bool valid_width(int width) { return width > 0 && width <= 32 && !(width & (width - 1)); }

template <class T>
inline T shuffle(Wait wait, unsigned mask, T value, int source, int width, Site site) {
    if (!valid_width(width))
        abandon(cudaErrorLaunchFailure, "%s at %s:%d: width %d is not a power of two up to 32",
                wait_name(wait), site.file_name(), site.line, width);
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    bits = warp_operation(wait, mask, bits, source, site);
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// The lane that a shuffle reads, as the instruction shfl defines it: of an offset only five bits
// count, and a lane whose source lies outside of its segment keeps its own value. (A lane of an
// earlier segment can be read by xor, one of a later segment cannot.)
inline int lane() { return engine.current->lane; }
inline int segment(int width) { return lane() & ~(width - 1); }
inline int source_index(int source, int width) { return segment(width) | (source & (width - 1)); }
inline int source_up(unsigned delta, int width) {
    const int source = lane() - int(delta & 31);
    return source >= segment(width) ? source : lane();
}
inline int source_within(int source, int width) {
    return source < segment(width) + width ? source : lane();
}
inline int source_down(unsigned delta, int width) {
    return source_within(lane() + int(delta & 31), width);
}
inline int source_xor(int lanes, int width) { return source_within(lane() ^ (lanes & 31), width); }

}  // namespace psr_emu

// Default arguments are evaluated at the call: the line of the kernel.
#define PSR_EMU_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

static inline void __syncthreads(PSR_EMU_SITE) {
    psr_emu::barrier(psr_emu::Wait::barrier, false, {file, line});
}
static inline int __syncthreads_or(int vote, PSR_EMU_SITE) {
    return psr_emu::barrier(psr_emu::Wait::barrier_or, vote != 0, {file, line});
}
static inline int __syncthreads_and(int vote, PSR_EMU_SITE) {
    return psr_emu::barrier(psr_emu::Wait::barrier_and, vote != 0, {file, line});
}
static inline int __syncthreads_count(int vote, PSR_EMU_SITE) {
    return psr_emu::barrier(psr_emu::Wait::barrier_count, vote != 0, {file, line});
}

static inline void __syncwarp(unsigned mask = 0xFFFFFFFFu, PSR_EMU_SITE) {
    psr_emu::warp_operation(psr_emu::Wait::syncwarp, mask, 0, 0, {file, line});
}
static inline unsigned __ballot_sync(unsigned mask, int vote, PSR_EMU_SITE) {
    return unsigned(
        psr_emu::warp_operation(psr_emu::Wait::ballot, mask, vote != 0, 0, {file, line}));
}
static inline int __any_sync(unsigned mask, int vote, PSR_EMU_SITE) {
    return int(psr_emu::warp_operation(psr_emu::Wait::any, mask, vote != 0, 0, {file, line}));
}
static inline int __all_sync(unsigned mask, int vote, PSR_EMU_SITE) {
    return int(psr_emu::warp_operation(psr_emu::Wait::all, mask, vote != 0, 0, {file, line}));
}
static inline unsigned __activemask(PSR_EMU_SITE) {
    return unsigned(
        psr_emu::warp_operation(psr_emu::Wait::activemask, ~0u, 0, 0, {file, line}));
}

#define PSR_EMU_SHUFFLE(name, T, wait, offset_type, source_function)                            \
    static inline T name(unsigned mask, T value, offset_type offset, int width = 32,            \
                         PSR_EMU_SITE) {                                                        \
        const int source = psr_emu::source_function(offset, width);                             \
        return psr_emu::shuffle(psr_emu::Wait::wait, mask, value, source, width, {file, line}); \
    }
#define PSR_EMU_SHUFFLES(T)                                              \
    PSR_EMU_SHUFFLE(__shfl_sync, T, shfl, int, source_index)             \
    PSR_EMU_SHUFFLE(__shfl_up_sync, T, shfl_up, unsigned, source_up)     \
    PSR_EMU_SHUFFLE(__shfl_down_sync, T, shfl_down, unsigned, source_down) \
    PSR_EMU_SHUFFLE(__shfl_xor_sync, T, shfl_xor, int, source_xor)

PSR_EMU_SHUFFLES(int)
PSR_EMU_SHUFFLES(unsigned)
PSR_EMU_SHUFFLES(long)
PSR_EMU_SHUFFLES(unsigned long)
PSR_EMU_SHUFFLES(long long)
PSR_EMU_SHUFFLES(unsigned long long)
PSR_EMU_SHUFFLES(float)
PSR_EMU_SHUFFLES(double)

// One thread runs at a time, so a plain addition is atomic and every fence is in place.
static inline void __threadfence() {}
static inline void __threadfence_block() {}

#define PSR_EMU_ATOMIC_ADD(T)                         \
    static inline T atomicAdd(T* address, T value) {  \
        const T old = *psr_emu::aligned(address);     \
        *address = old + value;                       \
        return old;                                   \
    }
PSR_EMU_ATOMIC_ADD(unsigned)
PSR_EMU_ATOMIC_ADD(unsigned long long)
PSR_EMU_ATOMIC_ADD(float)
PSR_EMU_ATOMIC_ADD(double)
static inline int atomicAdd(int* address, int value) {  // wraps around, as on the device
    return int(atomicAdd(reinterpret_cast<unsigned*>(address), unsigned(value)));
}

template <class T>
inline T __ldg(const T* address) {
    return *psr_emu::aligned(address);
}
template <class T>
inline T __ldcs(const T* address) {
    return *psr_emu::aligned(address);
}
template <class T>
inline void __stcs(T* address, std::common_type_t<T> value) {
    *psr_emu::aligned(address) = value;
}

static inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
static inline int __ffs(int x) { return __builtin_ffs(x); }

static inline unsigned __float_as_uint(float x) { return psr_emu::bit_cast<unsigned>(x); }
static inline float __uint_as_float(unsigned x) { return psr_emu::bit_cast<float>(x); }
static inline int __float_as_int(float x) { return psr_emu::bit_cast<int>(x); }
static inline float __int_as_float(int x) { return psr_emu::bit_cast<float>(x); }
static inline long long __double_as_longlong(double x) { return psr_emu::bit_cast<long long>(x); }
static inline double __longlong_as_double(long long x) { return psr_emu::bit_cast<double>(x); }

// Operations that the compiler never fuses into another; a library compiled with
// -ffp-contract=off (see README.md) fuses none.
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __frcp_rn(float x) { return 1.0f / x; }
static inline float __fdividef(float a, float b) { return a / b; }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }

// glibc declares functions of these names itself (some versions), hence macros. The fast forms of
// the device are less exact than these.
static inline float psr_emu_rsqrtf(float x) { return float(1.0 / sqrt(double(x))); }
static inline float psr_emu_expf(float x) { return expf(x); }
static inline float psr_emu_logf(float x) { return logf(x); }
#define rsqrtf psr_emu_rsqrtf
#define __expf psr_emu_expf
#define __logf psr_emu_logf

// The overloads that CUDA has: mixed signs give unsigned, float and double give double; others
// (int and float, int and long long) are as ambiguous or as converted as there. Of a number and a
// NaN, the number.
#define PSR_EMU_MIN_MAX(R, A, B)                             \
    static inline R min(A a, B b) {                          \
        const R left = static_cast<R>(a), right = static_cast<R>(b); \
        return left < right ? left : right;                  \
    }                                                        \
    static inline R max(A a, B b) {                          \
        const R left = static_cast<R>(a), right = static_cast<R>(b); \
        return left > right ? left : right;                  \
    }
#define PSR_EMU_MIN_MAX_INTEGER(S, U) \
    PSR_EMU_MIN_MAX(S, S, S)          \
    PSR_EMU_MIN_MAX(U, U, U)          \
    PSR_EMU_MIN_MAX(U, S, U)          \
    PSR_EMU_MIN_MAX(U, U, S)
#define PSR_EMU_MIN_MAX_REAL(R, A, B)                            \
    static inline R min(A a, B b) { return std::fmin(R(a), R(b)); } \
    static inline R max(A a, B b) { return std::fmax(R(a), R(b)); }

PSR_EMU_MIN_MAX_INTEGER(int, unsigned)
PSR_EMU_MIN_MAX_INTEGER(long, unsigned long)
PSR_EMU_MIN_MAX_INTEGER(long long, unsigned long long)
PSR_EMU_MIN_MAX_REAL(float, float, float)
PSR_EMU_MIN_MAX_REAL(double, double, double)
PSR_EMU_MIN_MAX_REAL(double, float, double)
PSR_EMU_MIN_MAX_REAL(double, double, float)

#pragma GCC visibility pop
