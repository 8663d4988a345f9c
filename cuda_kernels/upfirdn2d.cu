// The CUDA path of upfirdn2d: one of three kernels, one launch.
//
//   walk_kernel    NHWC, separable 4 x 4 taps, by 2 up, by 2 down or neither
//   tile_kernel    NCHW, separable, up to 12 x 12 taps, the same factors
//   direct_kernel  everything else: a thread computes one pixel of some channels
#include <algorithm>

#include "upfirdn2d_tile.h"

namespace psr {
namespace {

constexpr int64_t kPlentyOfThreads = 1 << 17, kPlentyOfBlocks = 512;  // for a large device
constexpr int64_t kLongestStrip = 32, kShortestStrip = 4;             // groups
constexpr int64_t kMostAccesses = 16;  // of a pixel in a block, so that it has many columns
constexpr int64_t kMaxSide = 1 << 30, kMaxBlocks = (int64_t(1) << 31) - 1;
constexpr int64_t kMaxShared = 48 * 1024;  // without a request for more

template <class T, class M, int kWide>
__global__ void __launch_bounds__(kThreads, 4) walk_kernel(Upfirdn2dArgs a, Strips s) {
  const uint32_t block = s.chunks.div(blockIdx.x), chunk = s.chunks.mod(blockIdx.x);
  const uint32_t unit = block * blockDim.y + threadIdx.y;
  const int32_t access = chunk * blockDim.x + threadIdx.x;
  if (unit < s.units && access < s.accesses) Walker<T, M, kWide>(a, s, unit, access).walk();
}

template <class T, class M>
__global__ void __launch_bounds__(kThreads) tile_kernel(Upfirdn2dArgs a, Tiles t) {
  PSR_DYNAMIC_SHARED(float, shared);
  const TileWalker<T, M> walker(a, t);
  const Taps<M> taps(a);
  walker.fill(shared);
  __syncthreads();
  walker.walk(shared, taps);
}

// kWide channels of one output at a time. NCHW is NHWC with one channel and n * c images.
template <class T, int kWide>
__global__ void __launch_bounds__(kThreads, 4)
    direct_kernel(Upfirdn2dArgs a, int64_t channels, int64_t count, int32_t shared_taps) {
  using A = acc_t<T>;
  PSR_DYNAMIC_SHARED(float, shared);
  for (int32_t i = threadIdx.x; i < shared_taps; i += kThreads) shared[i] = a.f[i];
  __syncthreads();
  const float* f = shared_taps > 0 ? shared : a.f;
  const Axis x = x_axis(a), y = y_axis(a);
  const int64_t accesses = channels / kWide;
  for (int64_t i = blockIdx.x * int64_t(kThreads) + threadIdx.x; i < count;
       i += gridDim.x * int64_t(kThreads)) {
    const int64_t pixel = i / accesses, row = pixel / a.out_w, image = row / a.out_h;
    const int64_t channel = (i - pixel * accesses) * kWide;
    const Reach columns = reach(x, pixel - row * a.out_w), rows = reach(y, row - image * a.out_h);
    const T* from = static_cast<const T*>(a.x) + channel +
                    ((image * a.in_h + rows.pixel) * a.in_w + columns.pixel) * channels;
    A sums[kWide] = {};
    for (int32_t r = 0; r < rows.count; ++r) {
      const int64_t ky = stored_tap(rows.tap + r * y.up, y.taps, a.flip);
      for (int32_t c = 0; c < columns.count; ++c) {
        const int64_t kx = stored_tap(columns.tap + c * x.up, x.taps, a.flip);
        const A tap = a.separable != 0 ? A(f[ky]) * A(f[kx]) : A(f[ky * x.taps + kx]);
        Packed<T, kWide> values;
        read_vector(values, from + (r * a.in_w + c) * channels);
#pragma unroll
        for (int j = 0; j < kWide; ++j) sums[j] += tap * values.get(j);
      }
    }
    Vec<T, kWide> out;
#pragma unroll
    for (int j = 0; j < kWide; ++j) out.v[j] = store<T>(sums[j] * A(a.gain));
    write_vector(static_cast<T*>(a.y) + pixel * channels + channel, out);
  }
}

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

Divider divider(int64_t by) { return Divider(static_cast<uint32_t>(by)); }

template <class T>
bool aligned(const Upfirdn2dArgs& a, int wide) {
  const uintptr_t both = reinterpret_cast<uintptr_t>(a.x) | reinterpret_cast<uintptr_t>(a.y);
  return both % (sizeof(T) * wide) == 0;
}

// Whether channels in NHWC can be moved several at a time.
template <class T>
bool wide(const Upfirdn2dArgs& a) {
  return a.c % kWideAccess<T> == 0 && aligned<T>(a, kWideAccess<T>);
}

template <class T, int kWide>
int launch_direct(const Upfirdn2dArgs& a, cudaStream_t stream) {
  const int64_t channels = a.layout == Layout::nchw ? 1 : a.c;
  const int64_t count = a.n * a.c * a.out_h * a.out_w / kWide;
  const int64_t taps = a.separable != 0 ? a.f_h : int64_t(a.f_h) * a.f_w;
  const int32_t shared_taps = taps * sizeof(float) <= kMaxShared ? static_cast<int32_t>(taps) : 0;
  const int64_t blocks = divide_up(count, kThreads);
  const unsigned grid = static_cast<unsigned>(blocks < (1 << 20) ? blocks : (1 << 20));
  PSR_LAUNCH((direct_kernel<T, kWide>), dim3(grid), dim3(kThreads), shared_taps * sizeof(float),
             stream, a, channels, count, shared_taps);
  return cudaGetLastError();
}

// Both return false where indices would not fit.
template <class T, class M, int kWide>
bool launch_walk(const Upfirdn2dArgs& a, cudaStream_t stream) {
  Strips s(a);
  const int64_t accesses = a.c / kWide, across = divide_up(s.x.count, kColumns);
  const int64_t chunks = divide_up(accesses, kMostAccesses), chunk = divide_up(accesses, chunks);
  int64_t strip = kLongestStrip;
  while (strip > kShortestStrip &&
         accesses * across * divide_up(s.y.count, strip) * a.n < kPlentyOfThreads)
    strip /= 2;
  const int64_t down = divide_up(s.y.count, strip), units = across * down * a.n;
  const int64_t slots = kThreads / chunk, blocks = divide_up(units, slots) * chunks;
  if (a.c * sizeof(T) >= (1 << 28) || units + slots > kMaxBlocks || blocks > kMaxBlocks)
    return false;
  s.accesses = static_cast<int32_t>(accesses);
  s.strip = static_cast<int32_t>(strip);
  s.units = static_cast<uint32_t>(units);
  s.pixel_bytes = static_cast<uint32_t>(a.c * sizeof(T));
  s.in_row = a.in_w * a.c * sizeof(T);
  s.out_row = a.out_w * a.c * sizeof(T);
  s.across = divider(across);
  s.down = divider(down);
  s.chunks = divider(chunks);
  PSR_LAUNCH((walk_kernel<T, M, kWide>), dim3(static_cast<unsigned>(blocks)),
             dim3(static_cast<unsigned>(chunk), static_cast<unsigned>(slots)), 0, stream, a, s);
  return true;
}

template <class T, class M>
bool launch_tile(const Upfirdn2dArgs& a, cudaStream_t stream) {
  using W = TileWalker<T, M>;
  Tiles t(a);
  t.plane_count = a.n * a.c;
  const int64_t threads_x = std::min<int64_t>(divide_up(a.out_w, W::kOutputs), kWarp);
  const int64_t strip = std::min<int64_t>(divide_up(t.y.count, W::kBatch) * W::kBatch, W::kStrip);
  const int64_t pitch = W::pitch(threads_x);
  const auto rows = [&](int64_t threads) { return threads * strip * M::step + M::kept; };
  const auto bytes = [&](int64_t threads) { return rows(threads) * pitch * sizeof(float); };
  int64_t threads_y = std::min(divide_up(t.y.count, strip), kThreads / threads_x);
  while (bytes(threads_y) > kMaxShared) --threads_y;
  const int64_t across = divide_up(a.out_w, threads_x * W::kOutputs);
  const int64_t down = divide_up(t.y.count, threads_y * strip);
  int64_t planes = 1;
  if (threads_x < kWarp) {
    planes = std::min<int64_t>(kThreads / (threads_x * threads_y), kMaxShared / bytes(threads_y));
    planes = std::min(planes, divide_up(t.plane_count * across * down, kPlentyOfBlocks));
  }
  const int64_t blocks = across * down * divide_up(t.plane_count, planes);
  if (blocks > kMaxBlocks) return false;
  t.planes = static_cast<int32_t>(planes);
  t.strip = static_cast<int32_t>(strip);
  t.rows = static_cast<int32_t>(rows(threads_y));
  t.pitch = static_cast<int32_t>(pitch);
  t.aligned = a.out_w % W::kOutputs == 0 && aligned<T>(a, W::kOutputs);
  t.across = divider(across);
  t.down = divider(down);
  t.threads_x = divider(threads_x);
  t.threads_y = divider(threads_y);
  t.tile_rows = divider(t.rows);
  PSR_LAUNCH((tile_kernel<T, M>), dim3(static_cast<unsigned>(blocks)), dim3(kThreads),
             planes * bytes(threads_y), stream, a, t);
  return true;
}

template <class T, int kUp, int kDown>
bool launch_fast(const Upfirdn2dArgs& a, cudaStream_t stream) {
  const bool four = a.f_h == 4 && a.f_w == 4;
  using Four = Mode<kUp, kDown, 4, true>;
  if (a.layout == Layout::nchw || a.c == 1) {
    if (four) return launch_tile<T, Four>(a, stream);
    return a.f_h <= 12 && a.f_w <= 12 && launch_tile<T, Mode<kUp, kDown, 12, false>>(a, stream);
  }
  if (!four) return false;
  return wide<T>(a) ? launch_walk<T, Four, kWideAccess<T>>(a, stream)
                    : launch_walk<T, Four, 1>(a, stream);
}

// Whether it ran.
template <class T>
bool try_fast(const Upfirdn2dArgs& a, cudaStream_t stream) {
  for (int64_t side : {a.in_h, a.in_w, a.out_h, a.out_w, int64_t(a.pad_x0), int64_t(a.pad_y0)})
    if (side > kMaxSide || side < -kMaxSide) return false;
  if (a.separable == 0 || a.up_x != a.up_y || a.down_x != a.down_y) return false;
  if (a.up_x == 1 && a.down_x == 1) return launch_fast<T, 1, 1>(a, stream);
  if (a.up_x == 2 && a.down_x == 1) return launch_fast<T, 2, 1>(a, stream);
  if (a.up_x == 1 && a.down_x == 2) return launch_fast<T, 1, 2>(a, stream);
  return false;
}

template <class T>
int run(const Upfirdn2dArgs& a, cudaStream_t stream) {
  if (a.n * a.c * a.out_h * a.out_w == 0) return cudaSuccess;
  if constexpr (!std::is_same<T, double>::value) {
    if (try_fast<T>(a, stream)) return cudaGetLastError();
    if (a.layout == Layout::nhwc && wide<T>(a)) return launch_direct<T, kWideAccess<T>>(a, stream);
  }
  return launch_direct<T, 1>(a, stream);
}

}  // namespace
}  // namespace psr

int psr_upfirdn2d_cuda(const psr::Upfirdn2dArgs* args, void* stream) {
  return psr::with_dtype(args->dtype, [&](auto tag) {
    return psr::run<decltype(tag)>(*args, static_cast<cudaStream_t>(stream));
  });
}
