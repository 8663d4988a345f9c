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
  Divider across, down, threads_x, threads_y, tile_rows;

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
  static constexpr int kSteps = (kMaxPitch + kWarp - 1) / kWarp;  // columns a lane copies at once

  PSR_DEVICE TileWalker(const Upfirdn2dArgs& a, const Tiles& t) : a_(a), t_(t) {
    const uint32_t rest = t.across.div(blockIdx.x), planes = t.down.div(rest);
    plane_ = int64_t(planes) * t.planes;
    x_ = static_cast<int32_t>(t.across.mod(blockIdx.x) * t.threads_x.divisor) * kColumns;
    y_ = static_cast<int32_t>(t.down.mod(rest) * t.threads_y.divisor) * t.strip;
  }

  PSR_DEVICE void fill(float* shared) const {
    if (t_.threads_x.divisor == kWarp) return fill_rows<kWarp>(shared);
    fill_rows<kWarp / 4>(shared);  // most lanes have a column of narrow tiles as well
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
  // Copies the tiles' pixels. Neighbouring lanes have neighbouring columns of a row: coalesced and
  // without bank conflicts whatever the alignment of the row, which accesses of 16 bytes are not.
  template <int kLanes>
  PSR_DEVICE void fill_rows(float* shared) const {
    constexpr bool widest = kLanes == kWarp;
    constexpr int rows_ahead = 3, slots = kThreads / kLanes;
    const int32_t lane = threadIdx.x % kLanes, pitch = widest ? kMaxPitch : t_.pitch;
    const int32_t left = t_.x.first_pixel + x_ * M::step, top = t_.y.first_pixel + y_ * M::step;
    const int32_t planes = min(int64_t(t_.planes), t_.plane_count - plane_);
    const int32_t rows = widest ? t_.rows : planes * t_.rows;
    const T* from = static_cast<const T*>(a_.x) + (plane_ * a_.in_h + top) * a_.in_w + left;
    for (int32_t first = threadIdx.x / kLanes; first < rows; first += rows_ahead * slots) {
      for (int32_t column = lane; column < pitch; column += kSteps * kLanes) {
        T values[rows_ahead][kSteps];
#pragma unroll
        for (int i = 0; i < rows_ahead; ++i) {
          const int32_t row = first + i * slots;
          const int32_t plane = widest ? 0 : t_.tile_rows.div(row), y = row - plane * t_.rows;
          const bool inside = (row < rows) & below(top + y, t_.y.in);
          const T* pixels = from + (plane * a_.in_h + y) * a_.in_w + column;
#pragma unroll
          for (int s = 0; s < kSteps; ++s) {
            values[i][s] = T{};
            if (inside & below(left + column + s * kLanes, t_.x.in))
              values[i][s] = pixels[s * kLanes];
          }
        }
#pragma unroll
        for (int i = 0; i < rows_ahead; ++i) {
          float* to = shared + (first + i * slots) * pitch + column;
          if (first + i * slots >= rows) break;
#pragma unroll
          for (int s = 0; s < kSteps; ++s)
            if (column + s * kLanes < pitch) to[s * kLanes] = load(values[i][s]);
        }
      }
    }
  }

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
