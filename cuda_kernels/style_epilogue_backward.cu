// The CUDA path of style_epilogue, backward: one pass over memory that leaves sums of tiles, and a
// small kernel that adds them up. Every sum has one order, whatever the device does.
#include "style_epilogue_walks.h"

namespace psr {
namespace {

constexpr int kAhead = 2;    // rows whose loads are in flight together
constexpr int kBuffers = 2;  // filtered: the row that is computed and the one that comes

// Where sums go: [n, parts, length] for each kind; parts > 1 are added up later.
template <class A>
struct Sums {
  A* channels[3];  // dd, db, ds or null
  A* pixels;       // du or null
};

// Sums of rows: du of pixels in NHWC, dd, db and ds of channels in NCHW.
//
// Threads put their parts of pairs of rows aside; when kPairs pairs have come, the warp adds them
// up, with far fewer instructions than shuffles for each of them would take.
template <class A, int kSums, bool kFiltered, int W>
class RowSums {
 public:
  static constexpr int kPairs = 16 / sizeof(A);

  // How many accumulators of shared memory hold what is put aside, and the sums of a tile.
  static constexpr int kAside = kThreads / kWarp * kSums * kPairs * (kWarp + 8) * 2;
  static int size(const Tiles& t) { return t.tile_rows * t.span() * t.warps_along() * kSums; }

  PSR_DEVICE RowSums(const Tiles& t, const Place<W>& place, A* aside, A* rows)
      : t_(t), place_(place), rows_(rows),
        next_(reinterpret_cast<Couple*>(aside) + threadIdx.x / kWarp * (kSums * kPairs * kStride) +
              threadIdx.x % kWarp) {}

  PSR_DEVICE void put_aside(const A (&lines)[2][kSums]) {
#pragma unroll
    for (int k = 0; k < kSums; ++k) next_[k * kPairs * kStride] = {{lines[0][k], lines[1][k]}};
    next_ += kStride;
    ++pairs_;
    if (pairs_ % kPairs == 0) {
      next_ -= kPairs * kStride;
      add_up(next_, pairs_ - kPairs);
    }
  }

  // Writes the sums, one of `to` for each kind, as [n, chunks, rows].
  PSR_DEVICE void write(const StyleEpilogueArgs& a, A* const* to) {
    if (pairs_ % kPairs != 0) add_up(next_ - pairs_ % kPairs * kStride, pairs_ / kPairs * kPairs);
    __syncthreads();
    const int warps = t_.warps_along();
    const int64_t start = (place_.n * t_.chunks + place_.chunk) * t_.rows + place_.first_row;
    for (int i = threadIdx.x; i < place_.count * t_.span(); i += kThreads) {
      const int y = i >> t_.span_shift, x = i & (t_.span() - 1);
      if (kFiltered && place_.left + x >= a.w) continue;
#pragma unroll
      for (int k = 0; k < kSums; ++k) {
        A sum = A(0);
#pragma unroll 1
        for (int w = 0; w < warps; ++w) sum += rows_[(i * warps + w) * kSums + k];
        if (to[k] != nullptr) to[k][start + (kFiltered ? y * a.w + x : y)] = sum;
      }
    }
  }

 private:
  struct alignas(2 * sizeof(A)) Couple {
    A v[2];
  };
  static constexpr int kStride = kWarp + 8;  // from pair to pair: into other banks

  // Each lane adds kPairs couples of one pair and one slot; shuffles add what is left of the slot.
  PSR_DEVICE void add_up(const Couple* mine, unsigned first_pair) {
    constexpr int kShare = kWarp / kPairs;  // lanes for a pair
    const int shift = t_.lanes_shift < 5 ? t_.lanes_shift : 5, group = (1 << shift) / kPairs;
    const int thread = threadIdx.x, pair = thread % kWarp / kShare, share = thread % kShare;
    const int slot = share * kPairs >> shift;  // of the warp's
    const Couple* from =
        mine - thread % kWarp + pair * kStride + (slot << shift) + (share & (group - 1));
    A lines[2][kSums] = {};
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
#pragma unroll
      for (int k = 0; k < kSums; ++k) {
        const Couple couple = from[k * kPairs * kStride + i * group];
        lines[0][k] += couple.v[0];
        lines[1][k] += couple.v[1];
      }
    }
#pragma unroll
    for (int offset = kShare / 2; offset > 0; offset /= 2) {
#pragma unroll
      for (int k = 0; k < 2 * kSums; ++k) {
        const A other = __shfl_xor_sync(~0u, lines[k % 2][k / 2], offset);
        if (offset < group) lines[k % 2][k / 2] += other;
      }
    }
    if ((share & (group - 1)) == 0 && first_pair + pair < pairs_) {
      keep(first_pair + pair, (thread / kWarp * kWarp >> t_.lanes_shift) + slot, lines);
    }
    __syncwarp();
  }

  // Keeps the warp's sums of the two rows of a pair.
  PSR_DEVICE void keep(int pair, int slot, const A (&lines)[2][kSums]) const {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int i = kFiltered ? (pair << t_.span_shift) + 2 * slot + e
                              : (2 * pair + e) * t_.slots() + slot;
      if (!kFiltered && i >= place_.count) continue;
      A* to = rows_ + (i * t_.warps_along() + place_.lane / kWarp) * kSums;
#pragma unroll
      for (int k = 0; k < kSums; ++k) to[k] = lines[e][k];
    }
  }

  const Tiles& t_;
  const Place<W>& place_;
  A* const rows_;
  Couple* next_;
  unsigned pairs_ = 0;
};

template <class C>
class Backward {
  using T = typename C::T;
  using A = typename C::A;
  static constexpr int W = C::W;
  using Numbers = Operands<T, W, C::kStyle, C::kPlanes>;

 public:
  // What is summed along rows goes through shared memory, sums of columns stay in registers.
  static constexpr int kChannelSums = C::kStyle ? 3 : 2;
  static constexpr int kColumnSums = C::kPlanes ? 1 : kChannelSums;
  static constexpr int kRowSums = C::kPlanes ? kChannelSums : 1;
  using Rows = RowSums<A, kRowSums, C::kWalk == Walk::filtered, W>;

  struct Loaded {
    Raw<T, W> dy, dys;
    typename Numbers::Row row;
  };

  PSR_DEVICE Backward(const StyleEpilogueArgs& a, const Tiles& t, const Place<W>& place,
                      const Response<A>& response, A* shared, int buffer_size)
      : a_(a), t_(t), place_(place), operands_(a, place, A(1)), response_(response),
        shared_(shared), rows_(t, place, shared, shared + buffer_size) {}

  PSR_DEVICE void load(Loaded& to, bool inside, int64_t i, int64_t at) const {
    to.row = operands_.row(i, inside);
    if (C::kStyle) to.dy = Raw<T, W>{};
    if (inside && (!C::kStyle || a_.dy != nullptr)) to.dy = read<T, W>(a_.dy, at);
    if (C::kStyle && inside && a_.dys != nullptr) to.dys = read<T, W>(a_.dys, at);
  }

  PSR_DEVICE void use(const Pair& which, const A (&c)[2][W], const Loaded* loaded) {
    A lines[2][kRowSums] = {};
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      if (which.inside[e]) add(which.at[e], c[e], loaded[e], lines[e]);
    }
    if (sums_rows(a_)) rows_.put_aside(lines);
  }

  PSR_DEVICE void finish(const Sums<A>& to) {
    if (sums_rows(a_)) rows_.write(a_, C::kPlanes ? to.channels : &to.pixels);
    write_columns(C::kPlanes ? &to.pixels : to.channels);
  }

  // Accumulators of shared memory before the sums of rows: what is put aside, later the columns.
  static int buffer_size(const StyleEpilogueArgs& a, const Tiles& t) {
    const int columns = (t.lanes() < kWarp ? kThreads / kWarp : t.slots()) * t.lanes() * W;
    return sums_rows(a) && Rows::kAside > columns ? Rows::kAside : columns;
  }

  static size_t shared_bytes(const StyleEpilogueArgs& a, const Tiles& t) {
    return (buffer_size(a, t) + (sums_rows(a) ? Rows::size(t) : 0)) * sizeof(A);
  }

 private:
  PSR_HD static bool sums_rows(const StyleEpilogueArgs& a) {
    return C::kPlanes || a.du != nullptr;
  }

  // One row: writes dc, adds to the sums of the columns and to those of the row, `line`.
  PSR_DEVICE void add(int64_t at, const A (&c)[W], const Loaded& from, A (&line)[kRowSums]) {
    A u[W], y[W], slope[W], g[W], out[W];
#pragma unroll
    for (int j = 0; j < W; ++j) u[j] = operands_.u(j, from.row, c[j]);
    response_.values_and_slopes(u, y, slope);
    unpack(from.dy, g);
    if constexpr (C::kStyle) {
      if (a_.dys != nullptr) {
        A gs[W];
        unpack(from.dys, gs);
#pragma unroll
        for (int j = 0; j < W; ++j) {
          g[j] += operands_.s(j, from.row) * gs[j];
          channel(2, j, line) += gs[j] * y[j];
        }
      }
    }
#pragma unroll
    for (int j = 0; j < W; ++j) {
      const A du = g[j] * slope[j];
      channel(0, j, line) += du * c[j];
      channel(1, j, line) += du;
      (C::kPlanes ? columns_[0][j] : line[0]) += du;
      out[j] = du * operands_.d(j, from.row);
    }
    write<T>(a_.dc, at, out);
  }

  PSR_DEVICE A& channel(int k, int j, A (&line)[kRowSums]) {
    if constexpr (C::kPlanes) return line[k];
    else return columns_[k][j];
  }

  // Adds up the columns over the slots and writes them, one of `to` for each kind, as
  // [n, tiles, cols].
  PSR_DEVICE void write_columns(A* const* to) {
    const int lanes = t_.lanes(), columns = lanes * W, thread = threadIdx.x;
    const int groups = lanes < kWarp ? kThreads / kWarp : t_.slots();
    const int group = lanes < kWarp ? thread / kWarp : place_.slot;
    const int64_t first = static_cast<int64_t>(place_.chunk) * t_.chunk * W;
    const int64_t start = (place_.n * t_.tiles + place_.tile) * t_.cols + first;
#pragma unroll
    for (int k = 0; k < kColumnSums; ++k) {
      if (to[k] == nullptr) continue;
#pragma unroll
      for (int j = 0; j < W; ++j) {
        for (int offset = kWarp / 2; offset >= lanes; offset /= 2) {
          columns_[k][j] += __shfl_xor_sync(~0u, columns_[k][j], offset);
        }
      }
      __syncthreads();
      if (thread % kWarp < lanes) {
#pragma unroll
        for (int j = 0; j < W; ++j) {
          shared_[group * columns + place_.lane * W + j] = columns_[k][j];
        }
      }
      __syncthreads();
      for (int i = thread; i < t_.chunk * W && first + i < t_.cols; i += kThreads) {
        A sum = A(0);
#pragma unroll 1
        for (int g = 0; g < groups; ++g) sum += shared_[g * columns + i];
        to[k][start + i] = sum;
      }
    }
  }

  const StyleEpilogueArgs& a_;
  const Tiles& t_;
  const Place<W>& place_;
  const Numbers operands_;
  const Response<A>& response_;
  A* const shared_;
  Rows rows_;
  A columns_[kColumnSums][W] = {};
};

template <class C>
__global__ void __launch_bounds__(kThreads, 2)
    style_epilogue_backward_kernel(StyleEpilogueArgs a, Tiles tiles,
                                   Response<typename C::A> response, Sums<typename C::A> sums,
                                   int buffer_size) {
  constexpr bool filtered = C::kWalk == Walk::filtered;
  PSR_DYNAMIC_SHARED(typename C::A, shared);
  const Place<C::W> place(a, tiles, filtered);
  Backward<C> pass(a, tiles, place, response, shared, buffer_size);
  if constexpr (filtered) {
    walk_filtered<typename C::T, kBuffers>(a, tiles, place, pass);
  } else {
    walk_rows<typename C::T, kAhead>(a, tiles, place, pass);
  }
  pass.finish(sums);
}

// One set of sums to add up: [n, parts, length] into [n, length].
template <class A>
struct Addition {
  const A* from;
  A* to;
  int64_t length;
  int32_t parts, slots_shift;     // slots: threads that share a sum
  unsigned blocks, sample_blocks;
};

template <class A>
struct Additions {
  Addition<A> each[4];
};

template <class A>
__global__ void __launch_bounds__(kThreads) add_parts_kernel(Additions<A> additions) {
  PSR_DYNAMIC_SHARED(A, shared);
  unsigned block = blockIdx.x, which = 0;
  while (block >= additions.each[which].blocks) block -= additions.each[which++].blocks;
  const Addition<A>& job = additions.each[which];
  const int slots = 1 << job.slots_shift, across = kThreads >> job.slots_shift;
  const int slot = threadIdx.x / across;
  const int64_t n = block / job.sample_blocks;
  const int64_t i = (block % job.sample_blocks) * static_cast<int64_t>(across) +
                    threadIdx.x % across;
  A sum = A(0);
  if (i < job.length) {
    const A* from = job.from + n * job.parts * job.length + i;
#pragma unroll 16
    for (int part = slot; part < job.parts; part += slots) sum += from[part * job.length];
  }
  for (int half = slots / 2; half > 0; half /= 2) {
    shared[threadIdx.x] = sum;
    __syncthreads();
    if (slot < half) sum += shared[threadIdx.x + half * across];
    __syncthreads();
  }
  if (slot == 0 && i < job.length) job.to[n * job.length + i] = sum;
}

// How the work is divided, and where its sums go.
template <class C>
struct Plan {
  using A = typename C::A;
  Tiles tiles;
  int64_t channel_parts, pixel_parts, used = 0;
  Sums<A> sums{};
  Additions<A> additions{};
  int jobs = 0;

  explicit Plan(const StyleEpilogueArgs& a) {
    using Pass = Backward<C>;
    tiles = make_tiles<typename C::T, C::W, C::kWalk>(a, Pass::kRowSums * sizeof(A),
                                                      Pass::Rows::kPairs);
    channel_parts = C::kPlanes ? tiles.chunks : tiles.tiles;
    pixel_parts = C::kPlanes ? tiles.tiles : tiles.chunks;
    void* const outs[] = {a.dd, a.db, a.ds};
    for (int k = 0; k < 3; ++k) sums.channels[k] = place(a, outs[k], channel_parts, a.c);
    sums.pixels = place(a, a.du, pixel_parts, a.h * a.w);
  }

  // The output itself where there is nothing to add up, else a piece of the workspace.
  A* place(const StyleEpilogueArgs& a, void* out, int64_t parts, int64_t length) {
    if (out == nullptr || parts == 1) return static_cast<A*>(out);
    A* from = static_cast<A*>(a.workspace) + used;
    used += a.n * parts * length;
    Addition<A>& job = additions.each[jobs++];
    job.from = from;
    job.to = static_cast<A*>(out);
    job.length = length;
    job.parts = static_cast<int32_t>(parts);
    while (job.slots_shift < 6 && (8 << job.slots_shift) < parts) ++job.slots_shift;
    job.sample_blocks = static_cast<unsigned>(ceil_div(length, kThreads >> job.slots_shift));
    job.blocks = static_cast<unsigned>(a.n) * job.sample_blocks;
    return from;
  }
};

template <class C>
int launch(const StyleEpilogueArgs& a, cudaStream_t stream) {
  using A = typename C::A;
  const Plan<C> plan(a);
  const int buffer = Backward<C>::buffer_size(a, plan.tiles);
  PSR_LAUNCH((style_epilogue_backward_kernel<C>), grid_of(a, plan.tiles), dim3(kThreads),
             Backward<C>::shared_bytes(a, plan.tiles), stream, a, plan.tiles, Response<A>(a),
             plan.sums, buffer);
  unsigned blocks = 0;
  for (int i = 0; i < plan.jobs; ++i) blocks += plan.additions.each[i].blocks;
  if (blocks > 0) {
    PSR_LAUNCH((add_parts_kernel<A>), dim3(blocks), dim3(kThreads), kThreads * sizeof(A), stream,
               plan.additions);
  }
  return cudaGetLastError();
}

}  // namespace
}  // namespace psr

int psr_style_epilogue_backward_cuda(const psr::StyleEpilogueArgs* args, void* stream) {
  return psr::choose(*args, [&](auto config) {
    return psr::launch<decltype(config)>(*args, static_cast<cudaStream_t>(stream));
  });
}

int64_t psr_style_epilogue_workspace(const psr::StyleEpilogueArgs* args) {
  return psr::choose(*args, [&](auto config) { return psr::Plan<decltype(config)>(*args).used; });
}
