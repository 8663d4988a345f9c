// The CUDA path of style_epilogue, forward: one pass over memory.
#include "style_epilogue_walks.h"

namespace psr {
namespace {

constexpr int kAhead = 4;    // rows whose loads are in flight together
constexpr int kBuffers = 3;  // filtered: the row that is computed and those that come

template <class C>
class Forward {
  using T = typename C::T;
  using A = typename C::A;
  static constexpr int W = C::W;
  using Numbers = Operands<T, W, C::kStyle, C::kPlanes>;

 public:
  using Loaded = typename Numbers::Row;

  PSR_DEVICE Forward(const StyleEpilogueArgs& a, const Place<W>& place,
                     const Response<A>& response)
      : operands_(a, place, response.scale), response_(response), y_(a.y), ys_(a.ys) {}

  PSR_DEVICE void load(Loaded& row, bool inside, int64_t i, int64_t) const {
    row = operands_.row(i, inside);
  }

  PSR_DEVICE void use(const Pair& which, const A (&c)[2][W], const Loaded* rows) const {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      A y[W];
#pragma unroll
      for (int j = 0; j < W; ++j) y[j] = operands_.u(j, rows[e], c[e][j]);
      response_.values(y);
      if (which.inside[e] && (!C::kStyle || y_ != nullptr)) write<T>(y_, which.at[e], y);
      if constexpr (C::kStyle) {
#pragma unroll
        for (int j = 0; j < W; ++j) y[j] *= operands_.s(j, rows[e]);
        if (which.inside[e] && ys_ != nullptr) write<T>(ys_, which.at[e], y);
      }
    }
  }

 private:
  const Numbers operands_;
  const Response<A>& response_;
  void* const y_;
  void* const ys_;
};

template <class C>
__global__ void __launch_bounds__(kThreads, C::kWalk == Walk::filtered ? 2 : 3)
    style_epilogue_kernel(StyleEpilogueArgs a, Tiles tiles, Response<typename C::A> response) {
  constexpr bool filtered = C::kWalk == Walk::filtered;
  const Place<C::W> place(a, tiles, filtered);
  Forward<C> pass(a, place, response);
  if constexpr (filtered) {
    walk_filtered<typename C::T, kBuffers>(a, tiles, place, pass);
  } else {
    walk_rows<typename C::T, kAhead>(a, tiles, place, pass);
  }
}

template <class C>
int launch(const StyleEpilogueArgs& a, cudaStream_t stream) {
  const Tiles tiles = make_tiles<typename C::T, C::W, C::kWalk>(a, 0, 1);
  PSR_LAUNCH((style_epilogue_kernel<C>), grid_of(a, tiles), dim3(kThreads), 0, stream, a, tiles,
             Response<typename C::A>(a));
  return cudaGetLastError();
}

}  // namespace
}  // namespace psr

int psr_style_epilogue_cuda(const psr::StyleEpilogueArgs* args, void* stream) {
  return psr::choose(*args, [&](auto config) {
    return psr::launch<decltype(config)>(*args, static_cast<cudaStream_t>(stream));
  });
}
