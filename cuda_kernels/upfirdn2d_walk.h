// How a CUDA thread filters an image with separable taps: it goes down some columns, filters each
// row horizontally when it comes, and keeps as many filtered rows as the vertical filter needs.
#pragma once

#include <type_traits>

#include "launch.h"
#include "upfirdn2d.h"

namespace psr {

#define PSR_DEVICE __device__ __forceinline__

constexpr int kThreads = 128;

// Along an axis, the `up` outputs of a group are made of the same `reach` pixels, and those of the
// next group lie `step` pixels further. Output p of a group meets the taps up - 1 - p + up * t.
// kExact: the filter has kMostTaps along both axes, else perhaps fewer.
template <int kUp, int kDown, int kMostTaps, bool kExact>
struct Mode {
  static_assert(kUp == 1 || kDown == 1, "groups have no such pattern");
  static constexpr bool exact = kExact;
  static constexpr int up = kUp, step = kDown, taps = kMostTaps;
  static constexpr int reach = (kMostTaps + kUp - 1) / kUp;
  static constexpr int kept = reach - step;  // rows that the next group needs again
};

// One axis as groups: group g makes the outputs g * up - shift + p.
struct Groups {
  int32_t in, out, count, shift, first_pixel;

  explicit Groups(const Axis& axis, int64_t outputs) {
    shift = static_cast<int32_t>(axis.up - 1 - reach_unbounded(axis, 0).tap);
    first_pixel = static_cast<int32_t>(reach_unbounded(axis, -shift).pixel);
    in = static_cast<int32_t>(axis.in);
    out = static_cast<int32_t>(outputs);
    count = static_cast<int32_t>((outputs + shift + axis.up - 1) / axis.up);
  }
};

// 0 <= i < end
PSR_DEVICE bool below(int32_t i, int32_t end) {
  return static_cast<uint32_t>(i) < static_cast<uint32_t>(end);
}

template <class M>
struct Taps {
  float x[M::taps], y[M::taps];
  int x_count, y_count;

  PSR_DEVICE explicit Taps(const Upfirdn2dArgs& a) : x_count(a.f_w), y_count(a.f_h) {
    const float gain = static_cast<float>(a.gain);
#pragma unroll
    for (int k = 0; k < M::taps; ++k) {
      y[k] = k < a.f_h ? a.f[stored_tap(k, a.f_h, a.flip)] * gain : 0.0f;
      x[k] = k < a.f_w ? a.f[stored_tap(k, a.f_w, a.flip)] : 0.0f;
    }
  }
};

// The outputs of a group from lines of kWidth values. Taps beyond `count` do not exist; a zero
// in their place would turn infinity into NaN.
template <class M, int kWidth>
PSR_DEVICE void sum_group(float (&out)[M::up][kWidth], const float (*in)[kWidth],
                          const float (&taps)[M::taps], int count) {
#pragma unroll
  for (int p = 0; p < M::up; ++p)
#pragma unroll
    for (int j = 0; j < kWidth; ++j) out[p][j] = 0.0f;
#pragma unroll
  for (int k = 0; k < M::taps; ++k) {
    if (!M::exact && k > 0 && k >= count) continue;
    const int p = M::up - 1 - k % M::up;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) out[p][j] += taps[k] * in[k / M::up][j];
  }
}

// What moves that many bytes in one access, whatever the compiler makes of structures.
template <size_t kBytes>
struct Access {
  using type = uint16_t;
};
template <>
struct Access<4> {
  using type = uint32_t;
};
template <>
struct Access<8> {
  using type = uint2;
};
template <>
struct Access<16> {
  using type = uint4;
};

template <class V>
PSR_DEVICE void read_vector(V& to, const void* from) {
  const auto word = *static_cast<const typename Access<sizeof(V)>::type*>(from);
  memcpy(&to, &word, sizeof(V));
}

template <class V>
PSR_DEVICE void write_vector(void* to, const V& from) {
  typename Access<sizeof(V)>::type word;
  memcpy(&word, &from, sizeof(V));
  *static_cast<decltype(word)*>(to) = word;
}

// kWide values as they lie in memory. Two of two bytes stay in one register until they are used.
template <class T, int kWide>
struct Packed {
  static constexpr bool paired = sizeof(T) == 2 && kWide > 1;
  using Word = typename std::conditional<paired, uint32_t, T>::type;
  Vec<Word, paired ? kWide / 2 : kWide> words;

  PSR_DEVICE acc_t<T> get(int j) const {
    if constexpr (paired) {
      return load(T{static_cast<uint16_t>(words.v[j / 2] >> (16 * (j % 2)))});
    } else {
      return load(words.v[j]);
    }
  }
};

// How walk_kernel divides its work: into units of kColumns groups along x and a strip along y.
struct Strips {
  Groups x, y;
  int32_t accesses = 0, strip = 0;  // of a pixel; groups
  uint32_t units = 0, pixel_bytes = 0;
  int64_t in_row = 0, out_row = 0;  // bytes from one row to the next
  Divider across, down, chunks;     // units along x and y, blocks for a pixel

  explicit Strips(const Upfirdn2dArgs& a) : x(x_axis(a), a.out_w), y(y_axis(a), a.out_h) {}
};

// Neighbouring columns share pixels. With more of them, or with 16 bytes an access, the lines alone
// would fill the registers.
constexpr int kColumns = 2;
template <class T>
constexpr int kWideAccess = static_cast<int>(8 / sizeof(T));

template <class T, class M, int kWide>
class Walker {
  static constexpr int kPixels = (kColumns - 1) * M::step + M::reach;
  static constexpr int kOutputs = kColumns * M::up;
  static constexpr int kValues = kOutputs * kWide;
  static constexpr int kAhead = 4 / M::step;       // rows whose loads are in flight
  static constexpr int kBatch = kAhead / M::step;  // groups of rows
  using V = Packed<T, kWide>;

 public:
  PSR_DEVICE Walker(const Upfirdn2dArgs& a, const Strips& s, uint32_t unit, int32_t access)
      : s_(s), taps_(a) {
    const uint32_t rest = s.across.div(unit), image = s.down.div(rest);
    const int32_t x = static_cast<int32_t>(s.across.mod(unit)) * kColumns;
    const int32_t y = static_cast<int32_t>(s.down.mod(rest)) * s.strip;
    groups_ = min(s.strip, s.y.count - y);
    ix_ = s.x.first_pixel + x * M::step;
    iy_ = s.y.first_pixel + y * M::step;
    ox_ = x * M::up - s.x.shift;
    oy_ = y * M::up - s.y.shift;
    const int64_t channel = int64_t(access) * kWide;
    from_ = static_cast<const char*>(a.x) +
            (((int64_t(image) * a.in_h + iy_) * a.in_w + ix_) * a.c + channel) * sizeof(T);
    to_ = static_cast<char*>(a.y) +
          (((int64_t(image) * a.out_h + oy_) * a.out_w + ox_) * a.c + channel) * sizeof(T);
  }

  PSR_DEVICE void walk() {
    V rows[kAhead][kPixels];
    float lines[M::kept + kAhead][kValues];
#pragma unroll
    for (int r = 0; r < kAhead; ++r) read(rows[r], true);
#pragma unroll
    for (int r = 0; r < M::kept; ++r) {
      sum_row(lines[r], rows[r % kAhead]);
      read(rows[r % kAhead], true);
    }
    for (int32_t group = 0; group < groups_; group += kBatch) {
#pragma unroll
      for (int r = 0; r < kAhead; ++r) {
        V(&row)[kPixels] = rows[(M::kept + r) % kAhead];
        sum_row(lines[M::kept + r], row);
        read(row, group + kBatch < groups_);
        if (r % M::step != M::step - 1) continue;
        float out[M::up][kValues];
        sum_group<M>(out, lines + r / M::step * M::step, taps_.y, M::taps);
#pragma unroll
        for (int p = 0; p < M::up; ++p) write(out[p]);
      }
#pragma unroll
      for (int r = 0; r < M::kept; ++r)
#pragma unroll
        for (int j = 0; j < kValues; ++j) lines[r][j] = lines[r + kAhead][j];
    }
  }

 private:
  // The next row; zeros outside of the image, or if it is not wanted.
  PSR_DEVICE void read(V (&row)[kPixels], bool wanted) {
    const bool inside = wanted & below(iy_++, s_.y.in);
#pragma unroll
    for (int i = 0; i < kPixels; ++i) {
      row[i] = V{};
      if (inside & below(ix_ + i, s_.x.in)) read_vector(row[i], from_ + i * s_.pixel_bytes);
    }
    from_ += s_.in_row;
  }

  PSR_DEVICE void sum_row(float (&line)[kValues], const V (&row)[kPixels]) const {
    float pixels[kPixels][kWide];
#pragma unroll
    for (int i = 0; i < kPixels; ++i)
#pragma unroll
      for (int j = 0; j < kWide; ++j) pixels[i][j] = row[i].get(j);
#pragma unroll
    for (int g = 0; g < kColumns; ++g) {
      float out[M::up][kWide];
      sum_group<M>(out, pixels + g * M::step, taps_.x, M::taps);
#pragma unroll
      for (int p = 0; p < M::up; ++p)
#pragma unroll
        for (int j = 0; j < kWide; ++j) line[(g * M::up + p) * kWide + j] = out[p][j];
    }
  }

  // The next row of outputs.
  PSR_DEVICE void write(const float (&values)[kValues]) {
    const bool inside = below(oy_++, s_.y.out);
#pragma unroll
    for (int i = 0; i < kOutputs; ++i) {
      Vec<T, kWide> out;
#pragma unroll
      for (int j = 0; j < kWide; ++j) out.v[j] = store<T>(values[i * kWide + j]);
      if (inside & below(ox_ + i, s_.x.out)) write_vector(to_ + i * s_.pixel_bytes, out);
    }
    to_ += s_.out_row;
  }

  const Strips& s_;
  const Taps<M> taps_;
  int32_t groups_;             // of the strip
  int32_t ix_, iy_, ox_, oy_;  // first pixel and first output of the next rows
  const char* from_;           // there, perhaps outside of the tensor
  char* to_;
};

}  // namespace psr
