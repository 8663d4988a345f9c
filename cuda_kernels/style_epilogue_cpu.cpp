// The CPU path of style_epilogue: the element functions of style_epilogue.h over bands of pixels.
//
// The bands, and so the order of every sum, do not depend on the number of threads.
#include <algorithm>
#include <vector>

#include "style_epilogue.h"

namespace psr {
namespace {

constexpr int64_t kBandElements = 32768;  // of one task: stays in the second-level cache
constexpr int64_t kLeastFilteredRows = 16;  // a band filters three rows more than it has

int64_t rows_per_band(const StyleEpilogueArgs& a) {
  const int64_t rows = std::max<int64_t>(1, kBandElements / std::max<int64_t>(1, a.w * a.c));
  const int64_t least = a.taps == nullptr ? 1 : kLeastFilteredRows;
  return std::min(std::max(rows, least), std::max<int64_t>(1, a.h));
}

int64_t bands(const StyleEpilogueArgs& a) {
  const int64_t rows = rows_per_band(a);
  return (a.h + rows - 1) / rows;
}

// Rows of fir(x), or of x itself, of one sample in channels_last order, from top to bottom.
template <class T>
class Rows {
  using A = acc_t<T>;

 public:
  Rows(const StyleEpilogueArgs& a, int64_t n, int64_t first) : a_(a), width_(a.w * a.c) {
    x_ = static_cast<const T*>(a.x);
    if (a.taps == nullptr) {
      x_ += (n * a.h + first) * width_;
      return;
    }
    x_ += n * (a.h + 1) * (a.w + 1) * a.c;
    lines_.resize(kTaps * width_);
    row_.resize(width_);
    for (int i = 0; i < kTaps; ++i) taps_[i] = a.taps[i];
    next_ = first - 1;
    for (int i = 0; i < kTaps - 1; ++i) filter_line(next_++);
  }

  // The next row, [w, c]: either of these two, depending on whether there is a filter.
  const T* plain() {
    const T* row = x_;
    x_ += width_;
    return row;
  }

  const A* filtered() {
    filter_line(next_);
    const A* line[kTaps];
    for (int i = 0; i < kTaps; ++i) line[i] = lines_.data() + slot(next_ - (kTaps - 1) + i);
    A* out = row_.data();
#pragma omp simd
    for (int64_t j = 0; j < width_; ++j) {
      out[j] = taps_[0] * line[0][j] + taps_[1] * line[1][j] + taps_[2] * line[2][j] +
               taps_[3] * line[3][j];
    }
    ++next_;
    return out;
  }

 private:
  int64_t slot(int64_t row) const { return ((row + kTaps) % kTaps) * width_; }

  // Filters row `row` of x along x; rows outside are zero.
  void filter_line(int64_t row) {
    A* out = lines_.data() + slot(row);
    if (row < 0 || row > a_.h) {
      std::fill(out, out + width_, A(0));
      return;
    }
    const int64_t c = a_.c, last = a_.w;  // x has w + 1 columns
    const T* in = x_ + row * (a_.w + 1) * c;
    const auto edge = [&](int64_t column) {
      for (int64_t k = 0; k < c; ++k) {
        A sum = A(0);
        for (int64_t i = 0; i < kTaps; ++i) {
          const int64_t from = column - 1 + i;
          if (from >= 0 && from <= last) sum += taps_[i] * A(load(in[from * c + k]));
        }
        out[column * c + k] = sum;
      }
    };
    edge(0);
    const int64_t inside = std::max<int64_t>(c, (a_.w - 1) * c);
#pragma omp simd
    for (int64_t j = c; j < inside; ++j) {
      out[j] = taps_[0] * A(load(in[j - c])) + taps_[1] * A(load(in[j])) +
               taps_[2] * A(load(in[j + c])) + taps_[3] * A(load(in[j + 2 * c]));
    }
    if (a_.w > 1) edge(a_.w - 1);
  }

  const StyleEpilogueArgs& a_;
  const T* x_;
  int64_t width_, next_ = 0;
  std::vector<A> lines_, row_;
  A taps_[kTaps] = {};
};

template <class T>
struct Pointers {
  using A = acc_t<T>;

  explicit Pointers(const StyleEpilogueArgs& a)
      : d(static_cast<const A*>(a.d)),
        b(static_cast<const A*>(a.b)),
        noise(static_cast<const A*>(a.noise)),
        s(static_cast<const A*>(a.s)),
        y(static_cast<T*>(a.y)),
        ys(static_cast<T*>(a.ys)),
        dy(static_cast<const T*>(a.dy)),
        dys(static_cast<const T*>(a.dys)),
        dc(static_cast<T*>(a.dc)),
        du(static_cast<A*>(a.du)),
        strength(a.strength == nullptr ? A(1) : *static_cast<const A*>(a.strength)),
        numbers{A(a.alpha), A(a.gain), A(a.clamp)} {}

  const A *d, *b, *noise, *s;
  T *y, *ys;
  const T *dy, *dys;
  T* dc;
  A* du;
  A strength;
  EpilogueNumbers<A> numbers;
};

// The noise of the pixels of sample n from `first` on, or null.
template <class A>
const A* noise_of(const StyleEpilogueArgs& a, const A* noise, int64_t n, int64_t first) {
  if (noise == nullptr) return nullptr;
  return noise + (a.noise_n == 1 ? 0 : n) * a.h * a.w + first;
}

// One pixel forward, all channels.
template <bool kKeep, bool kStyle, class T, class X>
inline void forward_pixel(const StyleEpilogueArgs& a, const Pointers<T>& p, const X* x,
                          const acc_t<T>* d, const acc_t<T>* s, acc_t<T> noise, T* y, T* ys) {
  using A = acc_t<T>;
  const EpilogueNumbers<A> numbers = p.numbers;
  const A* b = p.b;
#pragma omp simd
  for (int64_t k = 0; k < a.c; ++k) {
    const A v = epilogue_value(d[k] * A(load(x[k])) + (b[k] + noise), numbers);
    if (kKeep) y[k] = store<T>(v);
    if (kStyle) ys[k] = store<T>(s[k] * v);
  }
}

template <bool kKeep, bool kStyle, class T>
void forward_nhwc(const StyleEpilogueArgs& a, int64_t n, int64_t top, int64_t bottom) {
  using A = acc_t<T>;
  const Pointers<T> p(a);
  Rows<T> rows(a, n, top);
  const A* d = p.d + n * a.c;
  const A* s = kStyle ? p.s + n * a.c : nullptr;
  for (int64_t row = top; row < bottom; ++row) {
    const A* noise = noise_of(a, p.noise, n, row * a.w);
    const int64_t start = (n * a.h + row) * a.w * a.c;
    T* y = kKeep ? p.y + start : nullptr;
    T* ys = kStyle ? p.ys + start : nullptr;
    const auto do_row = [&](const auto* x) {
      for (int64_t i = 0; i < a.w; ++i) {
        const int64_t at = i * a.c;
        forward_pixel<kKeep, kStyle>(a, p, x + at, d, s,
                                     noise == nullptr ? A(0) : p.strength * noise[i], y + at,
                                     ys + at);
      }
    };
    a.taps == nullptr ? do_row(rows.plain()) : do_row(rows.filtered());
  }
}

template <bool kKeep, bool kStyle, class T>
void forward_nchw(const StyleEpilogueArgs& a, int64_t n, int64_t top, int64_t bottom) {
  using A = acc_t<T>;
  const Pointers<T> p(a);
  const A* noise = noise_of(a, p.noise, n, top * a.w);
  const int64_t length = (bottom - top) * a.w;
  for (int64_t k = 0; k < a.c; ++k) {
    const int64_t start = ((n * a.c + k) * a.h + top) * a.w;
    const T* x = static_cast<const T*>(a.x) + start;
    T* y = kKeep ? p.y + start : nullptr;
    T* ys = kStyle ? p.ys + start : nullptr;
    const A d = p.d[n * a.c + k], b = p.b[k], s = kStyle ? p.s[n * a.c + k] : A(0);
    const A strength = p.strength;
    const EpilogueNumbers<A> numbers = p.numbers;
#pragma omp simd
    for (int64_t i = 0; i < length; ++i) {
      const A u = d * A(load(x[i])) + (b + (noise == nullptr ? A(0) : strength * noise[i]));
      const A v = epilogue_value(u, numbers);
      if (kKeep) y[i] = store<T>(v);
      if (kStyle) ys[i] = store<T>(s * v);
    }
  }
}

template <bool kKeep, bool kStyle, class T>
void forward(const StyleEpilogueArgs& a, ParallelFor run) {
  const int64_t rows = rows_per_band(a), count = bands(a);
  parallel(run, a.n * count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t n = task / count, top = task % count * rows;
      const int64_t bottom = std::min(a.h, top + rows);
      if (a.layout == Layout::nhwc) {
        forward_nhwc<kKeep, kStyle, T>(a, n, top, bottom);
      } else {
        forward_nchw<kKeep, kStyle, T>(a, n, top, bottom);
      }
    }
  });
}

// Sums of one band, each [c].
template <class A>
struct Sums {
  A *dd, *db, *ds;
};

// One pixel backward, all channels; returns the sum of du over them.
template <bool kKeep, bool kStyle, class T, class X>
inline acc_t<T> backward_pixel(const StyleEpilogueArgs& a, const Pointers<T>& p, const X* x,
                               const acc_t<T>* d, const acc_t<T>* s, acc_t<T> noise, const T* dy,
                               const T* dys, T* dc, const Sums<acc_t<T>>& sums) {
  using A = acc_t<T>;
  const EpilogueNumbers<A> numbers = p.numbers;
  const A* b = p.b;
  A *dd = sums.dd, *db = sums.db, *ds = sums.ds;
  A pixel = A(0);
#pragma omp simd reduction(+ : pixel)
  for (int64_t k = 0; k < a.c; ++k) {
    const A c = A(load(x[k])), u = d[k] * c + (b[k] + noise);
    A g = kKeep ? A(load(dy[k])) : A(0);
    if (kStyle) {
      const A gs = load(dys[k]);
      g += s[k] * gs;
      ds[k] += gs * epilogue_value(u, numbers);
    }
    const A du = g * epilogue_slope(u, numbers);
    dd[k] += du * c;
    db[k] += du;
    dc[k] = store<T>(du * d[k]);
    pixel += du;
  }
  return pixel;
}

template <bool kKeep, bool kStyle, class T>
void backward_nhwc(const StyleEpilogueArgs& a, int64_t n, int64_t top, int64_t bottom,
                   const Sums<acc_t<T>>& sums) {
  using A = acc_t<T>;
  const Pointers<T> p(a);
  Rows<T> rows(a, n, top);
  const A* d = p.d + n * a.c;
  const A* s = kStyle ? p.s + n * a.c : nullptr;
  for (int64_t row = top; row < bottom; ++row) {
    const A* noise = noise_of(a, p.noise, n, row * a.w);
    const int64_t pixel = (n * a.h + row) * a.w, start = pixel * a.c;
    const T* dy = kKeep ? p.dy + start : nullptr;
    const T* dys = kStyle ? p.dys + start : nullptr;
    const auto do_row = [&](const auto* x) {
      for (int64_t i = 0; i < a.w; ++i) {
        const int64_t at = i * a.c;
        const A du = backward_pixel<kKeep, kStyle>(
            a, p, x + at, d, s, noise == nullptr ? A(0) : p.strength * noise[i], dy + at, dys + at,
            p.dc + start + at, sums);
        if (p.du != nullptr) p.du[pixel + i] = du;
      }
    };
    a.taps == nullptr ? do_row(rows.plain()) : do_row(rows.filtered());
  }
}

template <bool kKeep, bool kStyle, class T>
void backward_nchw(const StyleEpilogueArgs& a, int64_t n, int64_t top, int64_t bottom,
                   const Sums<acc_t<T>>& sums) {
  using A = acc_t<T>;
  const Pointers<T> p(a);
  const A* noise = noise_of(a, p.noise, n, top * a.w);
  const int64_t length = (bottom - top) * a.w;
  std::vector<A> pixels(length, A(0));
  for (int64_t k = 0; k < a.c; ++k) {
    const int64_t start = ((n * a.c + k) * a.h + top) * a.w;
    const T* x = static_cast<const T*>(a.x) + start;
    const T* dy = kKeep ? p.dy + start : nullptr;
    const T* dys = kStyle ? p.dys + start : nullptr;
    T* dc = p.dc + start;
    const A d = p.d[n * a.c + k], b = p.b[k], s = kStyle ? p.s[n * a.c + k] : A(0);
    const A strength = p.strength;
    const EpilogueNumbers<A> numbers = p.numbers;
    A dd = A(0), db = A(0), ds = A(0);
    A* sum = pixels.data();
#pragma omp simd reduction(+ : dd, db, ds)
    for (int64_t i = 0; i < length; ++i) {
      const A c = A(load(x[i]));
      const A u = d * c + (b + (noise == nullptr ? A(0) : strength * noise[i]));
      A g = kKeep ? A(load(dy[i])) : A(0);
      if (kStyle) {
        const A gs = load(dys[i]);
        g += s * gs;
        ds += gs * epilogue_value(u, numbers);
      }
      const A du = g * epilogue_slope(u, numbers);
      dd += du * c;
      db += du;
      dc[i] = store<T>(du * d);
      sum[i] += du;
    }
    sums.dd[k] = dd;
    sums.db[k] = db;
    if (kStyle) sums.ds[k] = ds;
  }
  if (p.du != nullptr) std::copy(pixels.begin(), pixels.end(), p.du + (n * a.h + top) * a.w);
}

// Adds up what the bands of every sample gave, always in the same order.
template <class A>
void add_bands(const StyleEpilogueArgs& a, const std::vector<A>& partial, int64_t count) {
  A* outs[] = {static_cast<A*>(a.dd), static_cast<A*>(a.db), static_cast<A*>(a.ds)};
  for (int64_t n = 0; n < a.n; ++n) {
    for (int64_t which = 0; which < 3; ++which) {
      if (outs[which] == nullptr) continue;
      A* out = outs[which] + n * a.c;
      std::fill(out, out + a.c, A(0));
      for (int64_t band = 0; band < count; ++band) {
        const A* from = partial.data() + ((n * count + band) * 3 + which) * a.c;
        for (int64_t k = 0; k < a.c; ++k) out[k] += from[k];
      }
    }
  }
}

template <bool kKeep, bool kStyle, class T>
void backward(const StyleEpilogueArgs& a, ParallelFor run) {
  using A = acc_t<T>;
  const int64_t rows = rows_per_band(a), count = bands(a);
  std::vector<A> partial(a.n * count * 3 * a.c, A(0));
  parallel(run, a.n * count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t n = task / count, top = task % count * rows;
      const int64_t bottom = std::min(a.h, top + rows);
      A* mine = partial.data() + task * 3 * a.c;
      const Sums<A> sums{mine, mine + a.c, mine + 2 * a.c};
      if (a.layout == Layout::nhwc) {
        backward_nhwc<kKeep, kStyle, T>(a, n, top, bottom, sums);
      } else {
        backward_nchw<kKeep, kStyle, T>(a, n, top, bottom, sums);
      }
    }
  });
  add_bands(a, partial, count);
}

}  // namespace
}  // namespace psr

void psr_style_epilogue_cpu(const psr::StyleEpilogueArgs* args, psr::ParallelFor run) {
  psr::with_dtype(args->dtype, [&](auto tag) {
    using T = decltype(tag);
    if (args->ys == nullptr) return psr::forward<true, false, T>(*args, run);
    if (args->y == nullptr) return psr::forward<false, true, T>(*args, run);
    return psr::forward<true, true, T>(*args, run);
  });
}

void psr_style_epilogue_backward_cpu(const psr::StyleEpilogueArgs* args, psr::ParallelFor run) {
  psr::with_dtype(args->dtype, [&](auto tag) {
    using T = decltype(tag);
    if (args->dys == nullptr) return psr::backward<true, false, T>(*args, run);
    if (args->dy == nullptr) return psr::backward<false, true, T>(*args, run);
    return psr::backward<true, true, T>(*args, run);
  });
}
