// The CPU path of bias_act: the element functions of bias_act.h in a loop that vectorises.
#include "bias_act.h"

namespace psr {
namespace {

constexpr int64_t kGrain = 16384;

// A row is what a loop without a division covers: a channel's pixels, or a pixel's channels.
template <int kOrder, bool kSmooth, bool kByChannel, class T>
void run_rows(const BiasActArgs& a, int64_t begin, int64_t end) {
  using A = acc_t<T>;
  const BiasActNumbers<A> numbers{a.act, A(a.alpha), A(a.gain), A(a.clamp)};
  const T* b = static_cast<const T*>(a.b);
  const int64_t length = kByChannel ? a.channels : a.inner;
  for (int64_t row = begin; row < end; ++row) {
    const A own = kByChannel || b == nullptr ? A(0) : A(load(b[row % a.channels]));
    const T* x = static_cast<const T*>(a.x) + row * length;
    const T* dy = kOrder > 0 ? static_cast<const T*>(a.dy) + row * length : nullptr;
    const T* ddx = kOrder > 1 ? static_cast<const T*>(a.ddx) + row * length : nullptr;
    T* out = static_cast<T*>(a.out) + row * length;
#pragma omp simd
    for (int64_t j = 0; j < length; ++j) {
      const A u = A(load(x[j])) + (kByChannel ? A(load(b[j])) : own);
      A cotangents = kOrder > 0 ? A(load(dy[j])) : A(0);
      if (kOrder > 1) cotangents *= load(ddx[j]);
      out[j] = store<T>(bias_act_element<kOrder, kSmooth>(u, cotangents, numbers));
    }
  }
}

template <int kOrder, bool kSmooth, class T>
void run_order(const BiasActArgs& a, ParallelFor run) {
  const bool by_channel = a.inner == 1 && a.b != nullptr;
  const int64_t length = by_channel ? a.channels : a.inner;
  const int64_t rows = by_channel ? a.outer : a.outer * a.channels;
  parallel(run, rows, kGrain / (length + 1) + 1, [&](int64_t begin, int64_t end) {
    by_channel ? run_rows<kOrder, kSmooth, true, T>(a, begin, end)
               : run_rows<kOrder, kSmooth, false, T>(a, begin, end);
  });
}

template <class T>
void run_dtype(const BiasActArgs& a, ParallelFor run) {
  const bool smooth = a.act != Act::lrelu;
  switch (a.order) {
    case 0: return smooth ? run_order<0, true, T>(a, run) : run_order<0, false, T>(a, run);
    case 1: return smooth ? run_order<1, true, T>(a, run) : run_order<1, false, T>(a, run);
    default: return run_order<2, true, T>(a, run);
  }
}

}  // namespace
}  // namespace psr

void psr_bias_act_cpu(const psr::BiasActArgs* args, psr::ParallelFor run) {
  psr::with_dtype(args->dtype, [&](auto tag) { psr::run_dtype<decltype(tag)>(*args, run); });
}
