// Shared memory of the block that runs: poisoned before it starts, guarded while it runs.
//
// Dynamic shared memory is a buffer between two guard zones. A static array is declared by the
// kernel itself, where a macro cannot learn its name; but `__shared__` makes it thread_local, and
// the linker gathers all thread_local variables of a library, those of templates and inline
// functions too, in one piece of memory whose place the dynamic loader tells.
#pragma once

#include <link.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "emu_api.h"

#pragma GCC visibility push(hidden)

namespace psr_emu {

inline thread_local unsigned char static_anchor;  // lies among the __shared__ variables

class SharedMemory {
  public:
    static constexpr unsigned char poison_byte = 0xFF;  // a NaN in every floating-point format

    void begin_launch(size_t dynamic_bytes) {
        bytes_ = dynamic_bytes;
        for (size_t i = 0; i < guard; ++i) pattern_[i] = i % 2 ? 0xFF : 0xFD;
        std::memcpy(memory_, pattern_, guard);
        std::memcpy(dynamic() + bytes_, pattern_, guard);
        find_statics();
    }

    void poison() {
        std::memset(dynamic(), poison_byte, bytes_);
        std::memset(statics(), poison_byte, static_bytes_);
    }

    // Whether a byte before or after the dynamic buffer was written; its offset in the buffer.
    bool overwritten(ptrdiff_t& offset) {
        const unsigned char* after = dynamic() + bytes_;
        if (std::memcmp(after, pattern_, guard) != 0) {
            size_t i = 0;
            while (after[i] == pattern_[i]) ++i;
            offset = ptrdiff_t(bytes_ + i);
            return true;
        }
        if (std::memcmp(memory_, pattern_, guard) != 0) {
            size_t i = guard - 1;
            while (memory_[i] == pattern_[i]) --i;
            offset = ptrdiff_t(i) - ptrdiff_t(guard);
            return true;
        }
        return false;
    }

    // The bytes of static shared memory that are no longer poison: a lower bound of what the last
    // block owned (the library's total may belong to several kernels).
    size_t static_written() const {
        size_t count = 0;
        for (size_t i = 0; i < static_bytes_; ++i) count += statics()[i] != poison_byte;
        return count;
    }

    size_t static_total() const { return static_bytes_; }
    bool has_initial_values() const { return initial_values_; }
    unsigned char* dynamic() { return memory_ + guard; }

  private:
    // Leaves the buffer aligned to 16 bytes but not to 32: CUDA promises no more to a kernel that
    // has static arrays as well.
    static constexpr size_t guard = 4096 - 16;

    unsigned char* statics() const { return &static_anchor - anchor_offset_; }

    void find_statics() {
        if (found_) return;
        static_anchor = 0;  // makes the loader create this thread's copy
        dl_iterate_phdr(&SharedMemory::visit, this);
        found_ = true;
    }

    static int visit(dl_phdr_info* library, size_t, void* self_pointer) {
        auto* self = static_cast<SharedMemory*>(self_pointer);
        uintptr_t start = reinterpret_cast<uintptr_t>(library->dlpi_tls_data);
        uintptr_t anchor = reinterpret_cast<uintptr_t>(&static_anchor);
        if (!start) return 0;
        for (int i = 0; i < library->dlpi_phnum; ++i) {
            const auto& segment = library->dlpi_phdr[i];
            if (segment.p_type != PT_TLS) continue;
            if (anchor < start || anchor >= start + segment.p_memsz) continue;
            self->static_bytes_ = segment.p_memsz;
            self->anchor_offset_ = anchor - start;
            self->initial_values_ = segment.p_filesz > 0;
            return 1;
        }
        return 0;
    }

    size_t bytes_ = 0, static_bytes_ = 0, anchor_offset_ = 0;
    bool found_ = false, initial_values_ = false;
    // 0xFFFD in 16-bit words: NaNs too, but unlike poison not what a stray -1 writes.
    unsigned char pattern_[guard];
    alignas(64) unsigned char memory_[guard + max_shared + guard];
};

}  // namespace psr_emu

#pragma GCC visibility pop
