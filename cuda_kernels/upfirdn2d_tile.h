// How a CUDA block filters planes with separable taps: it copies tiles to shared memory, then
// threads go down them as in upfirdn2d_walk.h.
#pragma once

#include "upfirdn2d_walk.h"

namespace psr {

constexpr int kWarp = 32;

// How tile_kernel divides its work. A block has `planes` tiles, one per plane, and for each of them
// threads_x * threads_y threads. The widest tiles, of kWarp threads, are alone in their block.
struct Tiles {
  Groups x, y;
  int32_t planes = 0, strip = 0;  // groups
  int32_t rows = 0, pitch = 0;    // of a tile's pixels
  bool aligned = false;           // whether the outputs of a thread are one access
  int64_t plane_count = 0;
  Divider across, down, threads_x, threads_y, tile_rows, pitch_divider;

  explicit Tiles(const Upfirdn2dArgs& a) : x(x_axis(a), a.out_w), y(y_axis(a), a.out_h) {}
};

template <class T, class M>
class TileWalker {
 public:
  static constexpr int kColumns = M::up * M::step == 1 ? 4 : 2;  // groups of a thread
  static constexpr int kOutputs = kColumns * M::up;
  static constexpr int kBatch = M::taps > 4 || M::step > 1 ? 2 : 4;
  static constexpr int kStrip = (M::taps > 4 ? 16 : 8) / M::step;  // at most
  // By 2 up, a thread's first output may be the second one of a group: then its last one is the
  // first one of one more group.
  static constexpr int kExtra = M::up > 1 ? 1 : 0;
  static constexpr int kGroups = kColumns + kExtra;
  static constexpr int kPixels = (kGroups - 1) * M::step + M::reach;
  static constexpr int kChunk = kColumns * M::step;  // pixels from a thread to the next
  static constexpr int kChunks = (kPixels + kChunk - 1) / kChunk;
  static constexpr int pitch(int threads) { return ((threads - 1 + kChunks) * kChunk + 3) / 4 * 4; }
  static constexpr int kMaxPitch = pitch(kWarp);

  PSR_DEVICE TileWalker(const Upfirdn2dArgs& a, const Tiles& t) : a_(a), t_(t) {
    const uint32_t rest = t.across.div(blockIdx.x), planes = t.down.div(rest);
    plane_ = int64_t(planes) * t.planes;
    x_ = static_cast<int32_t>(t.across.mod(blockIdx.x) * t.threads_x.divisor) * kColumns;
    y_ = static_cast<int32_t>(t.down.mod(rest) * t.threads_y.divisor) * t.strip;
  }

  // Copies the tile's pixels.
  PSR_DEVICE void fill(float* shared) const {
    const int32_t left = t_.x.first_pixel + x_ * M::step, top = t_.y.first_pixel + y_ * M::step;
    const int64_t row_size = a_.in_w, plane_size = row_size * a_.in_h;
    const T* from = static_cast<const T*>(a_.x) + plane_ * plane_size + top * row_size + left;
    if (t_.threads_x.divisor == kWarp) return fill_wide(shared, from, left, top);
    const int64_t planes = t_.plane_count - plane_;
    const uint32_t pixels = min(int64_t(t_.planes), planes) * t_.rows * t_.pitch;
    for (uint32_t i = threadIdx.x; i < pixels; i += kThreads) {
      const uint32_t row = t_.pitch_divider.div(i), plane = t_.tile_rows.div(row);
      const int32_t x = t_.pitch_divider.mod(i), y = t_.tile_rows.mod(row);
      const bool inside = below(left + x, t_.x.in) & below(top + y, t_.y.in);
      shared[i] = inside ? load(from[plane * plane_size + y * row_size + x]) : 0.0f;
    }
  }

  // The same for the widest tiles. A warp has a row, neighbouring lanes have neighbouring columns:
  // coalesced and without bank conflicts whatever the row's alignment, which 16 bytes are not.
  PSR_DEVICE void fill_wide(float* shared, const T* from, int32_t left, int32_t top) const {
    constexpr int rows_ahead = 3, warps = kThreads / kWarp;
    constexpr int steps = (kMaxPitch + kWarp - 1) / kWarp;
    const int32_t lane = threadIdx.x % kWarp;
    for (int32_t first = threadIdx.x / kWarp; first < t_.rows; first += rows_ahead * warps) {
      T values[rows_ahead][steps];
#pragma unroll
      for (int i = 0; i < rows_ahead; ++i) {
        const int32_t row = first + i * warps;
        const bool inside = (row < t_.rows) & below(top + row, t_.y.in);
        const T* pixels = from + row * int64_t(t_.x.in) + lane;
#pragma unroll
        for (int s = 0; s < steps; ++s) {
          values[i][s] = T{};
          if (inside & below(left + lane + s * kWarp, t_.x.in)) values[i][s] = pixels[s * kWarp];
        }
      }
#pragma unroll
      for (int i = 0; i < rows_ahead; ++i) {
        const int32_t row = first + i * warps;
        if (row >= t_.rows) break;
#pragma unroll
        for (int s = 0; s < steps; ++s)
          if (lane + s * kWarp < kMaxPitch)
            shared[row * kMaxPitch + lane + s * kWarp] = load(values[i][s]);
      }
    }
  }

  PSR_DEVICE void walk(const float* shared, const Taps<M>& taps) const {
    const uint32_t rest = t_.threads_x.div(threadIdx.x);
    const int32_t plane = t_.threads_y.div(rest);
    const int32_t tx = t_.threads_x.mod(threadIdx.x), ty = t_.threads_y.mod(rest) * t_.strip;
    const int32_t groups = min(t_.strip, t_.y.count - y_ - ty);
    if (plane >= t_.planes || plane_ + plane >= t_.plane_count) return;
    const float* from = shared + (plane * t_.rows + ty * M::step) * t_.pitch + tx * kChunk;
    const int32_t ox = (x_ + tx * kColumns) * M::up;
    int32_t oy = (y_ + ty) * M::up - t_.y.shift;
    T* to = static_cast<T*>(a_.y) + ((plane_ + plane) * a_.out_h + oy) * a_.out_w + ox;
    float lines[M::kept + kBatch * M::step][kOutputs];
#pragma unroll
    for (int r = 0; r < M::kept; ++r, from += t_.pitch) sum_row(lines[r], from, taps);
    for (int32_t group = 0; group < groups; group += kBatch) {
#pragma unroll
      for (int r = 0; r < kBatch * M::step; ++r, from += t_.pitch)
        sum_row(lines[M::kept + r], from, taps);
#pragma unroll
      for (int g = 0; g < kBatch; ++g) {
        float out[M::up][kOutputs];
        sum_group<M>(out, lines + g * M::step, taps.y, taps.y_count);
#pragma unroll
        for (int p = 0; p < M::up; ++p, ++oy, to += a_.out_w)
          if (below(oy, t_.y.out)) write(to, ox, out[p]);
      }
#pragma unroll
      for (int r = 0; r < M::kept; ++r)
#pragma unroll
        for (int j = 0; j < kOutputs; ++j) lines[r][j] = lines[r + kBatch * M::step][j];
    }
  }

 private:
  PSR_DEVICE void sum_row(float (&line)[kOutputs], const float* from, const Taps<M>& taps) const {
    float pixels[kChunks * kChunk][1], all[kGroups * M::up];
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
      Vec<float, kChunk> chunk;
      read_vector(chunk, from + i * kChunk);
#pragma unroll
      for (int j = 0; j < kChunk; ++j) pixels[i * kChunk + j][0] = chunk.v[j];
    }
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      float out[M::up][1];
      sum_group<M>(out, pixels + g * M::step, taps.x, taps.x_count);
#pragma unroll
      for (int p = 0; p < M::up; ++p) all[g * M::up + p] = out[p][0];
    }
#pragma unroll
    for (int j = 0; j < kOutputs; ++j)
      line[j] = kExtra != 0 && t_.x.shift != 0 ? all[j + kExtra] : all[j];
  }

  PSR_DEVICE void write(T* to, int32_t ox, const float (&values)[kOutputs]) const {
    Vec<T, kOutputs> out;
#pragma unroll
    for (int j = 0; j < kOutputs; ++j) out.v[j] = store<T>(values[j]);
    if (t_.aligned) {
      if (ox < t_.x.out) write_vector(to, out);
      return;
    }
#pragma unroll
    for (int j = 0; j < kOutputs; ++j)
      if (ox + j < t_.x.out) to[j] = out.v[j];
  }

  const Upfirdn2dArgs& a_;
  const Tiles& t_;
  int64_t plane_;  // the block's first one
  int32_t x_, y_;  // the tile's first groups
};

}  // namespace psr
