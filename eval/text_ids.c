/* text_ids.c: see text_ids.h. */
#include "eval/text_ids.h"

#include "core/context.h"

#include <string.h>

enum geul_status geul_text_ids(struct geul_context *ctx, const struct geul_tokenizer *tok, const char *text,
                               size_t length, bool start, int32_t **ids, size_t *n)
{
    const int32_t end = geul_token_end(tok);
    int32_t *found;
    size_t n_found, n_before;
    /* of an empty text only what the tokenizer puts before texts is left */
    enum geul_status status = geul_tokenize_whole(ctx, tok, "", 0, true, true, &found, &n_before);
    if (status != GEUL_OK)
        return status;
    geul_tokens_free(ctx, found);
    status = geul_tokenize_whole(ctx, tok, text, length, true, true, &found, &n_found);
    if (status != GEUL_OK)
        return status;
    /* one before the text if start, unless the tokenizer itself begins texts, and one in the place of an empty text */
    const size_t n_ends = end < 0 ? 0 : (size_t)(start && n_before == 0) + (n_found == 0);
    int32_t *all = geul_alloc(ctx, n_ends + n_found, sizeof *all);
    if (all) {
        for (size_t i = 0; i < n_ends; i++)
            all[i] = end;
        if (n_found)
            memcpy(all + n_ends, found, n_found * sizeof *all);
        *ids = all;
        *n = n_ends + n_found;
    }
    geul_tokens_free(ctx, found);
    return all ? GEUL_OK : GEUL_ERROR_MEMORY;
}
