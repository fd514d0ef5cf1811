/* habits.c: see habits.h. */
#include "command/habits.h"

#include <string.h>

/* clang-format off */
#define SAME            GEUL_HABIT_SAME, NULL
#define SAME_AS(option) GEUL_HABIT_SAME, option
#define QUIET           GEUL_HABIT_QUIET, NULL
#define NOTE            GEUL_HABIT_NOTE, NULL
#define REFUSE          GEUL_HABIT_REFUSE, NULL
#define HABIT(name, with, takes, what, text) {name, with, GEUL_HABIT_##takes, what, text},
/* clang-format on */
static const struct geul_habit habits[] = {
#include "command/habits.def"
};
#undef HABIT

/* Values by the last name of their option. */
static const struct {
    const char *option, *value, *here;
} values[] = {
    {"--threads", "-1", "0"},
    {"--top-k", "-1", "0"},
    {"--n-gpu-layers", "-1", "all"},
};

const struct geul_habit *geul_habit_at(size_t i)
{
    return i < sizeof habits / sizeof *habits ? &habits[i] : NULL;
}

bool geul_habit_is_switch(const char *word)
{
    static const char *const words[] = {"on", "off", "auto", "true", "false", "0", "1"};
    for (size_t i = 0; word && i < sizeof words / sizeof *words; i++)
        if (strcmp(word, words[i]) == 0)
            return true;
    return false;
}

const char *geul_habit_value(const char *names, const char *value)
{
    const char *space = strrchr(names, ' '), *last = space ? space + 1 : names;
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        if (strcmp(values[i].option, last) == 0 && strcmp(values[i].value, value) == 0)
            return values[i].here;
    return value;
}
