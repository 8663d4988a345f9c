// What the threads of style_epilogue's CUDA kernels do with the rows of their tiles.
//
// What becomes of the values is the matter of a "pass":
//   typename Pass::Loaded               what it reads of one row, beside x
//   pass.load(loaded, inside, row, at)  reads it; `at` is the position in [n, rows, cols]
//   pass.use(which, c, loaded)          W values of x or fir(x) in each of two rows
// Threads that are outside call both as well, because sums over threads need all of a warp.
#pragma once

#include "style_epilogue_rows.h"

namespace psr {

constexpr int kRead = kColumns + kTaps - 1;  // pixels that a filtering thread reads of a row
constexpr int kBorder = kTaps - 1;           // rows that it filters before one is complete

// Two rows of the matrix, and their positions in [n, rows, cols]. The pairs of a thread come in
// order. Pair p of slot s has
//   where x is filtered: the pixels 2 s and 2 s + 1 of row p of the tile,
//   otherwise: the rows 2 p slots + s and (2 p + 1) slots + s of the tile.
struct Pair {
  bool inside[2];
  int64_t at[2];
};
static_assert(kColumns == 2, "a filtering thread's pixels are a pair");

// Over the rows of a tile; kAhead, an even number, of them are read together.
template <class T, int kAhead, int W, class Pass>
PSR_DEVICE void walk_rows(const StyleEpilogueArgs& a, const Tiles& t, const Place<W>& place,
                          Pass& pass) {
  const int64_t step = t.slots() * t.cols;
  int64_t at = (place.n * t.rows + place.first_row + place.slot) * t.cols + place.col;
  for (int base = place.slot; base < place.count + place.slot; base += kAhead * t.slots()) {
    Raw<T, W> x[kAhead];
    typename Pass::Loaded loaded[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int local = base + i * t.slots();
      const bool inside = place.active && local < place.count;
      if (inside) x[i] = read<T, W>(a.x, at + i * step);
      pass.load(loaded[i], inside, place.first_row + local, at + i * step);
    }
#pragma unroll
    for (int i = 0; i < kAhead; i += 2) {
      Pair which;
      acc_t<T> c[2][W];
#pragma unroll
      for (int e = 0; e < 2; ++e, at += step) {
        which.inside[e] = place.active && base + (i + e) * t.slots() < place.count;
        which.at[e] = at;
        unpack(x[i + e], c[e]);
      }
      pass.use(which, c, loaded + i);
    }
  }
}

// What a thread reads of x: kRead neighbouring pixels of each row, where the image has them.
template <class T, int W>
class Window {
 public:
  using Line = Raw<T, W>[kRead];

  PSR_DEVICE Window(const StyleEpilogueArgs& a, const Tiles& t, const Place<W>& place)
      : t_(t), x_(a.x) {
    const int64_t left = place.left + place.slot * kColumns, rest = a.w - left + 2;
    begin_ = left == 0 ? 1 : 0;
    end_ = !place.active ? 0 : static_cast<int>(rest < kRead ? rest : kRead);
    whole_ = begin_ == 0 && end_ == kRead;
    row_ = place.top == 0 ? ~0u : 0;
    const int64_t rows = a.h - place.top + 2, needed = place.count + kBorder;
    rows_ = row_ + static_cast<unsigned>(rows < needed ? rows : needed);
    at_ = ((place.n * (a.h + 1) + place.top - 1) * (a.w + 1) + left - 1) * a.c + place.col;
  }

  // The next row, from the one above the tile on.
  PSR_DEVICE void next(Line& x) {
    const bool there = row_ < rows_;
    if (there && whole_) {
#pragma unroll
      for (int i = 0; i < kRead; ++i) x[i] = read<T, W>(x_, at_ + i * t_.cols);
    } else {
#pragma unroll
      for (int i = 0; i < kRead; ++i) {
        x[i] = Raw<T, W>{};
        if (there && i >= begin_ && i < end_) x[i] = read<T, W>(x_, at_ + i * t_.cols);
      }
    }
    at_ += t_.x_row_step;
    ++row_;
  }

 private:
  const Tiles& t_;
  const void* x_;
  int64_t at_;
  int begin_, end_;
  unsigned row_, rows_;  // row_: a large number above the image
  bool whole_;
};

// The vertical half of the filter: each row that comes is added to the four that it belongs to.
template <class A, int W>
struct Column {
  A partial[kBorder][W] = {};

  PSR_DEVICE void add(const A (*v)[W], const A (&taps)[kTaps], A (&c)[W]) {
#pragma unroll
    for (int j = 0; j < W; ++j) {
      const A h = taps[0] * v[0][j] + taps[1] * v[1][j] + taps[2] * v[2][j] + taps[3] * v[3][j];
      c[j] = partial[0][j] + taps[3] * h;
      partial[0][j] = partial[1][j] + taps[2] * h;
      partial[1][j] = partial[2][j] + taps[1] * h;
      partial[2][j] = taps[0] * h;
    }
  }
};

// fir(x) at kColumns neighbouring pixels, row after row.
template <class T, int W>
struct Filter {
  using A = acc_t<T>;
  A taps[kTaps];
  Column<A, W> columns[kColumns];

  PSR_DEVICE explicit Filter(const float* from) {
#pragma unroll
    for (int i = 0; i < kTaps; ++i) taps[i] = from[i];
  }

  PSR_DEVICE void add(const typename Window<T, W>::Line& x, A (&c)[kColumns][W]) {
    A v[kRead][W];
#pragma unroll
    for (int i = 0; i < kRead; ++i) unpack(x[i], v[i]);
#pragma unroll
    for (int e = 0; e < kColumns; ++e) columns[e].add(v + e, taps, c[e]);
  }
};

// Down the rows of pixels of a tile, over fir(x). While a row is computed, the next ones come into
// the other kBuffers - 1 buffers.
template <class T, int kBuffers, int W, class Pass>
PSR_DEVICE void walk_filtered(const StyleEpilogueArgs& a, const Tiles& t, const Place<W>& place,
                              Pass& pass) {
  const int first = place.slot * kColumns;
  const int64_t rest = a.w - place.left - first;
  const int columns = !place.active || rest <= 0 ? 0 : rest < kColumns ? 1 : kColumns;
  int64_t row = place.first_row + first;  // of what is loaded
  int64_t at = (place.n * t.rows + row) * t.cols + place.col;  // of what is computed
  Window<T, W> window(a, t, place);
  Filter<T, W> filter(a.taps);
  typename Window<T, W>::Line x[kBorder];
  typename Pass::Loaded loaded[kBuffers][kColumns];
  acc_t<T> c[kColumns][W];
#pragma unroll
  for (int i = 0; i < kBorder; ++i) window.next(x[i]);
#pragma unroll
  for (int i = 0; i < kBorder; ++i) filter.add(x[i], c);

  const auto load_row = [&](int y, int buffer, int ahead) {
    window.next(x[buffer]);
    if (y >= place.count) return;
#pragma unroll
    for (int e = 0; e < kColumns; ++e) {
      pass.load(loaded[buffer][e], e < columns, row + e, at + ahead * t.row_step + e * t.cols);
    }
    row += a.w;
  };
#pragma unroll
  for (int i = 0; i < kBuffers - 1; ++i) load_row(i, i, i);
  for (int base = 0; base < place.count; base += kBuffers) {
#pragma unroll
    for (int i = 0; i < kBuffers; ++i) {
      const int y = base + i, ahead = kBuffers - 1;
      load_row(y + ahead, (i + ahead) % kBuffers, ahead);
      if (y >= place.count) break;
      filter.add(x[i], c);
      pass.use(Pair{{columns > 0, columns > 1}, {at, at + t.cols}}, c, loaded[i]);
      at += t.row_step;
    }
  }
}

}  // namespace psr
