// The scheduler: runs the threads of one block as fibers, and makes barriers and warp operations.
//
// A warp's lanes run one after another, each until it waits or ends (a pass). When all have run,
// complete warp operations are released and the next pass starts; when none is complete, the next
// warp runs. When no warp can go on, either all threads stand at one barrier (the next segment
// starts), or all have ended, or the kernel is in error.
#pragma once

#include "emu_state.h"
#include "emu_warp.h"

#pragma GCC visibility push(hidden)

namespace psr_emu {

inline void Engine::order_warps() {
    for (int i = 0; i < warp_count; ++i) {
        warp_order[i] = &warps[order == 1 ? warp_count - 1 - i : i];
        if (!random_order()) continue;
        int j = random(i + 1);
        Warp* swapped = warp_order[i];
        warp_order[i] = warp_order[j];
        warp_order[j] = swapped;
    }
    warp_position = 0;
}

inline void Engine::start_pass(Warp& warp) {
    Fiber* lanes = &fibers[(&warp - warps) * 32];
    pass_length = pass_position = 0;
    // In random order, lane (a i + b) mod 32 with a odd: a permutation that can put any lane
    // before any other.
    unsigned factor = order == 1 ? 31 : 1, offset = order == 1 ? 31 : 0;
    if (random_order()) {
        factor = 2 * random(16) + 1;
        offset = random(32);
    }
    for (unsigned i = 0, lane = offset; i < 32; ++i, lane = (lane + factor) % 32)
        if (warp.ready >> lane & 1) pass[pass_length++] = &lanes[lane];
    warp.ready = 0;
    ++pass_number;
}

// Starts the next segment if all threads stand at the same barrier; false at the block's end.
inline bool Engine::finish_segment() {
    if (ended == threads) return false;
    bool together = at_barrier == threads;
    for (int i = 1; together && i < threads; ++i)
        together = fibers[i].wait == fibers[0].wait && fibers[i].site == fibers[0].site;
    if (!together) {
        report_stall();
        return false;
    }
    const Wait wait = fibers[0].wait;
    barrier_result = wait == Wait::barrier_or    ? votes > 0
                     : wait == Wait::barrier_and ? votes == threads
                                                 : votes;
    at_barrier = votes = 0;
    for (int i = 0; i < warp_count; ++i) warps[i].ready = warps[i].alive;
    order_warps();
    return true;
}

// Says where the threads stand, by groups that wait for the same thing.
inline void Engine::report_stall() {
    char text[800];
    int used = 0, shown = 0;
    bool counted[max_threads] = {};
    for (int i = 0; i < threads && shown < 6; ++i) {
        if (counted[i]) continue;
        const Fiber& first = fibers[i];
        int count = 0;
        for (int j = i; j < threads; ++j) {
            const Fiber& other = fibers[j];
            if (other.wait != first.wait || other.mask != first.mask) continue;
            if (!(other.site == first.site)) continue;
            counted[j] = true;
            ++count;
        }
        char mask[40] = "", site[160] = "";
        if (first.wait >= Wait::syncwarp && first.wait < Wait::activemask)
            std::snprintf(mask, sizeof mask, " with mask 0x%08x", first.mask);
        if (first.wait != Wait::ended)
            std::snprintf(site, sizeof site, " at %s:%d", first.site.file_name(), first.site.line);
        const bool done = first.wait == Wait::ended;
        used += std::snprintf(text + used, sizeof text - used,
                              "%s%d from thread (%u,%u,%u) on %s%s%s%s", shown++ ? "; " : "",
                              count, first.thread.x, first.thread.y, first.thread.z,
                              done ? "have ended" : "wait in ", done ? "" : wait_name(first.wait),
                              site, mask);
        if (used >= static_cast<int>(sizeof text)) break;
    }
    fail(cudaErrorLaunchFailure, "%s, threads do not meet: %s",
         at_barrier ? "barrier divergence" : "warp operation with lanes missing", text);
}

// The fiber to run now, null when the block is done or in error.
inline Fiber* Engine::next_fiber() {
    for (;;) {
        if (pass_position < pass_length) return pass[pass_position++];
        Warp& warp = *warp_order[warp_position];
        if (warp.waiting && !warp.ready) release_groups(warp);
        if (failed) return nullptr;
        if (warp.ready)
            start_pass(warp);
        else if (++warp_position == warp_count && !finish_segment())
            return nullptr;
    }
}

// Gives up the processor until the scheduler comes back to this fiber. Inlined, since a `ret` into
// another fiber than the one that called would be mispredicted at every switch.
__attribute__((always_inline)) inline void Engine::suspend() {
    Fiber* self = current;
    Fiber* next = pass_position < pass_length ? pass[pass_position++] : next_fiber();
    if (next == self) return;
    current = next;
    self->context.switch_to(next ? next->context : main_context);
}

inline void fiber_main() {
    engine.kernel(engine.arguments);
    Fiber& self = *engine.current;
    self.wait = Wait::ended;
    self.mask = 0;
    self.site = {};
    self.warp->alive &= ~(1u << self.lane);
    ++engine.ended;
    engine.suspend();
    __builtin_trap();  // an ended fiber is never resumed
}

// Ends the launch with an error from inside a kernel.
template <class... Values>
[[noreturn]] inline void abandon(cudaError_t code, const char* format, Values... values) {
    engine.fail(code, format, values...);
    Fiber* self = engine.current;
    engine.current = nullptr;
    self->context.switch_to(engine.main_context);
    __builtin_trap();
}

inline void Engine::start_block() {
    int index = 0;
    for (unsigned z = 0; z < block_size.z; ++z)
        for (unsigned y = 0; y < block_size.y; ++y)
            for (unsigned x = 0; x < block_size.x; ++x, ++index) {
                Fiber& fiber = fibers[index];
                stacks.prepare(index, fiber.context, &fiber_main);
                fiber.thread = {x, y, z};
                fiber.warp = &warps[index / 32];
                fiber.lane = index % 32;
                fiber.wait = Wait::start;
                fiber.mask = 0;
            }
    threads = index;
    warp_count = (threads + 31) / 32;
    for (int i = 0; i < warp_count; ++i) {
        const int lanes = threads - 32 * i;
        warps[i].lanes = lanes >= 32 ? ~0u : (1u << lanes) - 1;
        warps[i].alive = warps[i].ready = warps[i].lanes;
        warps[i].waiting = 0;
    }
    ended = at_barrier = votes = 0;
    pass_position = pass_length = 0;
    order_warps();
}

// False if the block failed.
inline bool Engine::run_block() {
    shared.poison();
    start_block();
    current = next_fiber();
    main_context.switch_to(current->context);
    ptrdiff_t offset = 0;
    if (!failed && shared.overwritten(offset))
        fail(cudaErrorLaunchFailure,
             "a write outside of dynamic shared memory, at byte %td of the buffer", offset);
    return !failed;
}

inline int barrier(Wait wait, bool vote, Site site) {
    Fiber& self = *engine.current;
    self.wait = wait;
    self.mask = 0;
    self.site = site;
    ++engine.at_barrier;
    engine.votes += vote;
    engine.suspend();
    return engine.barrier_result;
}

inline uint64_t warp_operation(Wait wait, unsigned mask, uint64_t value, int source, Site site) {
    Fiber& self = *engine.current;
    if (!(mask >> self.lane & 1))
        abandon(cudaErrorLaunchFailure,
                "%s at %s:%d: thread (%u,%u,%u), lane %d, is not named in its own mask 0x%08x",
                wait_name(wait), site.file_name(), site.line, self.thread.x, self.thread.y,
                self.thread.z, self.lane, mask);
    self.wait = wait;
    self.mask = mask;
    self.value = value;
    self.source = source;
    self.entered = engine.pass_number;
    self.site = site;
    self.warp->waiting |= 1u << self.lane;
    engine.suspend();
    return self.result;
}

}  // namespace psr_emu

#pragma GCC visibility pop
