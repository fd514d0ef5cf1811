/* row_problems.c: see geul_tools.h and row_problems.h. */
#include "corpus/row_problems.h"

#include <stdio.h>
#include <string.h>

struct geul_row_problems *geul_row_problems_new(struct geul_context *ctx)
{
    struct geul_row_problems *p = geul_alloc(ctx, 1, sizeof *p);
    if (p)
        p->ctx = ctx;
    return p;
}

void geul_row_problems_free(struct geul_row_problems *p)
{
    if (!p)
        return;
    geul_row_problems_clear(p);
    geul_free(p->ctx, p);
}

int64_t geul_row_problems_count(const struct geul_row_problems *p)
{
    return p->n;
}

const char *geul_row_problems_text(const struct geul_row_problems *p, int i)
{
    return i >= 0 && i < p->n_texts ? p->texts[i] : NULL;
}

static const char *text_of(const struct geul_row_texts *list, int i)
{
    return i >= 0 && (size_t)i < list->n ? list->items[i] : NULL;
}

const char *geul_row_problems_note(const struct geul_row_problems *p, int i)
{
    return text_of(&p->notes, i);
}

const char *geul_row_problems_form(const struct geul_row_problems *p, int i)
{
    return text_of(&p->forms, i);
}

void geul_row_problem(struct geul_row_problems *p, const char *path, int64_t line, const char *format, ...)
{
    char text[768];
    p->n++;
    if (p->n_texts == GEUL_ROW_PROBLEMS_KEPT)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    size_t size = strlen(path) + strlen(text) + 32;
    char *whole = geul_alloc(p->ctx, size, 1);
    if (!whole)
        return;
    snprintf(whole, size, "%s:%lld: %s", path, (long long)line, text);
    geul_printable(whole, whole, size); /* leaves out a character that was cut in two */
    p->texts[p->n_texts++] = whole;
}

void geul_row_problems_add(struct geul_row_problems *p, struct geul_row_texts *list, const char *path, const char *text)
{
    size_t size = strlen(path) + strlen(text) + 3;
    char *whole = NULL;
    if (list->n < GEUL_ROW_NOTES_KEPT &&
        geul_reserve(p->ctx, &list->items, &list->capacity, list->n + 1, sizeof *list->items))
        whole = geul_alloc(p->ctx, size, 1);
    if (!whole)
        return;
    snprintf(whole, size, "%s: %s", path, text);
    geul_printable(whole, whole, size);
    list->items[list->n++] = whole;
}

static void texts_clear(struct geul_context *ctx, struct geul_row_texts *list)
{
    for (size_t i = 0; i < list->n; i++)
        geul_free(ctx, list->items[i]);
    geul_free(ctx, list->items);
}

void geul_row_problems_clear(struct geul_row_problems *p)
{
    for (int i = 0; i < p->n_texts; i++)
        geul_free(p->ctx, p->texts[i]);
    texts_clear(p->ctx, &p->notes);
    texts_clear(p->ctx, &p->forms);
    *p = (struct geul_row_problems){.ctx = p->ctx};
}

/* Moves the texts of from to the end of to; what is left over stays. */
static void texts_move(struct geul_context *ctx, struct geul_row_texts *from, struct geul_row_texts *to)
{
    size_t room = GEUL_ROW_NOTES_KEPT - to->n, n = from->n < room ? from->n : room;
    if (to->capacity == 0) { /* without memory, so that it cannot fail at the end of a call that did not */
        *to = *from;
        *from = (struct geul_row_texts){0};
        return;
    }
    if (n == 0 || !geul_reserve(ctx, &to->items, &to->capacity, to->n + n, sizeof *to->items))
        return;
    memcpy(to->items + to->n, from->items, n * sizeof *to->items);
    to->n += n;
    from->n -= n;
    memmove(from->items, from->items + n, from->n * sizeof *from->items);
}

void geul_row_problems_move(struct geul_row_problems *from, struct geul_row_problems *to)
{
    int n = 0;
    for (; to && n < from->n_texts && to->n_texts < GEUL_ROW_PROBLEMS_KEPT; n++) {
        to->texts[to->n_texts++] = from->texts[n];
        from->texts[n] = NULL;
    }
    if (to) {
        to->n += from->n;
        texts_move(to->ctx, &from->notes, &to->notes);
        texts_move(to->ctx, &from->forms, &to->forms);
    }
    geul_row_problems_clear(from);
}
