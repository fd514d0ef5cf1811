/* perplexity.c: see perplexity.h. */
#include "eval/perplexity.h"

#include "core/context.h"

#include <math.h>
#include <string.h>

/* Bytes of the character that begins at s, of which n > 0 remain; 1 for a byte that begins none. */
static size_t char_bytes(const unsigned char *s, size_t n)
{
    size_t length = s[0] >= 0xf0 && s[0] <= 0xf4  ? 4
                    : s[0] >= 0xe0 && s[0] < 0xf0 ? 3
                    : s[0] >= 0xc2 && s[0] < 0xe0 ? 2
                                                  : 1;
    for (size_t i = 1; i < length; i++)
        if (i >= n || (s[i] & 0xc0) != 0x80)
            return 1;
    return length;
}

/* Shares every character of text among the tokens that hold its bytes: a byte of a character of k bytes is 12 / k
 * twelfths. token is the one that byte `at` is in; tokens without bytes are passed. */
static void share_chars(const unsigned char *text, size_t size, struct geul_text_length *lengths)
{
    size_t token = 0, end = lengths[0].bytes; /* end: of the token's bytes */
    for (size_t at = 0; at < size;) {
        size_t length = char_bytes(text + at, size - at);
        for (size_t stop = at + length; at < stop; at++) {
            while (at >= end)
                end += lengths[++token].bytes;
            lengths[token].twelfths += (uint32_t)(12 / length);
        }
    }
}

struct geul_text_length *geul_text_lengths(struct geul_context *ctx, const struct geul_tokenizer *tok,
                                           const int32_t *ids, size_t n)
{
    struct geul_text_length *lengths = geul_alloc(ctx, n, sizeof *lengths);
    size_t size = 0, length;
    for (size_t i = 0; i < n && lengths; i++) {
        geul_token_text(tok, ids[i], &length);
        lengths[i].bytes = (uint32_t)length;
        size += length;
    }
    /* the text of the ids, not of the file: characters are those that the model was given */
    unsigned char *text = lengths ? geul_alloc(ctx, size, 1) : NULL;
    if (!text) {
        geul_free(ctx, lengths);
        return NULL;
    }
    for (size_t i = 0, at = 0; i < n; at += length, i++) {
        const char *bytes = geul_token_text(tok, ids[i], &length);
        if (length)
            memcpy(text + at, bytes, length);
    }
    if (n)
        share_chars(text, size, lengths);
    geul_free(ctx, text);
    return lengths;
}

double geul_nats(const float *logits, int n, int32_t target)
{
    double most = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++)
        most = logits[i] > most ? logits[i] : most;
    for (int i = 0; i < n; i++)
        sum += exp((double)logits[i] - most);
    return most - (double)logits[target] + log(sum);
}

void geul_perplexity_add(struct geul_perplexity *p, double nats, struct geul_text_length length)
{
    geul_moments_add(&p->chars, nats, length.twelfths / 12.0);
    geul_moments_add(&p->bytes, nats, length.bytes);
}

struct geul_perplexity_report geul_perplexity_get(const struct geul_perplexity *p)
{
    const double bits = 1 / log(2);
    struct geul_estimate nats = geul_moments_mean(&p->bytes);
    double n = p->bytes.n;
    return (struct geul_perplexity_report){
        .n_tokens = (size_t)n,
        .n_chars = round(p->chars.mean_y * n * 12) / 12,
        .n_bytes = round(p->bytes.mean_y * n),
        .perplexity = geul_estimate_exp(nats),
        .nats_per_token = nats,
        .bits_per_token = geul_estimate_scale(nats, bits),
        .bits_per_char = geul_estimate_scale(geul_moments_ratio(&p->chars), bits),
        .bits_per_byte = geul_estimate_scale(geul_moments_ratio(&p->bytes), bits),
    };
}
