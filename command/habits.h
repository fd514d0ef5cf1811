/* habits.h: names of options, and values, that users of other programs type; habits.def lists the names. */
#ifndef GEUL_HABITS_H
#define GEUL_HABITS_H

#include <stdbool.h>
#include <stddef.h>

enum geul_habit_takes { GEUL_HABIT_NOTHING, GEUL_HABIT_VALUE, GEUL_HABIT_SWITCH };
enum geul_habit_kind { GEUL_HABIT_SAME, GEUL_HABIT_QUIET, GEUL_HABIT_NOTE, GEUL_HABIT_REFUSE };

struct geul_habit {
    const char *name, *with; /* with: only where the subcommand has this option */
    enum geul_habit_takes takes;
    enum geul_habit_kind kind;
    const char *same; /* of SAME: the name here; NULL: with */
    const char *text; /* of NOTE and REFUSE */
};

/* The rows in their order, NULL at the end. */
const struct geul_habit *geul_habit_at(size_t i);
/* Whether a word can be the value of a SWITCH. */
bool geul_habit_is_switch(const char *word);
/* The value that geul has for one of another program ("-1" for 0 threads); the same text where there is none. names are
 * those of the option's row. */
const char *geul_habit_value(const char *names, const char *value);

#endif
