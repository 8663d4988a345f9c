// Fibers: one machine context and one stack per thread of a block.
//
// swapcontext saves the signal mask with a system call at each switch, so x86-64 and aarch64 have
// a switch of their own that saves only what a function call must preserve. Other machines, or
// -DPSR_EMULATION_UCONTEXT, use ucontext. On x86-64 it ends in a jump: a return is predicted to go
// back where the last call came from, which in another fiber is mostly another place; this halves
// the time of a switch.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>

#if !defined(__x86_64__) && !defined(__aarch64__) && !defined(PSR_EMULATION_UCONTEXT)
#define PSR_EMULATION_UCONTEXT
#endif
#ifdef PSR_EMULATION_UCONTEXT
#include <ucontext.h>
#endif

#pragma GCC visibility push(hidden)

#if !defined(PSR_EMULATION_UCONTEXT)
// In a COMDAT section, so that several files of one library can include this header.
asm(".pushsection .text.psr_emu_switch,\"axG\",%progbits,psr_emu_switch,comdat\n"
    ".weak psr_emu_switch\n"
    ".hidden psr_emu_switch\n"
    ".type psr_emu_switch, %function\n"
    "psr_emu_switch:\n"
#if defined(__x86_64__)
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  popq %rax\n  jmp *%rax\n"
#else
    "  sub sp, sp, #160\n"
    "  stp x19, x20, [sp, #0]\n  stp x21, x22, [sp, #16]\n  stp x23, x24, [sp, #32]\n"
    "  stp x25, x26, [sp, #48]\n  stp x27, x28, [sp, #64]\n  stp x29, x30, [sp, #80]\n"
    "  stp d8, d9, [sp, #96]\n  stp d10, d11, [sp, #112]\n"
    "  stp d12, d13, [sp, #128]\n  stp d14, d15, [sp, #144]\n"
    "  mov x9, sp\n  str x9, [x0]\n"
    "  mov sp, x1\n"
    "  ldp x19, x20, [sp, #0]\n  ldp x21, x22, [sp, #16]\n  ldp x23, x24, [sp, #32]\n"
    "  ldp x25, x26, [sp, #48]\n  ldp x27, x28, [sp, #64]\n  ldp x29, x30, [sp, #80]\n"
    "  ldp d8, d9, [sp, #96]\n  ldp d10, d11, [sp, #112]\n"
    "  ldp d12, d13, [sp, #128]\n  ldp d14, d15, [sp, #144]\n"
    "  add sp, sp, #160\n"
    "  ret\n"
#endif
    ".size psr_emu_switch, .-psr_emu_switch\n"
    ".popsection\n");

// Pushes the registers, stores the stack pointer in *from and continues at the stack `to`.
extern "C" void psr_emu_switch(void** from, void* to);
#endif

namespace psr_emu {

#if defined(PSR_EMULATION_UCONTEXT)
struct Context {
    ucontext_t machine;

    void prepare(char* stack, size_t bytes, void (*entry)()) {
        getcontext(&machine);
        machine.uc_stack.ss_sp = stack;
        machine.uc_stack.ss_size = bytes;
        machine.uc_link = nullptr;
        makecontext(&machine, entry, 0);
    }
    void switch_to(Context& other) { swapcontext(&machine, &other.machine); }
};
#else
struct Context {
    void* stack_pointer;

    // Builds the frame that psr_emu_switch pops: all registers zero, then a return into `entry`.
    void prepare(char* stack, size_t bytes, void (*entry)()) {
        void** top = reinterpret_cast<void**>(stack + bytes);
#if defined(__x86_64__)
        constexpr int words = 8, entry_word = 6;  // 6 registers, entry, entry's return address
#else
        constexpr int words = 20, entry_word = 11;  // x19..x28, x29, x30 = entry, d8..d15
#endif
        void** frame = top - words;
        for (int i = 0; i < words; ++i) frame[i] = nullptr;
        frame[entry_word] = reinterpret_cast<void*>(entry);
        stack_pointer = frame;
    }
    void switch_to(Context& other) { psr_emu_switch(&stack_pointer, other.stack_pointer); }
};
#endif

// The stacks of all fibers, made at their first use and kept for later blocks and launches. A gap
// without access rights below each stack turns an overflow into a segmentation fault.
class Stacks {
  public:
    static constexpr size_t stack_bytes = 64 * 1024;
    static constexpr size_t gap = 64 * 1024;  // whole pages, also where a page has 64 KB

    void prepare(int index, Context& context, void (*entry)()) {
        if (index >= ready_) grow(index + 1);
        char* stack = base_ + index * (gap + stack_bytes) + gap;
        // Equal offsets in all stacks would compete for the same few cache sets.
        context.prepare(stack, stack_bytes - (index % 32) * 128, entry);
    }

  private:
    void grow(int count) {
        constexpr size_t stride = gap + stack_bytes, all = 1024 * stride;
        if (!base_) {
            void* memory = mmap(nullptr, all, PROT_NONE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            if (memory == MAP_FAILED) out_of_memory();
            base_ = static_cast<char*>(memory);
        }
        for (; ready_ < count; ++ready_) {
            char* stack = base_ + ready_ * stride + gap;
            if (mprotect(stack, stack_bytes, PROT_READ | PROT_WRITE) != 0) out_of_memory();
        }
    }

    [[noreturn]] static void out_of_memory() {
        std::fprintf(stderr, "cuda_emulation: no memory for the stacks of a block\n");
        std::abort();
    }

    char* base_ = nullptr;
    int ready_ = 0;
};

}  // namespace psr_emu

#pragma GCC visibility pop
