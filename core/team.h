/* team.h: threads that compute together. Every parallel region of the libraries and the command begins here. */
#ifndef GEUL_TEAM_H
#define GEUL_TEAM_H

#include <stdbool.h>
#include <stdint.h>

/* One thread's part of the work: thread counts from 0 to n_threads - 1, and 0 is the calling one. */
typedef void geul_team_body(void *user, int thread, int n_threads);
/* Calls body on n_threads threads at once, or on fewer, down to the calling one alone: where the system refuses threads
 * (limits of processes and memory, OMP_THREAD_LIMIT), and inside a parallel region of the application. n_threads 0: one
 * per core. Returns when all have returned. May be called from several threads at a time: each has a team of its own,
 * which waits for its next call. */
void geul_team_run(int n_threads, geul_team_body *body, void *user);

/* Item i of a loop, on the thread of that number: below the n_threads that the loop was given, also where fewer came.
 */
typedef void geul_team_item(void *user, int64_t i, int thread);
/* Calls item for 0 to n - 1; a thread takes the next one when it has finished one. */
void geul_team_loop(int n_threads, int64_t n, geul_team_item *item, void *user);

/* Whether the threads that compute now, in all teams of the process, are more than the cores: who waits for another
 * thread should then offer it the core. */
bool geul_team_crowded(void);

#endif
