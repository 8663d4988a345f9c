// The conversions of CUDA's cuda_fp16.h, bit for bit (a NaN becomes the one canonical NaN).
#pragma once

#include "emu_intrinsics.h"

struct __half {
    unsigned short bits;
};
typedef __half half;

#pragma GCC visibility push(hidden)

static inline __half __ushort_as_half(unsigned short bits) { return {bits}; }
static inline unsigned short __half_as_ushort(__half x) { return x.bits; }

static inline float __half2float(__half x) {
    const unsigned sign = unsigned(x.bits & 0x8000) << 16;
    const unsigned exponent = x.bits >> 10 & 31, fraction = x.bits & 0x3FF;
    if (exponent == 31) return __uint_as_float(fraction ? 0x7FFFFFFF : sign | 0x7F800000);
    if (exponent) return __uint_as_float(sign | (exponent + 112) << 23 | fraction << 13);
    const float magnitude = float(fraction) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
}

// Rounds to nearest, ties to even.
static inline __half __float2half_rn(float x) {
    const unsigned bits = __float_as_uint(x), sign = bits >> 16 & 0x8000;
    const unsigned magnitude = bits & 0x7FFFFFFF;
    unsigned result;
    if (magnitude > 0x7F800000) return {0x7FFF};
    if (magnitude >= 0x477FF000) {  // 65520 and more
        result = 0x7C00;
    } else if (magnitude >= 0x38800000) {  // normal: 2^-14 and more
        result = (magnitude - 0x38000000 + 0xFFF + (magnitude >> 13 & 1)) >> 13;
    } else if (magnitude <= 0x33000000) {  // 2^-25, half of the smallest number, and less
        result = 0;
    } else {  // subnormal: a multiple of 2^-24
        const unsigned shift = 126 - (magnitude >> 23);
        const unsigned fraction = (magnitude & 0x7FFFFF) | 0x800000;
        const unsigned rest = fraction << (32 - shift);
        result = fraction >> shift;
        result += rest > 0x80000000 || (rest == 0x80000000 && (result & 1));
    }
    return {static_cast<unsigned short>(sign | result)};
}
static inline __half __float2half(float x) { return __float2half_rn(x); }

#pragma GCC visibility pop
