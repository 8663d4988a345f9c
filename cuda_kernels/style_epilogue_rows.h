// What style_epilogue's CUDA kernels read, compute and write for one row: accesses of up to 16
// bytes, the operands beside x, the activation.
#pragma once

#include <type_traits>

#include "style_epilogue_tiles.h"

namespace psr {

// W values as they lie in memory, in whole registers: of a Vec of 16-bit numbers that passes a
// branch, the compiler makes a register for each number, and waits for the load to do so.
template <class T, int W>
struct alignas(sizeof(T) * W) Raw {
  using Word = std::conditional_t<sizeof(T) * W % 4 == 0, uint32_t, uint16_t>;
  static constexpr int kWords = sizeof(T) * W / sizeof(Word);
  Word word[kWords];
};

template <class T, int W>
PSR_DEVICE Raw<T, W> read(const void* from, int64_t at) {
  return *reinterpret_cast<const Raw<T, W>*>(static_cast<const T*>(from) + at);
}

template <class T, int W>
PSR_DEVICE void unpack(const Raw<T, W>& from, acc_t<T> (&to)[W]) {
  if constexpr (std::is_same_v<T, bf16> && W > 1) {
#pragma unroll
    for (int j = 0; j < W; ++j) {  // one instruction each
      const uint32_t word = from.word[j / 2], bits = j % 2 ? word & 0xffff0000u : word << 16;
      std::memcpy(&to[j], &bits, sizeof(bits));
    }
  } else {
    T values[W];
    std::memcpy(values, &from, sizeof(values));
#pragma unroll
    for (int j = 0; j < W; ++j) to[j] = load(values[j]);
  }
}

// Two 16-bit numbers in a word: one instruction on the device.
template <class T>
PSR_DEVICE uint32_t pack(float low, float high) {
#if defined(__CUDA_ARCH__)
  uint32_t out;
  if constexpr (std::is_same_v<T, bf16>) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    std::memcpy(&out, &pair, sizeof(out));
  } else {
    const __half2 pair = __floats2half2_rn(low, high);
    std::memcpy(&out, &pair, sizeof(out));
  }
  return out;
#else
  return store<T>(low).bits | static_cast<uint32_t>(store<T>(high).bits) << 16;
#endif
}

// One access each: of the copy of a struct the compiler may make two or four.
PSR_DEVICE void store_words(void* to, const uint32_t (&w)[2]) {
#if defined(__CUDA_ARCH__)
  asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(to), "r"(w[0]), "r"(w[1]) : "memory");
#else
  std::memcpy(to, w, sizeof(w));
#endif
}
PSR_DEVICE void store_words(void* to, const uint32_t (&w)[4]) {
#if defined(__CUDA_ARCH__)
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(w[0]), "r"(w[1]),
               "r"(w[2]), "r"(w[3]) : "memory");
#else
  std::memcpy(to, w, sizeof(w));
#endif
}

template <class T, int W>
PSR_DEVICE void write(void* to, int64_t at, const acc_t<T> (&v)[W]) {
  T* place = static_cast<T*>(to) + at;
  if constexpr (W == 1) {
    *place = store<T>(v[0]);
  } else {
    Raw<T, W> out;
    if constexpr (sizeof(T) == 2) {
#pragma unroll
      for (int j = 0; j < W; j += 2) out.word[j / 2] = pack<T>(v[j], v[j + 1]);
    } else {
      std::memcpy(&out, v, sizeof(out));
    }
    store_words(place, out.word);
  }
}

template <int W, class A>
PSR_DEVICE void read_line(const A* from, A (&line)[W]) {
  constexpr int N = W < kLanes<A> ? W : kLanes<A>;  // no access has more than 16 bytes
#pragma unroll
  for (int i = 0; i < W; i += N) {
    A part[N];
    unpack(read<A, N>(from, i), part);
#pragma unroll
    for (int j = 0; j < N; ++j) line[i + j] = part[j];
  }
}

// d, b, s and the noise: those of the columns in registers, those of a row read with it.
template <class T, int W, bool kStyle, bool kPlanes>
class Operands {
  using A = acc_t<T>;

 public:
  struct Row {
    A d, b, s, noise;
  };

  // u comes out times `scale`.
  PSR_DEVICE Operands(const StyleEpilogueArgs& a, const Place<W>& place, A scale) : scale_(scale) {
    const int64_t first = kPlanes ? 0 : place.col, sample = place.n * a.c + first;
    d_ = static_cast<const A*>(a.d) + sample;
    b_ = static_cast<const A*>(a.b) + first;
    s_ = kStyle && a.s != nullptr ? static_cast<const A*>(a.s) + sample : nullptr;
    noise_ = static_cast<const A*>(a.noise);
    if (noise_ != nullptr && a.noise_n > 1) noise_ += place.n * a.h * a.w;
    strength_ = noise_ == nullptr || a.strength == nullptr ? A(1)
                                                           : *static_cast<const A*>(a.strength);
    strength_ *= scale;
    if (!place.active) return;
    if (kPlanes) {
      if (noise_ != nullptr) read_line(noise_ + place.col, noise_line_);
#pragma unroll
      for (int j = 0; j < W; ++j) noise_line_[j] *= strength_;
    } else {
      read_line(d_, d_line_);
      read_line(b_, b_line_);
      if (s_ != nullptr) read_line(s_, s_line_);
#pragma unroll
      for (int j = 0; j < W; ++j) d_line_[j] *= scale, b_line_[j] *= scale;
    }
  }

  PSR_DEVICE Row row(int64_t i, bool inside) const {
    Row out{};
    if (!kPlanes && inside && noise_ != nullptr) out.noise = noise_[i];
    if (kPlanes && inside) {
      out.d = d_[i];
      out.b = b_[i];
      if (s_ != nullptr) out.s = s_[i];
    }
    return out;
  }

  PSR_DEVICE A d(int j, const Row& row) const { return kPlanes ? row.d : d_line_[j]; }
  PSR_DEVICE A s(int j, const Row& row) const { return kPlanes ? row.s : s_line_[j]; }
  PSR_DEVICE A u(int j, const Row& row, A c) const {
    return kPlanes ? scale_ * row.d * c + (scale_ * row.b + noise_line_[j])
                   : d_line_[j] * c + (b_line_[j] + strength_ * row.noise);
  }

 private:
  const A *d_, *b_, *s_, *noise_;
  A scale_, strength_;
  A d_line_[W] = {}, b_line_[W] = {}, s_line_[W] = {}, noise_line_[W] = {};
};

// y and dy/du. Slopes in (0, 1] and positive gains, the ordinary case, take few instructions: y is
// then a maximum, or the product of u and dy/du (a slope of zero could make infinity times zero).
template <class A>
struct Response {
  EpilogueNumbers<A> numbers;
  A down, scale;  // scale: of the u that `values` takes
  bool simple, clamped;

  explicit Response(const StyleEpilogueArgs& a)
      : numbers{A(a.alpha), A(a.gain), A(a.clamp)},
        down(numbers.alpha * numbers.gain),
        simple(numbers.alpha > 0 && numbers.alpha <= 1 && numbers.gain > 0),
        clamped(numbers.clamp >= 0) {
    scale = simple ? numbers.gain : A(1);
  }

  // Replaces u by y.
  template <int W>
  PSR_DEVICE void values(A (&v)[W]) const {
    if (simple) {
#pragma unroll
      for (int j = 0; j < W; ++j) v[j] = larger(v[j], numbers.alpha * v[j]);
      if (!clamped) return;
#pragma unroll
      for (int j = 0; j < W; ++j) v[j] = outside(v[j]) ? with_sign_of(v[j]) : v[j];
    } else {
#pragma unroll
      for (int j = 0; j < W; ++j) v[j] = epilogue_value(v[j], numbers);
    }
  }

  // Takes u as it is.
  template <int W>
  PSR_DEVICE void values_and_slopes(const A (&u)[W], A (&y)[W], A (&slope)[W]) const {
    if (simple) {
#pragma unroll
      for (int j = 0; j < W; ++j) {
        slope[j] = u[j] > A(0) ? numbers.gain : down;
        y[j] = slope[j] * u[j];
      }
      if (!clamped) return;
#pragma unroll
      for (int j = 0; j < W; ++j) {
        const bool flat = outside(y[j]);
        slope[j] = flat ? A(0) : slope[j];
        y[j] = flat ? with_sign_of(y[j]) : y[j];
      }
    } else {
#pragma unroll
      for (int j = 0; j < W; ++j) {
        slope[j] = epilogue_slope(u[j], numbers);
        y[j] = epilogue_value(u[j], numbers);
      }
    }
  }

 private:
  PSR_DEVICE static float larger(float a, float b) { return fmaxf(a, b); }
  PSR_DEVICE static double larger(double a, double b) { return fmax(a, b); }
  PSR_DEVICE bool outside(float v) const { return fabsf(v) > numbers.clamp; }
  PSR_DEVICE bool outside(double v) const { return fabs(v) > numbers.clamp; }
  PSR_DEVICE float with_sign_of(float v) const { return copysignf(numbers.clamp, v); }
  PSR_DEVICE double with_sign_of(double v) const { return copysign(numbers.clamp, v); }
};

}  // namespace psr
