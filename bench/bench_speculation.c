/* bench_speculation.c: what speculation costs and brings.
 *
 *     bench_speculation MODEL.gguf [DRAFT.gguf] [TOKENS]
 *
 * Continues a prompt of random ids that is repeated once, greedily, in turns without and with speculation, and prints
 * medians of five. A model that drafts for itself has every guess accepted: what is missing to the best possible then
 * is the cost of the machinery. */
#include "geul.h"

#include "core/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROMPT = 64, REPEATS = 5, CONTEXT = 1024 };

struct bench {
    struct geul_context *ctx;
    struct geul_model *model, *draft_model;
    struct geul_session *session, *draft;
    int32_t prompt[PROMPT];
    int n_tokens;
};

struct way {
    const char *name;
    bool lookup, draft, always;
    int n_max;
};

static const struct way ways[] = {
    {"plain", false, false, false, 0},          {"lookup, adaptive", true, false, false, 16},
    {"lookup, always 4", true, false, true, 4}, {"draft, adaptive", false, true, false, 16},
    {"draft, always 4", false, true, true, 4},  {"draft, always 8", false, true, true, 8},
    {"both, adaptive", true, true, false, 16},
};
enum { N_WAYS = sizeof ways / sizeof *ways };

/* Prints the failure of ctx; returns the exit code. */
static int failed(const struct geul_context *ctx)
{
    fprintf(stderr, "bench_speculation: %s\n", geul_error(ctx));
    return 1;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *v)
{
    qsort(v, REPEATS, sizeof *v, by_size);
    return v[REPEATS / 2];
}

/* Tokens per second of one generation; 0 after a failure. The ids go to tokens (n_tokens). */
static double generate(const struct bench *b, struct geul_speculator *p, int *drafted, int *accepted, int32_t *tokens)
{
    struct geul_sampling greedy = geul_sampling_default();
    greedy.temperature = 0;
    struct geul_generation how = {
        .sampling = &greedy, .max_tokens = b->n_tokens, .ignore_end_token = true, .speculator = p};
    struct geul_generation_result r;
    if (geul_generate_ids(b->session, b->prompt, PROMPT, &how, &r) != GEUL_OK)
        return 0;
    double speed = r.n_generated / r.generation_seconds;
    *drafted = r.n_drafted;
    *accepted = r.n_accepted;
    memcpy(tokens, r.tokens, (size_t)r.n_generated * sizeof *tokens);
    geul_tokens_free(b->ctx, r.tokens);
    geul_text_free(b->ctx, r.text);
    return speed;
}

/* All ways in turns. Returns the exit code. */
static int compare(const struct bench *b)
{
    struct geul_speculator *speculators[N_WAYS] = {NULL};
    double speed[N_WAYS][REPEATS];
    int drafted[N_WAYS] = {0}, accepted[N_WAYS] = {0}, different[N_WAYS] = {0};
    int32_t *plain = malloc((size_t)b->n_tokens * sizeof *plain),
            *tokens = malloc((size_t)b->n_tokens * sizeof *tokens);
    for (int w = 1; w < N_WAYS; w++) {
        struct geul_speculation how = geul_speculation_default();
        how.draft = ways[w].draft ? b->draft : NULL;
        how.lookup = ways[w].lookup;
        how.always = ways[w].always;
        how.n_max = ways[w].n_max;
        how.p_min = 0;
        if (!ways[w].draft || b->draft)
            speculators[w] = geul_speculator_new(b->session, &how);
    }
    for (int r = 0; r < REPEATS; r++)
        for (int w = 0; w < N_WAYS; w++) {
            if (w > 0 && !speculators[w])
                continue;
            speed[w][r] = generate(b, speculators[w], &drafted[w], &accepted[w], w ? tokens : plain);
            if (!(speed[w][r] > 0))
                return failed(b->ctx);
            different[w] += w > 0 && memcmp(plain, tokens, (size_t)b->n_tokens * sizeof *plain) != 0;
        }
    double base = median(speed[0]);
    printf("%-18s %10s %8s %20s %12s\n", "", "tokens/s", "ratio", "accepted/drafted", "other text");
    for (int w = 0; w < N_WAYS; w++)
        if (w == 0 || speculators[w]) {
            double v = median(speed[w]);
            printf("%-18s %10.2f %8.2f %13d/%-6d %9d/%d\n", ways[w].name, v, v / base, accepted[w], drafted[w],
                   different[w], REPEATS);
            geul_speculator_free(speculators[w]);
        }
    free(plain);
    free(tokens);
    return 0;
}

static bool ignore_logits(void *user, int item, const float *logits, int n_vocab)
{
    (void)user, (void)item, (void)logits, (void)n_vocab;
    return true;
}

/* The cost of evaluating several tokens compared with one. Returns the exit code. */
static int batches(const struct bench *b)
{
    static const int sizes[] = {1, 2, 3, 4, 5, 7, 9, 13, 17};
    enum { N = sizeof sizes / sizeof *sizes };
    struct geul_batch_item items[17];
    double seconds[N][REPEATS];
    for (int i = 0; i < 17; i++)
        items[i] = (struct geul_batch_item){b->prompt[i], 0, true};
    for (int r = -1; r < REPEATS; r++) /* the first round warms up */
        for (int i = 0; i < N; i++) {
            geul_session_truncate(b->session, 0, PROMPT);
            double start = geul_os_seconds();
            if (geul_session_eval(b->session, items, sizes[i], ignore_logits, NULL) != GEUL_OK)
                return failed(b->ctx);
            if (r >= 0)
                seconds[i][r] = geul_os_seconds() - start;
        }
    double one = median(seconds[0]);
    printf("\ntokens at once    ");
    for (int i = 0; i < N; i++)
        printf("%7d", sizes[i]);
    printf("\nms                ");
    for (int i = 0; i < N; i++)
        printf("%7.1f", 1e3 * median(seconds[i]));
    printf("\ntimes one token   ");
    for (int i = 0; i < N; i++)
        printf("%7.2f", median(seconds[i]) / one);
    printf("\n");
    return 0;
}

int main(int argc, char **argv)
{
    struct bench b = {.ctx = geul_context_new(NULL), .n_tokens = argc > 3 ? atoi(argv[3]) : 64};
    if (!b.ctx || argc < 2 || b.n_tokens < 2 || b.n_tokens > CONTEXT / 2) {
        fprintf(stderr, "usage: bench_speculation MODEL.gguf [DRAFT.gguf] [TOKENS]\n");
        return 2;
    }
    struct geul_session_options options = {.n_context = CONTEXT, .cache_type = GEUL_TYPE_F16};
    b.model = geul_model_load(b.ctx, argv[1], NULL);
    b.session = b.model ? geul_session_new(b.ctx, b.model, &options) : NULL;
    b.draft_model = b.session && argc > 2 ? geul_model_load(b.ctx, argv[2], NULL) : NULL;
    b.draft = b.draft_model ? geul_session_new(b.ctx, b.draft_model, &options) : NULL;
    if (!b.session || (argc > 2 && !b.draft))
        return failed(b.ctx);
    for (int i = 0; i < PROMPT; i++)
        b.prompt[i] = i < PROMPT / 2 ? 5 + i * 7919 % 300 : b.prompt[i - PROMPT / 2];
    int code = compare(&b);
    code = code ? code : batches(&b);
    geul_session_free(b.draft);
    geul_session_free(b.session);
    geul_model_free(b.draft_model);
    geul_model_free(b.model);
    geul_context_free(b.ctx);
    return code;
}
