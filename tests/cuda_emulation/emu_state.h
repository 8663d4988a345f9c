// The state of the emulation: the threads of one block, their warps, and the launch they are in.
#pragma once

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "emu_api.h"
#include "emu_fiber.h"
#include "emu_shared.h"

#pragma GCC visibility push(hidden)

namespace psr_emu {

struct Site {
    const char* file;
    int line;
    bool operator==(const Site& o) const { return line == o.line && file == o.file; }
    const char* file_name() const {
        const char* slash = std::strrchr(file, '/');
        return slash ? slash + 1 : file;
    }
};

enum class Wait : unsigned char {
    start, ended,
    barrier, barrier_or, barrier_and, barrier_count,
    syncwarp, shfl, shfl_up, shfl_down, shfl_xor, ballot, any, all, activemask,
};

inline const char* wait_name(Wait wait) {
    static const char* const names[] = {
        "start", "end", "__syncthreads", "__syncthreads_or", "__syncthreads_and",
        "__syncthreads_count", "__syncwarp", "__shfl_sync", "__shfl_up_sync", "__shfl_down_sync",
        "__shfl_xor_sync", "__ballot_sync", "__any_sync", "__all_sync", "__activemask",
    };
    return names[static_cast<int>(wait)];
}

struct Warp {
    unsigned lanes, alive, ready, waiting;  // sets of lanes; waiting: in a warp operation
};

struct Fiber {
    Context context;
    uint3 thread;
    Warp* warp;
    int lane;
    Wait wait;
    unsigned mask;           // of the warp operation
    int source;              // lane that a shuffle reads
    uint64_t value, result;  // of the warp operation, by lane
    uint64_t entered;        // number of the pass in which the lane entered its warp operation
    uint64_t released;       // number of the pass after which it left its last one
    Site site;
};

struct Engine {
    // What a kernel reads.
    Fiber* current = nullptr;
    uint3 block_index{};
    dim3 block_size, grid_size;
    SharedMemory shared;

    // The launch.
    const char* kernel_name = "";
    void (*kernel)(const void*) = nullptr;
    const void* arguments = nullptr;
    int order = 0;  // 0: forward, 1: reverse, others: random
    uint64_t random_state = 1;

    // The error that is reported, and whether the present launch has one.
    cudaError_t error = cudaSuccess;
    char message[1024] = "";
    bool failed = false;

    // The block: its threads, and the segment between two barriers.
    Stacks stacks;
    Context main_context;
    Fiber fibers[max_threads];
    Warp warps[max_threads / 32];
    Warp* warp_order[max_threads / 32];
    Fiber* pass[32];
    int threads = 0, warp_count = 0;
    int ended = 0, at_barrier = 0, votes = 0;
    int barrier_result = 0;
    int warp_position = 0, pass_position = 0, pass_length = 0;
    uint64_t pass_number = 0;  // counts on over blocks and launches

    unsigned random(unsigned bound) {
        random_state ^= random_state << 13;
        random_state ^= random_state >> 7;
        random_state ^= random_state << 17;
        return static_cast<unsigned>((random_state >> 32) * bound >> 32);
    }
    bool random_order() const { return order != 0 && order != 1; }

    void fail(cudaError_t code, const char* format, ...) __attribute__((format(printf, 3, 4)));
    void order_warps();
    void start_pass(Warp& warp);
    bool group_complete(const Warp& warp, const Fiber& first, unsigned group) const;
    void check_ended(const Warp& warp, const Fiber& first, unsigned group);
    void finish_group(const Warp& warp, unsigned group, Wait wait);
    void release_groups(Warp& warp);
    void release_active(Warp& warp);
    bool finish_segment();
    void report_stall();
    Fiber* next_fiber();
    void suspend();
    void start_block();
    bool run_block();
};

inline Engine engine;

// Keeps the first error: later ones are often its consequences.
inline void Engine::fail(cudaError_t code, const char* format, ...) {
    failed = true;
    if (error != cudaSuccess) return;
    error = code;
    int used = std::snprintf(message, sizeof message, "%s, block (%u,%u,%u): ", kernel_name,
                             block_index.x, block_index.y, block_index.z);
    if (used < 0 || used >= static_cast<int>(sizeof message)) return;
    va_list values;
    va_start(values, format);
    std::vsnprintf(message + used, sizeof message - used, format, values);
    va_end(values);
}

}  // namespace psr_emu

#pragma GCC visibility pop
