/* terminal.h: signals and the shape of the terminal. */
#ifndef GEUL_TERMINAL_H
#define GEUL_TERMINAL_H

#include <stdbool.h>

/* At the start of the program: makes sure that descriptors 0 to 2 are open, so that no file gets their numbers, and
 * that writing to a closed pipe is an error instead of a signal. */
void geul_terminal_start(void);
/* Columns of the terminal on a descriptor, 80 when unknown; whether stderr is one. */
int geul_terminal_width(int fd);
bool geul_terminal_on_stderr(void);

/* From here on Ctrl-C only sets a flag, so that the work can end at a safe point. Pressed more than patience times
 * before the flag is cleared, it ends the program with code 130; no temporary file stays either way. */
void geul_interrupt_catch(int patience);
/* The same for the signals that ask a program to end: for work that writes files. To be called after the above. */
void geul_terminate_catch(void);
bool geul_interrupted(void);
/* The exit code of work that was interrupted: 128 and the number of the signal, as shells count. */
int geul_interrupt_code(void);
/* Clears the flag, and a cancel that has not taken effect. */
void geul_interrupt_clear(void);
struct geul_context;
/* From here on Ctrl-C also cancels what is computed with ctx (one of at most 8), until it is spared, which has to
 * happen before it is freed. */
void geul_interrupt_cancels(struct geul_context *ctx);
void geul_interrupt_spares(struct geul_context *ctx);

#endif
