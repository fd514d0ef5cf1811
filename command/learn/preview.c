/* preview.c: see preview.h. */
#include "command/learn/preview.h"

#include "core/context.h"

#include <stdlib.h>

/* Marks around masked text. */
struct marks {
    const char *begin, *end;
};

struct printer {
    FILE *f;
    const struct marks *marks;
    bool masked; /* between the marks */
};

/* Switches between masked and learned text. */
static void switch_to(struct printer *p, bool masked)
{
    if (masked != p->masked)
        fputs(masked ? p->marks->begin : p->marks->end, p->f);
    p->masked = masked;
}

/* Prints whole characters. */
static void print_characters(struct printer *p, const char *s, size_t n, bool masked)
{
    if (n > 0)
        switch_to(p, masked);
    for (size_t i = 0, length; i < n; i += length ? length : 1) {
        length = s[i] == '\n' || s[i] == '\t' ? 1 : geul_printable_length(s + i, n - i);
        if (length > 0)
            fwrite(s + i, 1, length, p->f);
        else
            fprintf(p->f, "\\x%02x", (unsigned char)s[i]);
    }
}

/* Prints the text of a token; the bytes of an unfinished character wait for the next token's. */
static void print_token(struct printer *p, struct geul_utf8_stream *stream, const char *s, size_t n, bool masked)
{
    char out[3 * (1 + 4)];
    for (size_t i = 0; i < n; i++)
        print_characters(p, out, geul_utf8_push(stream, s + i, 1, out), masked);
}

static void print_sample(struct printer *p, const struct geul_tokenizer *tok, const int32_t *ids, const bool *target,
                         int n)
{
    struct geul_utf8_stream stream = {.n_held = 0};
    char out[12];
    for (int i = 0; i < n; i++) {
        size_t length;
        const char *text = geul_token_text(tok, ids[i], &length);
        print_token(p, &stream, text, length, !target[i]);
    }
    print_characters(p, out, geul_utf8_finish(&stream, out), !target[n - 1]);
    switch_to(p, false);
    fputc('\n', p->f);
}

/* Prints sample i with its counts. false when memory is short. */
static bool preview(struct printer *p, const struct geul_tokenizer *tok, const struct geul_dataset *d, int64_t i)
{
    int n = geul_dataset_length(d, i), targets = 0;
    int32_t *ids = malloc((size_t)n * sizeof *ids);
    bool *target = malloc((size_t)n * sizeof *target);
    bool ok = ids && target;
    if (ok) {
        geul_dataset_read(d, i, n, ids, target);
        for (int k = 0; k < n; k++)
            targets += target[k];
        fprintf(p->f, "sample %lld: %d tokens, %d of them learned\n", (long long)i + 1, n, targets);
        print_sample(p, tok, ids, target, n);
    }
    free(ids);
    free(target);
    return ok;
}

bool geul_preview_print(FILE *f, const struct geul_tokenizer *tok, const struct geul_dataset *d, int n, bool colour)
{
    static const struct marks dim = {"\033[2m", "\033[22m"}, brackets = {"⟦", "⟧"};
    struct printer p = {.f = f, .marks = colour ? &dim : &brackets};
    int64_t samples = geul_dataset_sample_count(d);
    bool ok = true;
    for (int64_t i = 0; ok && i < n && i < samples; i++)
        ok = preview(&p, tok, d, i);
    return ok && !ferror(f);
}
