/* fibers.h: threads of execution that run one at a time and hand over to each other by name: a switch costs a few
 * nanoseconds. Each has a stack with a guard page below it; under the address sanitizer, which is told of every switch,
 * a larger one. */
#ifndef GEUL_TESTS_FIBERS_H
#define GEUL_TESTS_FIBERS_H

#include <stdbool.h>
#include <stddef.h>

struct fiber {
    void *at;    /* the saved stack pointer (on machines without a switch of ours, a ucontext_t) */
    char *stack; /* lowest address above the guard page; NULL for the thread that the program began with */
    size_t size;
    void *fake; /* the address sanitizer's */
};

/* Gives f a stack, unless it has one, on which entry() begins at the first switch to it. entry() must not return. The
 * number chooses where on its first page the stack begins, so that stacks do not fall onto the same lines of the cache.
 * What ran on the stack before is abandoned. false: no memory. */
bool fiber_make(struct fiber *f, void (*entry)(void), int number);
/* Goes on in `to`; returns when somebody switches back to `from`, which is where the caller runs. entry() begins with
 * fiber_begun(), and the first fiber of all is any struct of zeros. */
void fiber_switch(struct fiber *from, struct fiber *to);
void fiber_begun(void);

#endif
