// The CPU path of upfirdn2d, one output row at a time: a vertical pass over the input rows that it
// needs, then a horizontal pass. Both are the same sum of shifted lines, see `fir`.
//
// NCHW is NHWC with one channel and n * c images.
#include <algorithm>
#include <numeric>
#include <type_traits>
#include <vector>

#include "upfirdn2d.h"

namespace psr {
namespace {

constexpr int64_t kGrain = 16384;      // outputs that make a task worth its start
constexpr int64_t kTileValues = 1024;  // of a line: a few lines fit the first cache
constexpr int64_t kRows = 8;           // or as many short lines as fit in one long one
constexpr int64_t kTilePixels = 32;    // but not less, as neighbouring tiles share pixels
constexpr int64_t kWideChannels = 8;   // from here a loop over one pixel's channels pays

#if defined(__AVX512F__)
constexpr int64_t kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int64_t kVectorBytes = 32;
#else
constexpr int64_t kVectorBytes = 16;
#endif
// Explicit vectors, as g++ keeps no array of sums in registers.
template <class V, int kCount>
struct Lanes {
  typedef V type __attribute__((vector_size(sizeof(V) * kCount)));
};

template <class L, class A>
PSR_HD void load_lanes(const A* from, L& to) {
  std::memcpy(&to, from, sizeof(L));
}

template <class L>
PSR_HD void load_lanes(const bf16* from, L& to) {
  constexpr int count = sizeof(L) / sizeof(float);
  using Wide = typename Lanes<uint32_t, count>::type;
  typename Lanes<uint16_t, count>::type bits;
  std::memcpy(&bits, from, sizeof(bits));
  const Wide wide = __builtin_convertvector(bits, Wide) << 16;
  std::memcpy(&to, &wide, sizeof(L));
}

template <class L>
PSR_HD void load_lanes(const f16* from, L& to) {
  float values[sizeof(L) / sizeof(float)];
  for (size_t j = 0; j < sizeof(L) / sizeof(float); ++j) values[j] = load(from[j]);
  std::memcpy(&to, values, sizeof(L));
}

// What an output is made of: every step-th of some taps, and where each finds its value.
template <class A>
struct Sum {
  const A* taps;
  const int64_t* offsets;
  int64_t count, step;
};

// kVectors * kCount neighbouring outputs. kTaps > 0: the number of taps, which spares branches.
template <int kTaps, int kCount, int kVectors, class S, class A>
PSR_HD void fir_block(A* out, const S* in, const Sum<A>& sum) {
  using L = typename Lanes<A, kCount>::type;
  L v, s0{}, s1{}, s2{}, s3{};
  for (int64_t t = 0; t < (kTaps > 0 ? kTaps : sum.count); ++t) {
    const A tap = sum.taps[t * sum.step];
    const S* from = in + sum.offsets[t];
    load_lanes(from, v), s0 += tap * v;
    if constexpr (kVectors > 1) load_lanes(from + kCount, v), s1 += tap * v;
    if constexpr (kVectors > 2) load_lanes(from + 2 * kCount, v), s2 += tap * v;
    if constexpr (kVectors > 2) load_lanes(from + 3 * kCount, v), s3 += tap * v;
  }
  std::memcpy(out, &s0, sizeof(L));
  if constexpr (kVectors > 1) std::memcpy(out + kCount, &s1, sizeof(L));
  if constexpr (kVectors > 2) std::memcpy(out + 2 * kCount, &s2, sizeof(L));
  if constexpr (kVectors > 2) std::memcpy(out + 3 * kCount, &s3, sizeof(L));
}

template <int kTaps, int kCount, class S, class A>
PSR_HD void fir_vectors(A* out, const S* in, const Sum<A>& sum, int64_t n) {
  int64_t j = 0;
  for (; j + 4 * kCount <= n; j += 4 * kCount) fir_block<kTaps, kCount, 4>(out + j, in + j, sum);
  for (; j + 2 * kCount <= n; j += 2 * kCount) fir_block<kTaps, kCount, 2>(out + j, in + j, sum);
  for (; j + kCount <= n; j += kCount) fir_block<kTaps, kCount, 1>(out + j, in + j, sum);
  // The rest overlaps what is done already, which costs less than narrow steps.
  if (j < n) fir_block<kTaps, kCount, 1>(out + n - kCount, in + n - kCount, sum);
}

template <int kTaps, class S, class A>
void fir_taps(A* out, const S* in, const Sum<A>& sum, int64_t n) {
  constexpr int wide = kVectorBytes / sizeof(A);
  if (n >= wide) return fir_vectors<kTaps, wide>(out, in, sum, n);
  if (n >= 8) return fir_vectors<kTaps, 8>(out, in, sum, n);
  if (n >= 4) return fir_vectors<kTaps, 4>(out, in, sum, n);
  for (int64_t j = 0; j < n; ++j) {
    A value = A(0);
    for (int64_t t = 0; t < sum.count; ++t)
      value += sum.taps[t * sum.step] * load(in[sum.offsets[t] + j]);
    out[j] = value;
  }
}

// out[j] = sum over t of taps[t * step] * in[offsets[t] + j], for j < n
template <class S, class A>
void fir(A* out, const S* in, const Sum<A>& sum, int64_t n) {
  switch (sum.count) {
    case 4: return fir_taps<4>(out, in, sum, n);
    case 2: return fir_taps<2>(out, in, sum, n);
    default: return fir_taps<0>(out, in, sum, n);
  }
}

// The taps in the order in which they meet the image, the gain included.
template <class A>
struct Filter {
  std::vector<A> y, x;  // the filter is their outer product
  std::vector<A> grid;  // [f_h, f_w] where it is none

  explicit Filter(const Upfirdn2dArgs& a) : y(a.f_h), x(a.f_w) {
    if (a.separable != 0) {
      for (int64_t i = 0; i < a.f_h; ++i) y[i] = A(a.f[stored_tap(i, a.f_h, a.flip)]);
      for (int64_t j = 0; j < a.f_w; ++j) x[j] = A(a.f[stored_tap(j, a.f_w, a.flip)]);
    } else {
      grid.resize(int64_t(a.f_h) * a.f_w);  // a turn by 180 degrees reverses the order
      const int64_t size = grid.size();
      for (int64_t i = 0; i < size; ++i) grid[i] = A(a.f[stored_tap(i, size, a.flip)]);
      if (factorize()) grid.clear();
    }
    for (A& tap : grid.empty() ? y : grid) tap *= A(a.gain);
  }

 private:
  // Sets x and y to the factors of a grid of rank one, as exact as its own rounding.
  bool factorize() {
    const auto smaller = [](A l, A r) { return std::abs(l) < std::abs(r); };
    const int64_t width = x.size();
    const int64_t peak = std::max_element(grid.begin(), grid.end(), smaller) - grid.begin();
    if (!(std::abs(grid[peak]) > A(0))) return false;
    const int64_t row = peak / width, column = peak % width;
    for (size_t i = 0; i < y.size(); ++i) y[i] = grid[i * width + column];
    for (int64_t j = 0; j < width; ++j) x[j] = grid[row * width + j] / grid[peak];
    const A tolerance = A(sizeof(A) == 4 ? 2.4e-7 : 1e-15);
    for (size_t i = 0; i < grid.size(); ++i) {
      const A error = std::abs(grid[i] - y[i / width] * x[i % width]);
      if (!(error <= tolerance * std::abs(grid[i]))) return false;
    }
    return true;
  }
};

// How lines are cut, arranged and met by taps; the same for all rows.
//
// Along x, outputs form groups of `period`: from group to group the same taps meet pixels that lie
// `stride` further. A tile is a range of groups; its line holds the pixels that the tile needs,
// zero outside the image. In a `split` line, every stride-th pixel follows another, so that
// outputs of one phase are a sum of shifted lines. In other lines, that is so channel by channel.
template <class A>
struct Plan {
  Filter<A> filter;
  bool separable, split;
  int64_t images, channels, period, stride, groups, tile_groups, span, pitch, line_values;
  int64_t line_count;                // held at a time: of some outputs, or of all taps of a grid
  std::vector<Reach> rows, columns;  // of each output row; of each output of the first group
  std::vector<int64_t> row_offsets, column_offsets;
  std::vector<Sum<A>> row_sums, column_sums;  // of a separable filter

  explicit Plan(const Upfirdn2dArgs& a) : filter(a), separable(filter.grid.empty()) {
    const Axis x = x_axis(a), y = y_axis(a);
    images = a.layout == Layout::nchw ? a.n * a.c : a.n;
    channels = a.layout == Layout::nchw ? 1 : a.c;
    const int64_t common = std::gcd(x.up, x.down);
    period = std::min(x.up / common, a.out_w);
    stride = x.down / common;
    groups = (a.out_w + period - 1) / period;
    for (int64_t o = 0; o < a.out_h; ++o) rows.push_back(reach(y, o));
    for (int64_t o = 0; o < period; ++o) columns.push_back(reach_unbounded(x, o));
    cut(x, y);
    for (int64_t t = 0; t * y.up < y.taps; ++t) row_offsets.push_back(t * a.in_w * channels);
    for (int64_t p = 0; p < span; ++p) column_offsets.push_back(place(p));
    if (!separable) return;
    for (const Reach& r : rows)
      row_sums.push_back({filter.y.data() + r.tap, row_offsets.data(), r.count, y.up});
    for (const Reach& r : columns)
      column_sums.push_back({filter.x.data() + r.tap, offsets_from(r), r.count, x.up});
  }

  // Where pixel p of a tile lies in its line.
  int64_t place(int64_t p) const {
    return (split ? p % stride * pitch + p / stride : p) * channels;
  }

  const int64_t* offsets_from(const Reach& column) const {
    return column_offsets.data() + column.pixel - columns[0].pixel;
  }

 private:
  void cut(const Axis& x, const Axis& y) {
    span = columns.back().pixel - columns[0].pixel + (x.taps + x.up - 1) / x.up;
    line_count = separable ? 1 : (y.taps + y.up - 1) / y.up;
    const int64_t pixels = std::max(kTileValues / (channels * line_count), kTilePixels);
    tile_groups = std::clamp<int64_t>(pixels / stride, 1, groups);
    split = (period > 1 || stride > 1) && channels < kWideChannels;
    pitch = ((tile_groups - 1) * stride + span + stride - 1) / stride;
    line_values = pitch * stride * channels;
    if (separable) line_count = std::clamp<int64_t>(kTileValues / line_values, 1, kRows);
  }
};

// Goes through output rows with the buffers of one task.
template <class T>
class Worker {
  using A = acc_t<T>;

 public:
  Worker(const Upfirdn2dArgs& a, const Plan<A>& plan)
      : a_(a), plan_(plan), sums_(plan.column_sums), lines_(plan.line_count * plan.line_values) {
    sums_.resize(plan.period);
    if (arranges()) raw_.resize(plan.line_values);
    const int64_t outputs = plan.tile_groups * plan.period * plan.channels;
    if (merges()) phases_.resize(outputs);
    if (!std::is_same<T, A>::value) values_.resize(outputs);
  }

  // Rows [begin, end), counted through all images.
  void rows(int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t image = begin / a_.out_h, top = begin % a_.out_h;
      const int64_t bottom = std::min(a_.out_h, top + end - begin);
      for (int64_t group = 0; group < plan_.groups; group += plan_.tile_groups) {
        if (group != group_) set_tile(group);
        strip(image, top, bottom);
      }
      begin += bottom - top;
    }
  }

 private:
  bool arranges() const { return plan_.split && plan_.stride > 1; }
  bool merges() const { return plan_.split && plan_.period > 1; }
  A* line(int64_t k) { return lines_.data() + k * plan_.line_values; }

  void set_tile(int64_t group) {
    group_ = group;
    groups_ = std::min(plan_.tile_groups, plan_.groups - group);
    outputs_ = std::min(groups_ * plan_.period, a_.out_w - group * plan_.period);
    width_ = (groups_ - 1) * plan_.stride + plan_.span;
    const int64_t left = plan_.columns[0].pixel + group * plan_.stride;  // may be outside
    inside_ = std::clamp<int64_t>(-left, 0, width_);
    inside_count_ = std::clamp<int64_t>(a_.in_w - left, inside_, width_) - inside_;
    first_pixel_ = left + inside_;
    std::fill(lines_.begin(), lines_.end(), A(0));
    std::fill(raw_.begin(), raw_.end(), A(0));
  }

  // The tile in some rows of an image.
  void strip(int64_t image, int64_t top, int64_t bottom) {
    const int64_t c = plan_.channels;
    const auto out = [&](int64_t oy) {
      const int64_t row = image * a_.out_h + oy;
      return static_cast<T*>(a_.y) + (row * a_.out_w + group_ * plan_.period) * c;
    };
    if (!plan_.separable) {
      for (int64_t oy = top; oy < bottom; ++oy) {
        fill_grid_lines(image, plan_.rows[oy]);
        finish(out(oy), line(0));
      }
      return;
    }
    // Vertical sums of several rows come first, since a load that follows the stores of what it
    // reads too closely waits.
    for (int64_t oy = top; oy < bottom; oy += plan_.line_count) {
      const int64_t count = std::min(plan_.line_count, bottom - oy);
      for (int64_t k = 0; k < count; ++k)
        fill_line(line(k), source(image, plan_.rows[oy + k]), plan_.row_sums[oy + k]);
      for (int64_t k = 0; k < count; ++k) finish(out(oy + k), line(k));
    }
  }

  // The tile's first pixel in the first of some rows.
  const T* source(int64_t image, const Reach& rows) const {
    const T* x = static_cast<const T*>(a_.x);
    if (rows.count == 0 || inside_count_ == 0) return x;
    return x + ((image * a_.in_h + rows.pixel) * a_.in_w + first_pixel_) * plan_.channels;
  }

  void fill_line(A* line, const T* source, const Sum<A>& sum) {
    const int64_t c = plan_.channels, stride = plan_.stride;
    A* raw = arranges() ? raw_.data() : line;
    fir(raw + inside_ * c, source, sum, inside_count_ * c);
    if (!arranges()) return;
    const int64_t pitch = plan_.pitch;
    if (c == 1 && stride == 2) {
#pragma omp simd
      for (int64_t i = 0; i < pitch; ++i) line[i] = raw[2 * i], line[pitch + i] = raw[2 * i + 1];
      return;
    }
    for (int64_t p = 0; p < width_; ++p)
      for (int64_t j = 0; j < c; ++j) line[plan_.place(p) + j] = raw[p * c + j];
  }

  // A grid needs its rows unfiltered. The sums over its lines are one sum, of taps that depend on
  // the row.
  void fill_grid_lines(int64_t image, const Reach& rows) {
    const A one = A(1);
    for (int64_t t = 0; t < rows.count; ++t)
      fill_line(line(t), source(image, rows), {&one, plan_.row_offsets.data() + t, 1, 1});
    taps_.clear();
    offsets_.clear();
    for (const Reach& columns : plan_.columns) {
      for (int64_t t = 0; t < rows.count; ++t) {
        const int64_t first = (rows.tap + t * a_.up_y) * a_.f_w + columns.tap;
        const int64_t* offsets = plan_.offsets_from(columns);
        for (int64_t s = 0; s < columns.count; ++s) {
          taps_.push_back(plan_.filter.grid[first + s * a_.up_x]);
          offsets_.push_back(t * plan_.line_values + offsets[s]);
        }
      }
    }
    for (int64_t q = 0, start = 0; q < plan_.period; ++q) {
      const int64_t count = rows.count * plan_.columns[q].count;
      sums_[q] = {taps_.data() + start, offsets_.data() + start, count, 1};
      start += count;
    }
  }

  // The horizontal pass into the tile's part of an output row.
  void finish(T* out, const A* line) {
    if (merges()) {
      const int64_t n = groups_ * plan_.channels;
      for (int64_t q = 0; q < plan_.period; ++q) fir(phases_.data() + q * n, line, sums_[q], n);
      merge(out);
    } else if constexpr (std::is_same<T, A>::value) {
      sum_columns(out, line);
    } else {
      sum_columns(values_.data(), line);
#pragma omp simd
      for (int64_t j = 0; j < outputs_ * plan_.channels; ++j) out[j] = store<T>(values_[j]);
    }
  }

  void sum_columns(A* out, const A* line) const {
    const int64_t c = plan_.channels;
    if (plan_.split || (plan_.period == 1 && plan_.stride == 1))
      return fir(out, line, sums_[0], outputs_ * c);
    for (int64_t o = 0, q = 0, start = 0; o < outputs_; ++o) {
      fir(out + o * c, line + start, sums_[q], c);
      if (++q == plan_.period) q = 0, start += plan_.stride * c;
    }
  }

  // Interleaves the outputs of the phases.
  void merge(T* out) const {
    const int64_t c = plan_.channels;
    const A* first = phases_.data();
    if (c == 1 && plan_.period == 2) {
      const A* second = first + groups_;
#pragma omp simd
      for (int64_t m = 0; m < outputs_ / 2; ++m)
        out[2 * m] = store<T>(first[m]), out[2 * m + 1] = store<T>(second[m]);
      if (outputs_ % 2 != 0) out[outputs_ - 1] = store<T>(first[outputs_ / 2]);
      return;
    }
    for (int64_t o = 0, q = 0, m = 0; o < outputs_; ++o) {
      for (int64_t j = 0; j < c; ++j)
        out[o * c + j] = store<T>(first[(q * groups_ + m) * c + j]);
      if (++q == plan_.period) q = 0, ++m;
    }
  }

  const Upfirdn2dArgs& a_;
  const Plan<A>& plan_;
  // The tile: its first group, its size, which of its pixels belong to the image.
  int64_t group_ = -1, groups_ = 0, outputs_ = 0, width_ = 0;
  int64_t inside_ = 0, inside_count_ = 0, first_pixel_ = 0;
  std::vector<Sum<A>> sums_;  // one per phase
  std::vector<A> lines_, raw_, phases_, values_;
  std::vector<A> taps_;  // what `sums_` point to for a grid
  std::vector<int64_t> offsets_;
};

template <class T>
void run_dtype(const Upfirdn2dArgs& a, ParallelFor run) {
  if (a.n * a.c * a.out_h * a.out_w == 0) return;
  const Plan<acc_t<T>> plan(a);
  const int64_t grain = kGrain / (a.out_w * plan.channels) + 1;
  parallel(run, plan.images * a.out_h, grain, [&](int64_t begin, int64_t end) {
    Worker<T>(a, plan).rows(begin, end);
  });
}

}  // namespace
}  // namespace psr

void psr_upfirdn2d_cpu(const psr::Upfirdn2dArgs* args, psr::ParallelFor run) {
  psr::with_dtype(args->dtype, [&](auto tag) { psr::run_dtype<decltype(tag)>(*args, run); });
}
