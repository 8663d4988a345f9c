// Launches: limits, the loop over the blocks, errors, and the functions that tests call.
#pragma once

#include <cstdlib>
#include <mutex>
#include <tuple>
#include <vector>

#include "emu_engine.h"

#pragma GCC visibility push(hidden)

namespace psr_emu {

inline std::mutex launch_mutex;  // one launch at a time: a library has one engine

struct SharedLimit {
    const void* kernel;
    size_t dynamic_bytes;
};
inline std::vector<SharedLimit> shared_limits;  // what cudaFuncSetAttribute allowed
inline bool order_is_set = false;

struct Launch {
    const char* name;
    const void* kernel;
    dim3 grid, block;
    size_t shared_bytes;
};

inline bool valid_configuration(const dim3& grid, const dim3& block) {
    const uint64_t threads = uint64_t(block.x) * block.y * block.z;
    return grid.x && grid.y && grid.z && threads && grid.x <= max_grid_x &&
           grid.y <= max_grid_yz && grid.z <= max_grid_yz && block.x <= max_threads &&
           block.y <= max_threads && block.z <= max_block_z && threads <= max_threads;
}

inline size_t dynamic_limit(const void* kernel) {
    for (const SharedLimit& limit : shared_limits)
        if (limit.kernel == kernel) return limit.dynamic_bytes;
    return default_shared;
}

inline bool check_limits(const Launch& launch) {
    const dim3 &g = launch.grid, &b = launch.block;
    if (!valid_configuration(g, b)) {
        engine.fail(cudaErrorInvalidConfiguration,
                    "invalid configuration: grid (%u,%u,%u), block (%u,%u,%u)", g.x, g.y, g.z, b.x,
                    b.y, b.z);
        return false;
    }
    const size_t limit = dynamic_limit(launch.kernel);
    if (launch.shared_bytes > limit)
        engine.fail(cudaErrorInvalidValue,
                    "%zu bytes of dynamic shared memory; this kernel may have %zu "
                    "(cudaFuncSetAttribute allows up to %zu)",
                    launch.shared_bytes, limit, max_shared);
    return !engine.failed;
}

// Static arrays count too. Which of the library's arrays a kernel owns is not known, so this
// counts what its block wrote, where the library's total would be too much.
inline bool check_static_shared(const Launch& launch) {
    const size_t dynamic = launch.shared_bytes;
    const bool opted_in = dynamic_limit(launch.kernel) > default_shared;
    const size_t limit = opted_in ? max_shared : default_shared;
    const size_t total = engine.shared.static_total();
    if (total + dynamic <= limit && total <= default_shared) return true;
    const size_t written = engine.shared.static_written();
    if (written + dynamic > limit || written > default_shared)
        engine.fail(cudaErrorInvalidValue,
                    "%zu bytes of static shared memory written, %zu dynamic: more than the "
                    "%zu (static: %zu) that a block may have",
                    written, dynamic, limit, default_shared);
    return !engine.failed;
}

inline uint64_t common_divisor(uint64_t a, uint64_t b) { return b ? common_divisor(b, a % b) : a; }

// Blocks run in the same kind of order as threads: block (step i + start) mod count.
inline void run_blocks(const Launch& launch) {
    const dim3& grid = launch.grid;
    const uint64_t count = uint64_t(grid.x) * grid.y * grid.z;
    uint64_t start = engine.order == 1 ? count - 1 : 0;
    uint64_t step = engine.order == 1 ? count - 1 : 1;
    if (engine.random_order()) {
        const unsigned bound = count < max_grid_x ? unsigned(count) : max_grid_x;
        start = engine.random(bound);
        do step = engine.random(bound) + 1;
        while (common_divisor(count, step) != 1);
    }
    for (uint64_t i = 0, number = start; i < count; ++i) {
        engine.block_index = {unsigned(number % grid.x), unsigned(number / grid.x % grid.y),
                              unsigned(number / grid.x / grid.y)};
        if (!engine.run_block() || !check_static_shared(launch)) return;
        number = number + step < count ? number + step : number + step - count;
    }
}

inline void run_launch(const Launch& launch, void (*kernel)(const void*), const void* arguments) {
    const std::lock_guard<std::mutex> lock(launch_mutex);
    if (!order_is_set) {
        const char* order = std::getenv("PSR_EMULATION_ORDER");
        engine.order = order ? std::atoi(order) : 0;
        order_is_set = true;
    }
    engine.random_state = (uint64_t(unsigned(engine.order)) + 1) * 0x9E3779B97F4A7C15u;
    engine.failed = false;
    if (engine.error == cudaSuccess) engine.message[0] = 0;
    engine.kernel_name = launch.name;
    engine.kernel = kernel;
    engine.arguments = arguments;
    engine.block_index = {};
    engine.block_size = launch.block;
    engine.grid_size = launch.grid;
    if (!check_limits(launch)) return;
    engine.shared.begin_launch(launch.shared_bytes);
    if (engine.shared.has_initial_values())
        return engine.fail(cudaErrorInvalidValue, "a __shared__ variable has an initial value");
    run_blocks(launch);
}

// Takes the arguments with the kernel's own parameter types, so that they convert as in CUDA.
template <class... Parameters>
struct Launcher {
    void (*kernel)(Parameters...);
    Launch launch;

    void operator()(Parameters... values) const {
        using Call = std::tuple<void (*)(Parameters...), std::tuple<Parameters...>>;
        const Call call{kernel, std::tuple<Parameters...>(values...)};
        const auto run = [](const void* pointer) {
            const Call& call = *static_cast<const Call*>(pointer);
            std::apply(std::get<0>(call), std::get<1>(call));
        };
        run_launch(launch, run, &call);
    }
};

template <class... Parameters>
Launcher<Parameters...> launcher(const char* name, void (*kernel)(Parameters...), dim3 grid,
                                 dim3 block, size_t shared_bytes, cudaStream_t) {
    return {kernel, {name, reinterpret_cast<const void*>(kernel), grid, block, shared_bytes}};
}

inline cudaError_t set_shared_limit(const void* kernel, int bytes) {
    if (bytes < 0 || size_t(bytes) > max_shared) return cudaErrorInvalidValue;
    const std::lock_guard<std::mutex> lock(launch_mutex);
    for (SharedLimit& limit : shared_limits)
        if (limit.kernel == kernel) {
            limit.dynamic_bytes = bytes;
            return cudaSuccess;
        }
    shared_limits.push_back({kernel, size_t(bytes)});
    return cudaSuccess;
}

inline cudaError_t last_error(bool clear) {
    const std::lock_guard<std::mutex> lock(launch_mutex);
    const cudaError_t error = engine.error;
    if (clear) engine.error = cudaSuccess;
    return error;
}

}  // namespace psr_emu

#pragma GCC visibility pop

static inline cudaError_t cudaGetLastError() { return psr_emu::last_error(true); }
static inline cudaError_t cudaPeekAtLastError() { return psr_emu::last_error(false); }

template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute attribute, int value) {
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
    return psr_emu::set_shared_limit(reinterpret_cast<const void*>(kernel), value);
}

// What happened in the last launch that failed; empty if the last launch succeeded (and no error
// of an earlier one waits for cudaGetLastError).
extern "C" __attribute__((used, visibility("default"))) inline const char* psr_emulation_error() {
    return psr_emu::engine.message;
}

// 0: threads and blocks run in ascending order; 1: descending; any other: a seed of random orders.
// The environment variable PSR_EMULATION_ORDER sets it too, this function has the last word.
extern "C" __attribute__((used, visibility("default"))) inline void psr_emulation_set_order(
    int seed) {
    psr_emu::engine.order = seed;
    psr_emu::order_is_set = true;
}
