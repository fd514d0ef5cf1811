/* tokenize_bench.c: the geul side of compare.py, which compiles and drives it.
 *
 *     tokenize_bench TOKENIZER.json TEXTS IDS
 *
 * TEXTS holds texts, each as a 32-bit length and its bytes. Their ids are written to IDS likewise. Then every line on
 * stdin asks for one timed run over all texts; the answer is its seconds. */
#include "convert/tokenizer_json.h"
#include "geul_tools.h"
#include "core/os.h"

#include <stdio.h>
#include <string.h>

/* Tokenizes all texts of the map; writes ids to out unless NULL. false after a failure. */
static bool run(struct geul_context *ctx, const struct geul_tokenizer *tok, const struct geul_map *map, FILE *out)
{
    uint32_t n;
    for (size_t at = 0; at + 4 <= map->size; at += n) {
        memcpy(&n, map->data + at, 4);
        at += 4;
        int32_t *ids;
        size_t count;
        if (n > map->size - at ||
            geul_tokenize(ctx, tok, (const char *)map->data + at, n, true, &ids, &count) != GEUL_OK)
            return false;
        uint32_t count32 = (uint32_t)count;
        if (out && (fwrite(&count32, 4, 1, out) != 1 || fwrite(ids, 4, count, out) != count))
            return false;
        geul_tokens_free(ctx, ids);
    }
    return true;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: tokenize_bench TOKENIZER.json TEXTS IDS\n");
        return 1;
    }
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_tokenizer *tok = ctx ? geul_tokenizer_from_json(ctx, argv[1]) : NULL;
    struct geul_map map = {0};
    FILE *out = fopen(argv[3], "wb");
    bool ok = tok && out && geul_os_map(ctx, argv[2], &map) == GEUL_OK && run(ctx, tok, &map, out);
    ok = out && fclose(out) == 0 && ok;
    if (!ok)
        fprintf(stderr, "tokenize_bench: %s\n", ctx ? geul_error(ctx) : "out of memory");
    char line[16];
    printf("%s\n", ok ? "ready" : "failed");
    fflush(stdout);
    while (ok && fgets(line, sizeof line, stdin)) {
        double start = geul_os_seconds();
        ok = run(ctx, tok, &map, NULL);
        printf("%.6f\n", geul_os_seconds() - start);
        fflush(stdout);
    }
    geul_os_unmap(&map);
    geul_tokenizer_free(tok);
    geul_context_free(ctx);
    return ok ? 0 : 1;
}
