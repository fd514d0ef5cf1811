/* cluster.c: see cluster.h. Boundaries are those of Unicode's annex 29, as utf8proc has them; columns are those of
 * wcwidth() in glibc and of tmux, which are what terminals use, whatever the locale says. */
#include "command/line/cluster.h"

#include <utf8proc.h>

enum { ZERO_WIDTH_JOINER = 0x200d, EMOJI_SELECTOR = 0xfe0f };

int32_t geul_cluster_decode(const char *text, size_t n, size_t at, size_t *end)
{
    utf8proc_int32_t c;
    utf8proc_ssize_t used = utf8proc_iterate((const utf8proc_uint8_t *)text + at, (utf8proc_ssize_t)(n - at), &c);
    if (used <= 0) {
        *end = at + 1;
        return 0xfffd;
    }
    *end = at + (size_t)used;
    return c;
}

size_t geul_cluster_encode(int32_t c, char bytes[4])
{
    return (size_t)utf8proc_encode_char(c, (utf8proc_uint8_t *)bytes);
}

/* Vowels and final consonants of decomposed Hangul, which terminals draw into the cell of the initial consonant. */
static bool is_joining_jamo(int32_t c)
{
    return (c >= 0x1160 && c <= 0x11ff) || (c >= 0xd7b0 && c <= 0xd7ff);
}

static int columns_of(int32_t c)
{
    if (is_joining_jamo(c)) /* 1 in utf8proc before 2.9 */
        return 0;
    return utf8proc_charwidth(c);
}

struct geul_cluster geul_cluster_at(const char *text, size_t n, size_t at)
{
    utf8proc_int32_t state = 0;
    size_t next;
    int32_t before = geul_cluster_decode(text, n, at, &next);
    struct geul_cluster cluster = {.end = next, .columns = columns_of(before), .unsure = is_joining_jamo(before)};
    while (cluster.end < n) {
        int32_t c = geul_cluster_decode(text, n, cluster.end, &next);
        if (utf8proc_grapheme_break_stateful(before, c, &state))
            break;
        /* What is joined to the character before has no columns of its own. */
        int columns = before == ZERO_WIDTH_JOINER ? 0 : columns_of(c);
        if (cluster.columns + columns > GEUL_CLUSTER_COLUMNS) /* such as a hundred initial consonants in a row */
            break;
        cluster.columns += columns;
        cluster.unsure |= c == ZERO_WIDTH_JOINER || c == EMOJI_SELECTOR || is_joining_jamo(c) || columns > 0;
        cluster.end = next;
        before = c;
    }
    return cluster;
}

size_t geul_cluster_before(const char *text, size_t at)
{
    /* Boundaries can only be found forwards; a newline is always one. */
    size_t begin = at - 1;
    if (text[begin] == '\n')
        return begin;
    while (begin > 0 && text[begin - 1] != '\n')
        begin--;
    for (size_t end; (end = geul_cluster_at(text, at, begin).end) < at;)
        begin = end;
    return begin;
}

int geul_cluster_columns(const char *text, size_t n)
{
    int columns = 0;
    for (size_t at = 0; at < n;) {
        struct geul_cluster cluster = geul_cluster_at(text, n, at);
        columns += cluster.columns;
        at = cluster.end;
    }
    return columns;
}
