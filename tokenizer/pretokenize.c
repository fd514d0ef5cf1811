/* pretokenize.c: see pretokenize.h. The rules of the five behaviors are those of Hugging Face's tokenizers.
 *
 * Steps are nested calls, not passes: a piece goes to the next step as soon as it is complete, and words come out in
 * the order of the text. Nothing is stored but one pending piece per step (and prefix()'s copy). With the text "a-b"
 * and the match "-":
 *
 *     REMOVED                a | b         MERGED_WITH_PREVIOUS   a- | b
 *     ISOLATED               a | - | b     MERGED_WITH_NEXT       a | -b
 *     CONTIGUOUS             as ISOLATED, but neighbouring matches are one piece
 */
#include "tokenizer/pretokenize.h"
#include "tokenizer/normalize.h"
#include "tokenizer/unicode.h"

#include <string.h>

struct splitter {
    struct geul_context *ctx;
    const struct geul_split_step *steps;
    size_t n_steps;
    geul_word_callback word;
    void *user;
    uint64_t *budget; /* of searches */
};

static bool run(const struct splitter *sp, size_t step, const char *s, const char *end);

/* The last piece of a step, which the next stretch may still extend. */
struct pending {
    const char *from, *to; /* from NULL: nothing */
    bool match;
};

static bool flush(const struct splitter *sp, size_t step, struct pending *p)
{
    bool ok = !p->from || p->from == p->to || run(sp, step + 1, p->from, p->to);
    p->from = NULL;
    return ok;
}

/* Takes the next stretch of a text, in order: a match or what is between two. Stretches are adjacent, so joining two
 * means moving the end. */
static bool feed(const struct splitter *sp, size_t step, struct pending *p, const char *from, const char *to,
                 bool match)
{
    const struct geul_split_step *st = &sp->steps[step];
    match ^= st->invert;
    bool join = false;
    switch (st->behavior) {
    case GEUL_TOK_BEHAVIOR_REMOVED:
        return match || from == to || run(sp, step + 1, from, to);
    case GEUL_TOK_BEHAVIOR_CONTIGUOUS:
        join = p->from && match == p->match;
        break;
    case GEUL_TOK_BEHAVIOR_MERGED_WITH_PREVIOUS:
        join = p->from && match && !p->match;
        break;
    case GEUL_TOK_BEHAVIOR_MERGED_WITH_NEXT:
        join = p->from && !match && p->match;
        break;
    default:
        return from == to || run(sp, step + 1, from, to);
    }
    if (!join && !flush(sp, step, p))
        return false;
    *p = (struct pending){join ? p->from : from, to, match};
    return true;
}

/* The next single character of the matcher's class. */
static bool next_of_class(enum geul_matcher matcher, const char *p, const char *end, const char **from, const char **to)
{
    for (; p < end; p = *to) {
        int32_t c;
        int n = geul_utf8_decode(p, end, &c);
        *from = p;
        *to = p + (n ? n : 1);
        if (n && (matcher == GEUL_MATCHER_DIGIT   ? geul_is_number(c)
                  : matcher == GEUL_MATCHER_SPACE ? geul_is_space(c)
                                                  : geul_is_punctuation(c)))
            return true;
    }
    return false;
}

/* The next match of the engine at or after p in [s, end), which is valid UTF-8. */
static bool next_of_engine(const struct splitter *sp, const struct geul_split_step *st, const char *s, const char *p,
                           const char *end, const char **from, const char **to)
{
    size_t a, b;
    if (!geul_search_next(sp->ctx, &st->search, s, (size_t)(end - s), (size_t)(p - s), &a, &b, sp->budget))
        return false;
    *from = s + a;
    *to = s + b;
    return true;
}

/* The next match of step st in the text [s, end) at or after p. */
static bool next_match(const struct splitter *sp, const struct geul_split_step *st, const char *s, const char *p,
                       const char *end, const char **from, const char **to)
{
    if (p >= end)
        return false;
    switch (st->matcher) {
    case GEUL_MATCHER_SCANNER:
        return geul_scan(st->scanner, p, end, from, to);
    case GEUL_MATCHER_REGEX:
        return next_of_engine(sp, st, s, p, end, from, to);
    case GEUL_MATCHER_TEXT:
        *from = s + geul_find_text(s, (size_t)(end - s), (size_t)(p - s), st->text);
        *to = *from + (*from < end ? st->text.n : 0);
        return *from < end;
    default:
        return next_of_class(st->matcher, p, end, from, to);
    }
}

/* Feeds the stretches of [s, end), in which a regular expression may look around. *covered is the end of what was fed,
 * which may lie before s: a caller that splits a text in several calls carries it on. */
static bool split_stretch(const struct splitter *sp, size_t step, struct pending *held, const char *s, const char *end,
                          const char **covered)
{
    const char *from, *to;
    for (const char *p = s; next_match(sp, &sp->steps[step], s, p, end, &from, &to);) {
        if (from > *covered && !feed(sp, step, held, *covered, from, false))
            return false;
        if (to == from) { /* an empty match splits nothing; look again after the next character */
            int32_t c;
            p = to < end ? to + geul_utf8_decode(to, end, &c) : end;
            continue;
        }
        if (!feed(sp, step, held, from, to, true))
            return false;
        *covered = p = to;
    }
    return geul_error_status(sp->ctx) == GEUL_OK;
}

/* Splits [s, end) by one step and hands the pieces to the next. */
static bool split(const struct splitter *sp, size_t step, const char *s, const char *end)
{
    const struct geul_split_step *st = &sp->steps[step];
    struct pending held = {0};
    const char *covered = s;
    if (st->matcher != GEUL_MATCHER_REGEX) {
        if (!split_stretch(sp, step, &held, s, end, &covered))
            return false;
    } else { /* broken bytes belong to no match: they become part of the stretch between two */
        for (const char *p = s; p < end;) {
            const char *valid = geul_utf8_valid_end(p, end);
            if (valid > p && !split_stretch(sp, step, &held, p, valid, &covered))
                return false;
            p = valid < end ? valid + 1 : end;
        }
    }
    if (covered < end && !feed(sp, step, &held, covered, end, false))
        return false;
    return flush(sp, step, &held);
}

/* Puts a space before a piece that does not begin with one. */
static bool prefix(const struct splitter *sp, size_t step, const char *s, const char *end)
{
    if (*s == ' ')
        return run(sp, step + 1, s, end);
    size_t n = (size_t)(end - s);
    char *copy = geul_alloc(sp->ctx, n + 1, 1);
    if (!copy)
        return false;
    copy[0] = ' ';
    memcpy(copy + 1, s, n);
    bool ok = run(sp, step + 1, copy, copy + n + 1);
    geul_free(sp->ctx, copy);
    return ok;
}

/* Sends the piece [s, end), not empty, through the steps from number step on. */
static bool run(const struct splitter *sp, size_t step, const char *s, const char *end)
{
    if (step == sp->n_steps)
        return sp->word(sp->user, s, (size_t)(end - s));
    const struct geul_split_step *st = &sp->steps[step];
    if (st->matcher == GEUL_MATCHER_PREFIX)
        return prefix(sp, step, s, end);
    if (st->matcher != GEUL_MATCHER_SCANNER || st->scanner != GEUL_SCANNER_GPT2 || step + 1 < sp->n_steps ||
        st->behavior == GEUL_TOK_BEHAVIOR_CONTIGUOUS || (st->behavior == GEUL_TOK_BEHAVIOR_REMOVED) != st->invert)
        return split(sp, step, s, end);
    /* The usual case, without the machinery: GPT-2's pattern as the last step. It leaves nothing between its matches,
     * so the behaviors that are left here give the same words. */
    while (s < end) {
        const char *to = geul_scan_gpt2(s, end);
        if (!sp->word(sp->user, s, (size_t)(to - s)))
            return false;
        s = to;
    }
    return true;
}

bool geul_pretokenize(struct geul_context *ctx, const struct geul_split_step *steps, size_t n_steps, const char *s,
                      size_t n, geul_word_callback word, void *user, uint64_t *budget)
{
    struct splitter sp = {ctx, steps, n_steps, word, user, budget};
    return n == 0 || run(&sp, 0, s, s + n);
}
