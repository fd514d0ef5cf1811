#define _GNU_SOURCE
#include "tests/cuda_host/fibers.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#endif

#ifdef WITH_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
enum { STACK_BYTES = 1024 * 1024 };
#else
enum { STACK_BYTES = 256 * 1024 };
#endif

/* ------------------------------------------------------------------------------------ switch -- */

/* switch_stacks(&from, to): pushes what a called function has to preserve, leaves the stack pointer in from, takes that
 * of to and pops the same from there. */
#if defined(__x86_64__)
void switch_stacks(void **from, void *to) __attribute__((visibility("hidden")));
__asm__(".text\n"
        ".globl switch_stacks\n"
        ".hidden switch_stacks\n"
        ".type switch_stacks, @function\n"
        "switch_stacks:\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    ret\n"
        ".size switch_stacks, . - switch_stacks\n");

/* The stack as switch_stacks() would have left it on its way to entry(): six registers, where to return to, and the
 * place of entry()'s own return address, which makes the alignment right. */
static void *first_frame(char *top, void (*entry)(void))
{
    uintptr_t *frame = (uintptr_t *)(void *)top - 8;
    memset(frame, 0, 8 * sizeof *frame);
    frame[6] = (uintptr_t)entry;
    return frame;
}
#elif defined(__aarch64__)
void switch_stacks(void **from, void *to) __attribute__((visibility("hidden")));
__asm__(".text\n"
        ".globl switch_stacks\n"
        ".hidden switch_stacks\n"
        ".type switch_stacks, %function\n"
        "switch_stacks:\n"
        "    sub sp, sp, #160\n"
        "    stp x19, x20, [sp]\n"
        "    stp x21, x22, [sp, #16]\n"
        "    stp x23, x24, [sp, #32]\n"
        "    stp x25, x26, [sp, #48]\n"
        "    stp x27, x28, [sp, #64]\n"
        "    stp x29, x30, [sp, #80]\n"
        "    stp d8, d9, [sp, #96]\n"
        "    stp d10, d11, [sp, #112]\n"
        "    stp d12, d13, [sp, #128]\n"
        "    stp d14, d15, [sp, #144]\n"
        "    mov x9, sp\n"
        "    str x9, [x0]\n"
        "    mov sp, x1\n"
        "    ldp x19, x20, [sp]\n"
        "    ldp x21, x22, [sp, #16]\n"
        "    ldp x23, x24, [sp, #32]\n"
        "    ldp x25, x26, [sp, #48]\n"
        "    ldp x27, x28, [sp, #64]\n"
        "    ldp x29, x30, [sp, #80]\n"
        "    ldp d8, d9, [sp, #96]\n"
        "    ldp d10, d11, [sp, #112]\n"
        "    ldp d12, d13, [sp, #128]\n"
        "    ldp d14, d15, [sp, #144]\n"
        "    add sp, sp, #160\n"
        "    ret\n"
        ".size switch_stacks, . - switch_stacks\n");

/* Twenty registers, of which the twelfth, x30, is where to return to. */
static void *first_frame(char *top, void (*entry)(void))
{
    uintptr_t *frame = (uintptr_t *)(void *)top - 20;
    memset(frame, 0, 20 * sizeof *frame);
    frame[11] = (uintptr_t)entry;
    return frame;
}
#else
#include <ucontext.h>

/* The context lies at the top of the stack; the first fiber's is allocated, once. */
static void *first_frame(char *top, void (*entry)(void))
{
    ucontext_t *context = (ucontext_t *)(void *)top - 1;
    char *stack = top - STACK_BYTES / 2;
    getcontext(context);
    context->uc_stack.ss_sp = stack;
    context->uc_stack.ss_size = (size_t)((char *)context - stack);
    context->uc_link = NULL;
    makecontext(context, entry, 0);
    return context;
}

static void switch_stacks(void **from, void *to)
{
    if (!*from)
        *from = calloc(1, sizeof(ucontext_t));
    swapcontext(*from, to);
}
#endif

/* ------------------------------------------------------------------------------------ fibers -- */

static struct fiber *switched_from;

bool fiber_make(struct fiber *f, void (*entry)(void), int number)
{
    if (!f->stack) {
        size_t page = (size_t)sysconf(_SC_PAGESIZE);
        char *whole = mmap(NULL, page + STACK_BYTES, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
        if (whole == MAP_FAILED)
            return false;
        if (mprotect(whole, page, PROT_NONE) != 0) {
            munmap(whole, page + STACK_BYTES);
            return false;
        }
        f->stack = whole + page;
        f->size = STACK_BYTES;
    }
#ifdef WITH_ASAN
    __asan_unpoison_memory_region(f->stack, f->size); /* what was abandoned there has left its red zones */
    f->fake = NULL;
#endif
    f->at = first_frame(f->stack + f->size - number % 16 * 256, entry);
    return true;
}

#ifdef WITH_ASAN
/* Tells the sanitizer that a switch has ended. Where the stack of the first fiber is, nobody else knows. */
static void switch_ended(void *fake)
{
    const void *stack;
    size_t size;
    __sanitizer_finish_switch_fiber(fake, &stack, &size);
    if (!switched_from->stack) {
        switched_from->stack = (char *)(uintptr_t)stack;
        switched_from->size = size;
    }
}
#endif

void fiber_switch(struct fiber *from, struct fiber *to)
{
    switched_from = from;
#ifdef WITH_ASAN
    __sanitizer_start_switch_fiber(&from->fake, to->stack, to->size);
    switch_stacks(&from->at, to->at);
    switch_ended(from->fake);
#else
    switch_stacks(&from->at, to->at);
#endif
}

void fiber_begun(void)
{
#ifdef WITH_ASAN
    switch_ended(NULL);
#endif
}
