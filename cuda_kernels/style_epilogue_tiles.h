// How the CUDA kernels of style_epilogue divide their tensors.
//
// In memory a sample is a matrix: [pixels, channels] in NHWC, [channels, pixels] in NCHW. A block
// has a tile of rows of it, and of each row a chunk; a thread owns W neighbouring columns and goes
// down the tile, so that what belongs to a column stays in registers.
#pragma once

#include "launch.h"
#include "style_epilogue.h"

namespace psr {

#define PSR_DEVICE __device__ __forceinline__

constexpr int kThreads = 256, kWarp = 32;

// `filtered` is NHWC with the FIR filter.
enum class Walk { pixels, planes, filtered };

// A filtering thread has two neighbouring columns of pixels: they share five loads instead of
// eight, and all that belongs to a channel. It moves 8 bytes at a time, since with 16 the lines of
// the filter alone would fill 48 registers.
constexpr int kColumns = 2;

template <class T, Walk kWalk>
constexpr int kWide = sizeof(T) == 8 ? 1 : kWalk == Walk::filtered ? kLanes<T> / 2 : kLanes<T>;

// Bytes of a row that a block covers. Of rows of pixels few: the more pixels has a block, the less
// sums of channels remain to be added up. Of planes more, for there each row has sums of its own.
constexpr int kChunkBytes = 256, kPlaneChunkBytes = 1024;

// Blocks for large tensors, and those that any tensor should give: three waves of a large device.
constexpr int64_t kPlentyOfBlocks = 2048, kEnoughBlocks = 792;
// With this many rows, sums of tiles cost little; with so many rows of pixels the filter's border.
constexpr int64_t kGoodRows = 1024, kGoodFilteredRows = 32, kLeastFilteredRows = 4;
constexpr int64_t kGoodRowsOfThread = 16;   // against what a block does before and after
constexpr int64_t kRowSumBytes = 16 << 10;  // of shared memory: limits the rows of a tile

struct Tiles {
  int64_t rows, cols;            // of a sample
  int64_t row_step, x_row_step;  // filtered: from one row of pixels to the next
  int32_t lanes_shift;           // log2 of the threads along a row
  int32_t chunk, chunks;         // threads along a row that work, blocks along a row
  int32_t tile_rows, tiles;      // of a sample; filtered: rows of pixels
  int32_t across, span_shift;    // filtered: tiles side by side, log2 of the pixels in their rows
  Divider by_chunks, by_tiles, by_across;

  PSR_HD int lanes() const { return 1 << lanes_shift; }
  PSR_HD int slots() const { return kThreads >> lanes_shift; }
  PSR_HD int span() const { return 1 << span_shift; }
  PSR_HD int warps_along() const { return lanes() > kWarp ? lanes() / kWarp : 1; }
};

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t at_least(int64_t a, int64_t low) { return a < low ? low : a; }
inline int64_t at_most(int64_t a, int64_t high) { return a > high ? high : a; }

// Threads along a row, at most.
template <class T, int W, Walk kWalk>
int64_t most_lanes(const StyleEpilogueArgs& a) {
  constexpr bool planes = kWalk == Walk::planes;
  constexpr int64_t bytes = planes ? kPlaneChunkBytes : kChunkBytes;
  int64_t lanes = at_most(bytes / static_cast<int64_t>(sizeof(T) * W), kThreads);
  const auto rows_of_thread = [&] { return a.c * lanes / kThreads; };
  const auto blocks = [&](int64_t along) { return a.n * (a.h * a.w / W / along); };
  while (planes && lanes < kThreads && rows_of_thread() < kGoodRowsOfThread &&
         blocks(2 * lanes) >= kEnoughBlocks) {
    lanes *= 2;
  }
  return lanes;
}

// Of `total`, over all blocks: few rows where more blocks are needed, good ones where that leaves
// enough blocks.
inline int64_t rows_for(int64_t total, int64_t good) {
  return at_least(total / kPlentyOfBlocks, at_most(total / kEnoughBlocks, good));
}

// `row_sums`: bytes that a warp keeps of each row in shared memory. `least_lanes`: a power of two.
template <class T, int W, Walk kWalk>
Tiles make_tiles(const StyleEpilogueArgs& a, int64_t row_sums, int least_lanes) {
  constexpr bool planes = kWalk == Walk::planes, filtered = kWalk == Walk::filtered;
  Tiles t{};
  t.rows = planes ? a.c : a.h * a.w;
  t.cols = planes ? a.h * a.w : a.c;
  t.row_step = a.w * a.c;
  t.x_row_step = (a.w + 1) * a.c;
  t.chunks = static_cast<int32_t>(ceil_div(t.cols / W, most_lanes<T, W, kWalk>(a)));
  t.chunk = static_cast<int32_t>(ceil_div(t.cols / W, t.chunks));
  while (t.lanes() < at_least(t.chunk, least_lanes)) ++t.lanes_shift;
  while (filtered && t.span() < t.slots() * kColumns) ++t.span_shift;
  t.across = filtered ? static_cast<int32_t>(ceil_div(a.w, t.span())) : 1;
  const int64_t height = filtered ? a.h : t.rows;
  const int64_t total = a.n * height * t.across * t.span() * t.chunks;
  const int64_t good = rows_for(total, filtered ? kGoodFilteredRows * t.span() : kGoodRows);
  const int64_t most = row_sums == 0 ? good : kRowSumBytes / (row_sums * t.warps_along());
  // Threads of different slots have different rows, and should all have one.
  const int64_t unit = filtered ? 1 : t.slots(), least = filtered ? kLeastFilteredRows : unit;
  const int64_t rows = at_least(at_most(good, most) / t.span(), least);
  const int64_t even = ceil_div(height, ceil_div(height, rows));
  t.tile_rows = static_cast<int32_t>(ceil_div(even, unit) * unit);
  t.tiles = static_cast<int32_t>(ceil_div(height, t.tile_rows) * t.across);
  t.by_chunks = Divider(static_cast<uint32_t>(t.chunks));
  t.by_tiles = Divider(static_cast<uint32_t>(t.tiles));
  t.by_across = Divider(static_cast<uint32_t>(t.across));
  return t;
}

inline dim3 grid_of(const StyleEpilogueArgs& a, const Tiles& t) {
  return dim3(static_cast<unsigned>(a.n * t.tiles * t.chunks));
}

// Where a thread works.
template <int W>
struct Place {
  int64_t n, first_row, col;               // first_row: of the tile, in [rows, cols]
  int64_t top, left;                       // filtered: the first pixel
  int32_t tile, chunk, lane, slot, count;  // count: rows of the tile, filtered: of pixels
  bool active;                             // whether the thread has columns

  PSR_DEVICE Place(const StyleEpilogueArgs& a, const Tiles& t, bool filtered) {
    const uint32_t block = t.by_chunks.div(blockIdx.x), sample = t.by_tiles.div(block);
    chunk = static_cast<int32_t>(blockIdx.x - block * t.chunks);
    n = sample;
    tile = static_cast<int32_t>(block - sample * t.tiles);
    lane = threadIdx.x & (t.lanes() - 1);
    slot = threadIdx.x >> t.lanes_shift;
    col = (static_cast<int64_t>(chunk) * t.chunk + lane) * W;
    active = lane < t.chunk && col < t.cols;
    const int32_t down = filtered ? static_cast<int32_t>(t.by_across.div(tile)) : tile;
    top = static_cast<int64_t>(down) * t.tile_rows;
    left = filtered ? (tile - down * t.across) * t.span() : 0;
    first_row = filtered ? top * a.w + left : top;
    const int64_t rest = (filtered ? a.h : t.rows) - top;
    count = static_cast<int32_t>(rest < t.tile_rows ? rest : t.tile_rows);
  }
};

// The kernels' parameters that are known when compiling.
template <class T_, int W_, bool kStyle_, Walk kWalk_>
struct Config {
  using T = T_;
  using A = acc_t<T>;
  static constexpr int W = W_;
  static constexpr bool kStyle = kStyle_, kPlanes = kWalk_ == Walk::planes;
  static constexpr Walk kWalk = kWalk_;
};

inline bool all_aligned16(const StyleEpilogueArgs& a) {
  const void* const pointers[] = {a.x, a.d, a.b, a.noise, a.s, a.y, a.ys, a.dy, a.dys, a.dc};
  for (const void* each : pointers) {
    if (!aligned16(each)) return false;
  }
  return true;
}

// Odd sizes, unaligned tensors and doubles do without variants of their own: in their kernels the
// style is a matter of the arguments.
template <class T, Walk kWalk, class F>
auto choose_width(const StyleEpilogueArgs& a, F& f) {
  constexpr int wide = kWide<T, kWalk>;
  if constexpr (wide > 1) {
    const int64_t fastest = kWalk == Walk::planes ? a.h * a.w : a.c;
    if (fastest % wide == 0 && all_aligned16(a)) {
      const bool style = a.ys != nullptr || a.dys != nullptr;
      return style ? f(Config<T, wide, true, kWalk>{}) : f(Config<T, wide, false, kWalk>{});
    }
  }
  return f(Config<T, 1, true, kWalk>{});
}

// Calls `f` with the Config for these arguments.
template <class F>
auto choose(const StyleEpilogueArgs& a, F&& f) {
  return with_dtype(a.dtype, [&](auto tag) {
    using T = decltype(tag);
    if (a.taps != nullptr) return choose_width<T, Walk::filtered>(a, f);
    if (a.layout == Layout::nhwc) return choose_width<T, Walk::pixels>(a, f);
    return choose_width<T, Walk::planes>(a, f);
  });
}

}  // namespace psr
