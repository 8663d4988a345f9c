// Warp operations: which lanes have met, and what each gets. Runs when all lanes of a warp wait.
#pragma once

#include "emu_state.h"

#pragma GCC visibility push(hidden)

namespace psr_emu {

// Whether all lanes that `first` waits for wait in the same operation with the same mask. Lanes
// that ended, or never existed, are not waited for.
inline bool Engine::group_complete(const Warp& warp, const Fiber& first, unsigned group) const {
    if ((warp.waiting & group) != group) return false;
    const Fiber* lanes = &first - first.lane;
    for (unsigned rest = group; rest; rest &= rest - 1) {
        const Fiber& fiber = lanes[__builtin_ctz(rest)];
        if (fiber.wait != first.wait || fiber.mask != first.mask) return false;
    }
    return true;
}

// Named lanes that have ended count as arrived, unless they went through another warp operation
// while this group was waiting for them: then the masks do not fit together.
inline void Engine::check_ended(const Warp& warp, const Fiber& first, unsigned group) {
    const Fiber* lanes = &first - first.lane;
    for (unsigned gone = first.mask & warp.lanes & ~warp.alive; gone; gone &= gone - 1) {
        const Fiber& other = lanes[__builtin_ctz(gone)];
        for (unsigned rest = group; rest; rest &= rest - 1) {
            const Fiber& fiber = lanes[__builtin_ctz(rest)];
            if (other.released < fiber.entered) continue;
            return fail(cudaErrorLaunchFailure,
                        "inconsistent masks: %s at %s:%d: thread (%u,%u,%u), lane %d, waits with "
                        "mask 0x%08x; its lane %d went through another warp operation and ended",
                        wait_name(fiber.wait), fiber.site.file_name(), fiber.site.line,
                        fiber.thread.x, fiber.thread.y, fiber.thread.z, fiber.lane, fiber.mask,
                        other.lane);
        }
    }
}

inline void Engine::finish_group(const Warp& warp, unsigned group, Wait wait) {
    Fiber* lanes = &fibers[(&warp - warps) * 32];
    if (wait == Wait::syncwarp) return;
    const bool votes_only = wait == Wait::ballot || wait == Wait::any || wait == Wait::all;
    unsigned ballot = 0;
    for (unsigned rest = group; rest; rest &= rest - 1) {
        Fiber& fiber = lanes[__builtin_ctz(rest)];
        if (votes_only) {
            ballot |= unsigned(fiber.value != 0) << fiber.lane;
            continue;
        }
        if (!(group >> fiber.source & 1)) {
            const bool named = fiber.mask >> fiber.source & 1;
            return fail(cudaErrorLaunchFailure,
                        "%s at %s:%d: thread (%u,%u,%u), lane %d, reads from lane %d, which %s",
                        wait_name(wait), fiber.site.file_name(), fiber.site.line, fiber.thread.x,
                        fiber.thread.y, fiber.thread.z, fiber.lane, fiber.source,
                        named ? "has ended or does not exist" : "the mask does not name");
        }
        fiber.result = lanes[fiber.source].value;
    }
    if (!votes_only) return;
    const uint64_t result = wait == Wait::ballot ? ballot
                            : wait == Wait::any  ? ballot != 0
                                                 : ballot == group;
    for (unsigned rest = group; rest; rest &= rest - 1) lanes[__builtin_ctz(rest)].result = result;
}

inline void Engine::release_groups(Warp& warp) {
    Fiber* lanes = &fibers[(&warp - warps) * 32];
    for (unsigned rest = warp.waiting; rest; rest &= rest - 1) {
        Fiber& first = lanes[__builtin_ctz(rest)];
        if (first.wait == Wait::activemask || !(warp.waiting >> first.lane & 1)) continue;
        const unsigned group = first.mask & warp.alive;
        if (!group_complete(warp, first, group)) continue;
        check_ended(warp, first, group);
        if (!failed) finish_group(warp, group, first.wait);
        if (failed) return;
        for (unsigned left = group; left; left &= left - 1)
            lanes[__builtin_ctz(left)].released = pass_number;
        warp.waiting &= ~group;
        warp.ready |= group;
    }
    if (!warp.ready) release_active(warp);
}

// __activemask: the lanes that reach the same line before all others of the warp wait or end.
inline void Engine::release_active(Warp& warp) {
    Fiber* lanes = &fibers[(&warp - warps) * 32];
    const Fiber* first = nullptr;
    unsigned group = 0;
    for (unsigned rest = warp.waiting; rest; rest &= rest - 1) {
        Fiber& fiber = lanes[__builtin_ctz(rest)];
        if (fiber.wait != Wait::activemask) continue;
        if (!first) first = &fiber;
        if (fiber.site == first->site) group |= 1u << fiber.lane;
    }
    for (unsigned rest = group; rest; rest &= rest - 1) lanes[__builtin_ctz(rest)].result = group;
    warp.waiting &= ~group;
    warp.ready |= group;
}

}  // namespace psr_emu

#pragma GCC visibility pop
