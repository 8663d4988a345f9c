// CUDA's built-in vector types, with CUDA's sizes and alignments.
#pragma once

struct uint3 {
    unsigned x, y, z;
};

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
    constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
    constexpr operator uint3() const { return {x, y, z}; }
};

// Three components are packed, two and four are aligned as one word (at most 16 bytes).
#define PSR_EMU_VECTOR_1_2_4(name, T, align2, align4)                                      \
    struct name##1 {                                                                       \
        T x;                                                                               \
    };                                                                                     \
    struct alignas(align2) name##2 {                                                       \
        T x, y;                                                                            \
    };                                                                                     \
    struct alignas(align4) name##4 {                                                       \
        T x, y, z, w;                                                                      \
    };                                                                                     \
    static inline name##1 make_##name##1(T x) { return {x}; }                              \
    static inline name##2 make_##name##2(T x, T y) { return {x, y}; }                      \
    static inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }      \
    static inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }

#define PSR_EMU_VECTOR(name, T, align2, align4) \
    struct name##3 {                            \
        T x, y, z;                              \
    };                                          \
    PSR_EMU_VECTOR_1_2_4(name, T, align2, align4)

PSR_EMU_VECTOR(char, signed char, 2, 4)
PSR_EMU_VECTOR(uchar, unsigned char, 2, 4)
PSR_EMU_VECTOR(short, short, 4, 8)
PSR_EMU_VECTOR(ushort, unsigned short, 4, 8)
PSR_EMU_VECTOR(int, int, 8, 16)
PSR_EMU_VECTOR_1_2_4(uint, unsigned, 8, 16)
PSR_EMU_VECTOR(longlong, long long, 16, 16)
PSR_EMU_VECTOR(ulonglong, unsigned long long, 16, 16)
PSR_EMU_VECTOR(float, float, 8, 16)
PSR_EMU_VECTOR(double, double, 16, 16)
