// The conversions of CUDA's cuda_bf16.h, bit for bit (a NaN becomes the one canonical NaN).
#pragma once

#include "emu_intrinsics.h"

struct __nv_bfloat16 {
    unsigned short bits;
};
typedef __nv_bfloat16 nv_bfloat16;

#pragma GCC visibility push(hidden)

static inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { return {bits}; }
static inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) { return x.bits; }

static inline float __bfloat162float(__nv_bfloat16 x) {
    return __uint_as_float(unsigned(x.bits) << 16);
}

// Rounds to nearest, ties to even.
static inline __nv_bfloat16 __float2bfloat16_rn(float x) {
    const unsigned bits = __float_as_uint(x);
    if ((bits & 0x7FFFFFFF) > 0x7F800000) return {0x7FFF};
    return {static_cast<unsigned short>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16)};
}
static inline __nv_bfloat16 __float2bfloat16(float x) { return __float2bfloat16_rn(x); }

#pragma GCC visibility pop
