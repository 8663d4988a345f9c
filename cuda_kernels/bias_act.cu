// The CUDA path of bias_act: one pass, 16 bytes an access.
#include "bias_act.h"
#include "launch.h"

namespace psr {
namespace {

constexpr int kThreads = 256;

// Which channel a position belongs to, in units of whole accesses where kLanes > 1.
struct Channels {
  bool has_bias, by_channel;  // by_channel: the channel is the fastest dimension
  int64_t channels, inner;    // in accesses
  Divider inner_divider, channel_divider;
  bool narrow;  // positions fit 31 bits

  PSR_HD int64_t of(int64_t i) const {
    if (narrow) return channel_divider.mod(inner_divider.div(static_cast<uint32_t>(i)));
    return (i / inner) % channels;
  }
};

template <int kOrder, bool kSmooth, class T, int kWidth>
__global__ void __launch_bounds__(kThreads)
    bias_act_kernel(BiasActArgs a, Channels where, int64_t count) {
  using A = acc_t<T>;
  using V = Vec<T, kWidth>;
  const BiasActNumbers<A> numbers{a.act, A(a.alpha), A(a.gain), A(a.clamp)};
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count;
       i += step) {
    const V x = static_cast<const V*>(a.x)[i];
    V dy, ddx, out;
    if (kOrder > 0) dy = static_cast<const V*>(a.dy)[i];
    if (kOrder > 1) ddx = static_cast<const V*>(a.ddx)[i];
    A bias[kWidth];
    if (!where.has_bias) {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) bias[j] = A(0);
    } else if (where.by_channel) {
      const V b = static_cast<const V*>(a.b)[where.of(i)];
#pragma unroll
      for (int j = 0; j < kWidth; ++j) bias[j] = load(b.v[j]);
    } else {
      const A b = load(static_cast<const T*>(a.b)[where.of(i)]);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) bias[j] = b;
    }
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      A cotangents = kOrder > 0 ? A(load(dy.v[j])) : A(0);
      if (kOrder > 1) cotangents *= load(ddx.v[j]);
      out.v[j] = store<T>(
          bias_act_element<kOrder, kSmooth>(load(x.v[j]) + bias[j], cotangents, numbers));
    }
    static_cast<V*>(a.out)[i] = out;
  }
}

template <int kOrder, bool kSmooth, class T, int kWidth>
int launch(const BiasActArgs& a, cudaStream_t stream) {
  const bool by_channel = a.inner == 1;
  const int64_t count = a.outer * a.channels * a.inner / kWidth;
  if (count == 0) return cudaSuccess;
  Channels where{};
  where.has_bias = a.b != nullptr;
  where.by_channel = by_channel && kWidth > 1;
  where.channels = by_channel ? a.channels / kWidth : a.channels;
  where.inner = by_channel ? 1 : a.inner / kWidth;
  where.narrow = count < (int64_t(1) << 31);
  if (where.narrow) {
    where.inner_divider = Divider(static_cast<uint32_t>(where.inner));
    where.channel_divider = Divider(static_cast<uint32_t>(where.channels));
  }
  const int64_t blocks = (count + kThreads - 1) / kThreads;
  const unsigned grid = static_cast<unsigned>(blocks < (1 << 20) ? blocks : (1 << 20));
  PSR_LAUNCH((bias_act_kernel<kOrder, kSmooth, T, kWidth>), dim3(grid), dim3(kThreads), 0, stream,
             a, where, count);
  return cudaGetLastError();
}

template <int kOrder, bool kSmooth, class T>
int choose_width(const BiasActArgs& a, cudaStream_t stream) {
  constexpr int lanes = kLanes<T>;
  const int64_t fastest = a.inner == 1 ? a.channels : a.inner;
  const bool wide = fastest % lanes == 0 && aligned16(a.x) && aligned16(a.dy) &&
                    aligned16(a.ddx) && aligned16(a.out) && (a.inner != 1 || aligned16(a.b));
  return wide ? launch<kOrder, kSmooth, T, lanes>(a, stream)
              : launch<kOrder, kSmooth, T, 1>(a, stream);
}

template <class T>
int choose_order(const BiasActArgs& a, cudaStream_t stream) {
  const bool smooth = a.act != Act::lrelu;
  switch (a.order) {
    case 0:
      return smooth ? choose_width<0, true, T>(a, stream) : choose_width<0, false, T>(a, stream);
    case 1:
      return smooth ? choose_width<1, true, T>(a, stream) : choose_width<1, false, T>(a, stream);
    default: return choose_width<2, true, T>(a, stream);
  }
}

}  // namespace
}  // namespace psr

int psr_bias_act_cuda(const psr::BiasActArgs* args, void* stream) {
  return psr::with_dtype(args->dtype, [&](auto tag) {
    return psr::choose_order<decltype(tag)>(*args, static_cast<cudaStream_t>(stream));
  });
}
