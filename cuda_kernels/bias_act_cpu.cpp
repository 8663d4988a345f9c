// The CPU path of bias_act: the element functions of bias_act.h in a loop that vectorises.
#include "bias_act.h"

namespace psr {
namespace {

constexpr int64_t kGrain = 16384;

template <int kOrder, bool kSmooth, class T>
void run_order(const BiasActArgs& a, ParallelFor run) {
  using A = acc_t<T>;
  const BiasActNumbers<A> numbers{a.act, A(a.alpha), A(a.gain), A(a.clamp)};
  const T* x = static_cast<const T*>(a.x);
  const T* b = static_cast<const T*>(a.b);
  const T* dy = static_cast<const T*>(a.dy);
  const T* ddx = static_cast<const T*>(a.ddx);
  T* out = static_cast<T*>(a.out);
  // One row is what a loop without a division covers: a channel's pixels, or a pixel's channels.
  const bool by_channel = a.inner == 1;
  const int64_t length = by_channel ? a.channels : a.inner;
  const int64_t rows = by_channel ? a.outer : a.outer * a.channels;
  parallel(run, rows, kGrain / (length + 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const T* bias = b == nullptr ? nullptr : by_channel ? b : b + row % a.channels;
#pragma omp simd
      for (int64_t j = 0; j < length; ++j) {
        const int64_t i = row * length + j;
        const A u = load(x[i]) + (bias == nullptr ? A(0) : load(bias[by_channel ? j : 0]));
        const A dyi = kOrder > 0 ? load(dy[i]) : A(0);
        const A cotangents = kOrder > 1 ? dyi * load(ddx[i]) : dyi;
        out[i] = store<T>(bias_act_element<kOrder, kSmooth>(u, cotangents, numbers));
      }
    }
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
