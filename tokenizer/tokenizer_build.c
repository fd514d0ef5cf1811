/* tokenizer_build.c: geul_tokenizer_new(): from a spec to tables, checking that the spec makes sense.
 *
 * The parts are built in the order in which they need each other: vocabulary (raw), steps (byte_level), texts (what the
 * decoder makes of raw), symbols (ids of bytes), merges (by raw), whole words (by merging), added tokens (by text).
 * Specs come from files: ids, merges, steps and lengths are checked here, and encoding relies on it. */
#include "tokenizer/bpe.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/tokenizer_parts.h"
#include "tokenizer/unicode.h"

#include <stdio.h>
#include <string.h>

#define MAX_STEPS   64 /* of one stage */
#define MAX_CONTENT 64 /* bytes that one match may turn into: bounds what a hostile file can make of a text */

/* For messages: bytes to show of a text, 60 at most. */
static int shown(size_t n)
{
    return (int)(n < 60 ? n : 60);
}

static struct geul_slice slice_of(const struct geul_tokenizer_spec *spec, struct geul_tok_text text)
{
    return (struct geul_slice){geul_tokenizer_spec_text(spec, text), text.at == GEUL_TOK_ABSENT ? 0 : text.length};
}

/* ------------------------------------------------------------------------------------- texts -- */

/* Fills raw, flags, n_ids and raw_table. Every text belongs to one id alone. */
static bool build_vocabulary(struct geul_tokenizer *tok)
{
    const struct geul_tokenizer_spec *spec = &tok->spec;
    size_t n = (size_t)spec->n_tokens;
    tok->raw = geul_alloc(tok->ctx, n, sizeof *tok->raw);
    tok->flags = tok->raw ? geul_alloc(tok->ctx, n, 1) : NULL;
    if (!tok->flags || !geul_text_table_init(tok->ctx, &tok->raw_table, n))
        return false;
    for (int32_t id = 0; id < spec->n_tokens; id++) {
        if (spec->tokens[id].at == GEUL_TOK_ABSENT)
            continue; /* a hole: raw stays NULL, and holes at the end are not ids */
        tok->n_ids = id + 1;
        tok->raw[id] = slice_of(spec, spec->tokens[id]);
        int32_t other = geul_text_table_add(&tok->raw_table, tok->raw, id);
        if (other != id) {
            geul_fail(tok->ctx, GEUL_ERROR_FORMAT, "tokenizer: ids %d and %d are the same token \"%.*s\"", other, id,
                      shown(tok->raw[id].n), tok->raw[id].s);
            return false;
        }
    }
    if (tok->n_ids == 0) {
        geul_fail(tok->ctx, GEUL_ERROR_FORMAT, "tokenizer: the vocabulary is empty");
        return false;
    }
    for (size_t i = 0; i < spec->n_added; i++) {
        const struct geul_tok_added *a = &spec->added[i];
        if (a->id < 0 || a->id >= tok->n_ids || !tok->raw[a->id].s) {
            geul_fail(tok->ctx, GEUL_ERROR_FORMAT, "tokenizer: added token %zu has id %d, which is not a token", i,
                      a->id);
            return false;
        }
        tok->flags[a->id] |= (unsigned char)(GEUL_TOK_IS_ADDED | (a->special ? GEUL_TOK_IS_SPECIAL : 0) |
                                             (a->normalized ? GEUL_TOK_IS_NORMALIZED : 0));
    }
    return true;
}

/* The character that stands for a byte in byte-level vocabularies (GPT-2): itself where it can be printed, otherwise
 * the next free one from U+0100. */
static void byte_alphabet(int32_t point_of[256])
{
    int32_t next = 256;
    for (int b = 0; b < 256; b++) {
        bool plain = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        point_of[b] = plain ? b : next++;
    }
}

/* Appends the bytes that a token of the byte-level alphabet stands for. false, with nothing appended, when a character
 * is not of that alphabet, or memory is short. byte_of has 512 entries, -1 where there is no byte. */
static bool from_byte_level(struct geul_context *ctx, const int16_t *byte_of, struct geul_slice raw,
                            struct geul_bytes *out)
{
    size_t before = out->length;
    if (!geul_bytes_room(ctx, out, raw.n))
        return false;
    for (const char *p = raw.s, *end = raw.s + raw.n; p < end;) {
        int32_t c;
        int n = geul_utf8_decode(p, end, &c);
        if (n == 0 || c >= 512 || byte_of[c] < 0) {
            out->length = before;
            return false;
        }
        out->data[out->length++] = (char)byte_of[c];
        p += n;
    }
    return true;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

/* The byte of "<0xAB>", -1 for other texts. */
static int fallback_byte(struct geul_slice s)
{
    if (s.n != 6 || memcmp(s.s, "<0x", 3) != 0 || s.s[5] != '>')
        return -1;
    int high = hex_digit(s.s[3]), low = hex_digit(s.s[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* Removes up to step->left copies of its text from the start of [*s, +*n) and step->right from the end. */
static void strip_back(const struct geul_tok_step *step, struct geul_slice what, const char **s, size_t *n)
{
    for (int32_t i = 0; what.n && i < step->left && *n >= what.n && memcmp(*s, what.s, what.n) == 0; i++) {
        *s += what.n;
        *n -= what.n;
    }
    for (int32_t i = 0; what.n && i < step->right && *n >= what.n && memcmp(*s + *n - what.n, what.s, what.n) == 0; i++)
        *n -= what.n;
}

/* Appends to out what the decoder makes of one token, up to a Fuse step: the steps behind it work on whole texts
 * (strip_whole() in tokenizer.c). work holds intermediate texts. */
static bool decode_token(struct geul_tokenizer *tok, const int16_t *byte_of, struct geul_slice raw,
                         struct geul_bytes work[2], struct geul_bytes *out)
{
    const struct geul_tok_steps *steps = &tok->spec.stages[GEUL_TOK_STAGE_DECODE];
    struct geul_slice now = raw; /* in the spec's pool, in one of work but not work[which], or byte */
    char byte;
    int which = 0;
    if (steps->count == 0 && tok->byte_level && from_byte_level(tok->ctx, byte_of, now, out))
        return true;
    for (size_t i = 0; i < steps->count && steps->items[i].kind != GEUL_TOK_STEP_FUSE; i++) {
        const struct geul_tok_step *step = &steps->items[i];
        struct geul_bytes *to = &work[which];
        to->length = 0;
        int b = step->kind == GEUL_TOK_STEP_BYTE_FALLBACK ? fallback_byte(now) : -1;
        if (b >= 0) {
            byte = (char)b;
            now = (struct geul_slice){&byte, 1};
        } else if (step->kind == GEUL_TOK_STEP_STRIP_BACK) {
            strip_back(step, slice_of(&tok->spec, step->text), &now.s, &now.n);
        } else if (step->kind == GEUL_TOK_STEP_FROM_BYTE_LEVEL || step->kind == GEUL_TOK_STEP_REPLACE_BACK) {
            bool changed = step->kind == GEUL_TOK_STEP_FROM_BYTE_LEVEL
                               ? from_byte_level(tok->ctx, byte_of, now, to)
                               : geul_replace(tok->ctx, &tok->decode[i], now.s, now.n, to, &tok->budget);
            if (changed) { /* the next step reads this buffer and writes to the other */
                now = (struct geul_slice){to->data ? to->data : "", to->length};
                which ^= 1;
            }
        }
        if (geul_error_status(tok->ctx) != GEUL_OK || !geul_tok_growth_fits(tok->ctx, raw.n, now.n))
            return false;
    }
    return geul_error_status(tok->ctx) == GEUL_OK && geul_bytes_add(tok->ctx, out, now.s, now.n);
}

/* Appends what an added token stands for: itself, or its normalized form where it is searched for in normalized text
 * (as in Hugging Face's decoding). */
static bool decode_added(struct geul_tokenizer *tok, int32_t id, struct geul_bytes work[2])
{
    struct geul_slice s = tok->raw[id];
    if (tok->flags[id] & GEUL_TOK_IS_NORMALIZED && !geul_tok_normalize(tok->ctx, tok, &s.s, &s.n, work, &tok->budget))
        return false;
    return geul_bytes_add(tok->ctx, &tok->decoded, s.s, s.n);
}

/* Fills text, table and longest. */
static bool build_texts(struct geul_tokenizer *tok)
{
    int32_t point_of[256];
    int16_t byte_of[512];
    struct geul_bytes work[2] = {{0}, {0}};
    byte_alphabet(point_of);
    memset(byte_of, -1, sizeof byte_of);
    for (int b = 0; b < 256; b++)
        byte_of[point_of[b]] = (int16_t)b;
    size_t n = (size_t)tok->n_ids, *start = geul_alloc(tok->ctx, n + 1, sizeof *start);
    tok->text = start ? geul_alloc(tok->ctx, n, sizeof *tok->text) : NULL;
    bool ok = tok->text && geul_text_table_init(tok->ctx, &tok->table, n);
    for (size_t id = 0; ok && id < n; id++) {
        if (tok->raw[id].s && !(tok->flags[id] & GEUL_TOK_IS_ADDED))
            ok = decode_token(tok, byte_of, tok->raw[id], work, &tok->decoded);
        else if (tok->raw[id].s)
            ok = decode_added(tok, (int32_t)id, work);
        start[id + 1] = tok->decoded.length;
    }
    /* slices only now: decoded moves while it grows */
    for (size_t id = 0; ok && id < n; id++) {
        tok->text[id] =
            (struct geul_slice){tok->decoded.data ? tok->decoded.data + start[id] : "", start[id + 1] - start[id]};
        tok->longest = tok->text[id].n > tok->longest ? tok->text[id].n : tok->longest;
    }
    /* words first: where an added token has the text of a word, it is the word that merging needs to find */
    for (int pass = 0; ok && pass < 2; pass++)
        for (size_t id = 0; id < n; id++)
            if (tok->text[id].n && ((tok->flags[id] & GEUL_TOK_IS_ADDED) != 0) == (pass == 1))
                geul_text_table_add(&tok->table, tok->text, (int32_t)id);
    geul_free(tok->ctx, work[0].data);
    geul_free(tok->ctx, work[1].data);
    geul_free(tok->ctx, start);
    return ok;
}

/* ------------------------------------------------------------------------------------ merges -- */

/* Finds the ids of single bytes and of the unknown token. */
static bool build_symbols(struct geul_tokenizer *tok)
{
    int32_t point_of[256];
    int missing = 0, example = 0;
    byte_alphabet(point_of);
    for (int b = 0; b < 256; b++) { /* its character of the byte-level alphabet, otherwise its fallback token */
        char name[8];
        int n = tok->byte_level ? geul_utf8_encode(point_of[b], name)
                                : snprintf(name, sizeof name, "<0x%02X>", (unsigned)b);
        int32_t id = geul_text_table_find(&tok->raw_table, tok->raw, name, (size_t)n);
        tok->byte_id[b] = id < 0 ? GEUL_TOK_NO_ID : (uint32_t)id;
        if (id < 0) {
            missing++;
            example = b;
        }
    }
    tok->all_bytes = missing == 0;
    tok->unk = GEUL_TOK_NO_ID;
    if (tok->spec.unk.at != GEUL_TOK_ABSENT) {
        struct geul_slice unk = slice_of(&tok->spec, tok->spec.unk);
        int32_t id = geul_text_table_find(&tok->raw_table, tok->raw, unk.s, unk.n);
        if (id < 0) {
            geul_fail(tok->ctx, GEUL_ERROR_FORMAT, "tokenizer: the unknown token \"%.*s\" is not in the vocabulary",
                      shown(unk.n), unk.s);
            return false;
        }
        tok->unk = (uint32_t)id;
    }
    if (tok->byte_level && missing == 256) {
        geul_fail(
            tok->ctx, GEUL_ERROR_FORMAT,
            "tokenizer: byte-level, but no token stands for a single byte; the vocabulary is not a byte-level one");
        return false;
    }
    if (tok->byte_level && missing && tok->unk == GEUL_TOK_NO_ID)
        geul_log(
            tok->ctx, GEUL_LOG_WARN,
            "tokenizer: %d bytes (for instance 0x%02X) have no token; they are left out of texts, as Hugging Face does",
            missing, (unsigned)example);
    return true;
}

/* The id of one side of a merge or of its result, -1 (recorded) when it is not a token. */
static int32_t merge_token(struct geul_tokenizer *tok, size_t number, const char *part, struct geul_slice s)
{
    int32_t id = geul_text_table_find(&tok->raw_table, tok->raw, s.s, s.n);
    if (id < 0)
        geul_fail(tok->ctx, GEUL_ERROR_FORMAT,
                  "tokenizer: merge %zu names no token: its %s \"%.*s\" is not in the vocabulary", number, part,
                  shown(s.n), s.s);
    return id;
}

/* Fills merges: (left, right) -> (rank, id of both together). A rank is the merge's number, lower is better. */
static bool build_merges(struct geul_tokenizer *tok)
{
    const struct geul_tokenizer_spec *spec = &tok->spec;
    if (spec->n_merges >= GEUL_TOK_NO_ID) { /* bpe.c keeps that value for "no merge" */
        geul_fail(tok->ctx, GEUL_ERROR_FORMAT, "tokenizer: %zu merges are too many", spec->n_merges);
        return false;
    }
    if (!geul_pair_table_init(tok->ctx, &tok->merges, spec->n_merges))
        return false;
    struct geul_bytes both = {0};
    bool ok = true;
    for (size_t i = 0; ok && i < spec->n_merges; i++) {
        struct geul_slice left = slice_of(spec, spec->merges[i].left), right = slice_of(spec, spec->merges[i].right);
        both.length = 0;
        ok = geul_bytes_add(tok->ctx, &both, left.s, left.n) && geul_bytes_add(tok->ctx, &both, right.s, right.n);
        if (!ok)
            break;
        int32_t a = merge_token(tok, i, "left side", left);
        int32_t b = a < 0 ? -1 : merge_token(tok, i, "right side", right);
        int32_t c =
            b < 0 ? -1 : merge_token(tok, i, "result", (struct geul_slice){both.data ? both.data : "", both.length});
        ok = c >= 0;
        if (ok)
            geul_pair_table_set(&tok->merges, (struct geul_pair){(uint32_t)a, (uint32_t)b, (uint32_t)i, (uint32_t)c});
    }
    geul_free(tok->ctx, both.data);
    return ok;
}

/* Marks the tokens that merging finds for their own text, by merging it: most words of a text are such tokens, and
 * encode_word() then needs no merging. Tokens that the merges cannot reach stay unmarked. */
static bool build_whole(struct geul_tokenizer *tok)
{
    uint32_t *ids = geul_alloc(tok->ctx, tok->longest, sizeof *ids);
    bool ok = ids != NULL;
    for (int32_t id = 0; ok && id < tok->n_ids; id++) {
        struct geul_slice s = tok->text[id];
        if (!s.n || (tok->flags[id] & GEUL_TOK_IS_ADDED))
            continue;
        bool whole = tok->spec.ignore_merges;
        if (!whole && tok->byte_level && tok->all_bytes) {
            for (size_t i = 0; i < s.n; i++)
                ids[i] = tok->byte_id[(unsigned char)s.s[i]];
            ptrdiff_t n = geul_bpe_merge(tok->ctx, &tok->merges, ids, s.n, NULL);
            ok = n >= 0;
            whole = n == 1 && ids[0] == (uint32_t)id;
        }
        if (whole)
            tok->flags[id] |= GEUL_TOK_IS_WHOLE;
    }
    geul_free(tok->ctx, ids);
    return ok;
}

/* ------------------------------------------------------------------------------------- steps -- */

/* Compiles a pattern. NULL (recorded) when there is no engine or it refuses. */
static void *compile(struct geul_tokenizer *tok, const struct geul_regex_engine *engine, struct geul_slice pattern)
{
    char why[200] = "";
    if (!engine) {
        geul_fail(tok->ctx, GEUL_ERROR_UNSUPPORTED,
                  "tokenizer: the pattern \"%.*s\" is not known to geul and needs a regular expression engine; "
                  "give geul_tokenizer_load() one, or use the geul command, which has one",
                  shown(pattern.n), pattern.s);
        return NULL;
    }
    void *compiled = engine->compile(pattern.s, pattern.n, why, sizeof why);
    if (!compiled)
        geul_fail(tok->ctx, GEUL_ERROR_FORMAT, "tokenizer: the pattern \"%.*s\" does not compile: %s", shown(pattern.n),
                  pattern.s, why);
    return compiled;
}

/* Makes *to of a step of the spec's normalizer or decoder. */
static bool build_normal_step(struct geul_tokenizer *tok, const struct geul_regex_engine *engine,
                              const struct geul_tok_step *from, struct geul_normal_step *to)
{
    *to = (struct geul_normal_step){.kind = from->kind,
                                    .left = from->left != 0,
                                    .right = from->right != 0,
                                    .text = slice_of(&tok->spec, from->text),
                                    .content = slice_of(&tok->spec, from->content)};
    unsigned fields = geul_tok_step_info(from->kind)->fields;
    bool replace = (fields & GEUL_TOK_HAS_CONTENT) != 0;
    if ((replace && to->content.n > MAX_CONTENT) || (from->kind == GEUL_TOK_STEP_PREPEND && to->text.n > MAX_CONTENT)) {
        geul_fail(tok->ctx, GEUL_ERROR_UNSUPPORTED, "tokenizer: step %s inserts more than %d bytes",
                  geul_tok_step_info(from->kind)->name, MAX_CONTENT);
        return false;
    }
    if (replace && to->text.n == 0) {
        geul_fail(tok->ctx, GEUL_ERROR_UNSUPPORTED, "tokenizer: step Replace has an empty pattern");
        return false;
    }
    if (replace && from->regex)
        to->search = (struct geul_search){engine, compile(tok, engine, to->text), to->text};
    return !replace || !from->regex || to->search.compiled;
}

/* Makes the steps of normalizer or decoder, as many as the spec has; those not reached are zero. */
static bool build_normal(struct geul_tokenizer *tok, const struct geul_regex_engine *engine, enum geul_tok_stage stage,
                         struct geul_normal_step **out)
{
    const struct geul_tok_steps *steps = &tok->spec.stages[stage];
    *out = geul_alloc(tok->ctx, steps->count, sizeof **out);
    bool ok = *out != NULL;
    for (size_t i = 0; ok && i < steps->count; i++)
        ok = build_normal_step(tok, engine, &steps->items[i], &(*out)[i]);
    return ok;
}

/* Appends the split steps that one step of the spec means (at most two). */
static bool build_split_step(struct geul_tokenizer *tok, const struct geul_regex_engine *engine,
                             const struct geul_tok_step *from)
{
    struct geul_split_step *to = &tok->split[tok->n_split];
    *to = (struct geul_split_step){
        .behavior = from->behavior, .invert = from->invert, .text = slice_of(&tok->spec, from->text)};
    switch (from->kind) {
    case GEUL_TOK_STEP_BYTE_LEVEL:
        tok->byte_level = true;
        if (from->left) /* two steps of one: build_steps() made room */
            tok->split[tok->n_split++].matcher = GEUL_MATCHER_PREFIX;
        if (from->right)
            tok->split[tok->n_split++] = (struct geul_split_step){
                .matcher = GEUL_MATCHER_SCANNER, .scanner = GEUL_SCANNER_GPT2, .behavior = GEUL_TOK_BEHAVIOR_ISOLATED};
        return true;
    case GEUL_TOK_STEP_WHITESPACE:
        to->matcher = GEUL_MATCHER_SCANNER;
        to->scanner = GEUL_SCANNER_WORDS;
        to->behavior = GEUL_TOK_BEHAVIOR_REMOVED;
        to->invert = true;
        break;
    case GEUL_TOK_STEP_WHITESPACE_SPLIT:
        to->matcher = GEUL_MATCHER_SPACE;
        to->behavior = GEUL_TOK_BEHAVIOR_REMOVED;
        break;
    case GEUL_TOK_STEP_DIGITS:
        to->matcher = GEUL_MATCHER_DIGIT;
        to->behavior = from->left ? GEUL_TOK_BEHAVIOR_ISOLATED : GEUL_TOK_BEHAVIOR_CONTIGUOUS;
        break;
    case GEUL_TOK_STEP_PUNCTUATION:
        to->matcher = GEUL_MATCHER_PUNCTUATION;
        break;
    default: /* Split */
        if (to->text.n == 0) {
            geul_fail(tok->ctx, GEUL_ERROR_UNSUPPORTED, "tokenizer: step Split has an empty pattern");
            return false;
        }
        to->scanner = from->regex ? geul_scanner_find(to->text.s, to->text.n) : GEUL_SCANNER_COUNT;
        to->matcher = !from->regex                        ? GEUL_MATCHER_TEXT
                      : to->scanner != GEUL_SCANNER_COUNT ? GEUL_MATCHER_SCANNER
                                                          : GEUL_MATCHER_REGEX;
        if (to->matcher == GEUL_MATCHER_REGEX)
            to->search = (struct geul_search){engine, compile(tok, engine, to->text), to->text};
        if (to->matcher == GEUL_MATCHER_REGEX && !to->search.compiled)
            return false;
    }
    tok->n_split++;
    return true;
}

static bool build_steps(struct geul_tokenizer *tok, const struct geul_regex_engine *engine)
{
    static const char *const stage_names[] = {"normalizer", "pre-tokenizer", "decoder"};
    for (int stage = 0; stage < GEUL_TOK_STAGE_COUNT; stage++)
        if (tok->spec.stages[stage].count > MAX_STEPS) {
            geul_fail(tok->ctx, GEUL_ERROR_UNSUPPORTED, "tokenizer: the %s has %zu steps, more than %d",
                      stage_names[stage], tok->spec.stages[stage].count, MAX_STEPS);
            return false;
        }
    const struct geul_tok_steps *steps = &tok->spec.stages[GEUL_TOK_STAGE_SPLIT];
    tok->n_normal = tok->spec.stages[GEUL_TOK_STAGE_NORMALIZE].count;
    tok->split = geul_alloc(tok->ctx, 2 * steps->count + 1, sizeof *tok->split);
    if (!tok->split || !build_normal(tok, engine, GEUL_TOK_STAGE_NORMALIZE, &tok->normal) ||
        !build_normal(tok, engine, GEUL_TOK_STAGE_DECODE, &tok->decode))
        return false;
    for (size_t i = 0; i < steps->count; i++) {
        if (tok->byte_level) { /* a step behind it would have to work on its alphabet, not on the text */
            geul_fail(tok->ctx, GEUL_ERROR_UNSUPPORTED,
                      "tokenizer: pre-tokenizer step %s comes after ByteLevel; geul needs ByteLevel to be the last",
                      geul_tok_step_info(steps->items[i].kind)->name);
            return false;
        }
        if (!build_split_step(tok, engine, &steps->items[i]))
            return false;
    }
    return true;
}

/* ------------------------------------------------------------------------------ added tokens -- */

/* Two sets: tokens searched for in the text as it is, and tokens searched for after normalization (in normalized form).
 * Special tokens go first, as they win over others with the same text. */
static bool build_added(struct geul_tokenizer *tok)
{
    const struct geul_tokenizer_spec *spec = &tok->spec;
    size_t n_raw = 0, n_normal = 0;
    for (size_t i = 0; i < spec->n_added; i++)
        *(spec->added[i].normalized ? &n_normal : &n_raw) += tok->text[spec->added[i].id].n;
    if (!geul_added_init(tok->ctx, &tok->added_raw, spec->added, n_raw) ||
        !geul_added_init(tok->ctx, &tok->added_normal, spec->added, n_normal))
        return false;
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < spec->n_added; i++) {
            const struct geul_tok_added *a = &spec->added[i];
            struct geul_slice s = tok->text[a->id];
            if (a->special != (pass == 0))
                continue;
            geul_added_insert(a->normalized ? &tok->added_normal : &tok->added_raw, (int32_t)i, s.s, s.n);
            tok->has_added_normal |= a->normalized;
            tok->has_added_raw |= !a->normalized;
        }
    return true;
}

/* Drops the ids of the list that are no tokens: a model cannot choose them. */
static void keep_tokens(const struct geul_tokenizer *tok, struct geul_tok_ids *list)
{
    int n = 0;
    for (int i = 0; i < list->n; i++)
        if (list->id[i] >= 0 && list->id[i] < tok->n_ids && tok->raw[list->id[i]].s)
            list->id[n++] = list->id[i];
    list->n = n;
}

/* Settles the tokens that end a text: those that the spec says, and <|endoftext|> where it says none. */
static void build_ends(struct geul_tokenizer *tok)
{
    static const char name[] = "<|endoftext|>";
    struct geul_tok_ids *ends = &tok->spec.ends;
    keep_tokens(tok, ends);
    keep_tokens(tok, &tok->spec.before);
    keep_tokens(tok, &tok->spec.after);
    int32_t usual = geul_text_table_find(&tok->raw_table, tok->raw, name, sizeof name - 1);
    if (ends->n == 0 && usual >= 0)
        geul_tok_ids_add(ends, usual);
    for (int i = 0; i < ends->n; i++)
        tok->flags[ends->id[i]] |= GEUL_TOK_IS_END;
}

struct geul_tokenizer *geul_tokenizer_new(struct geul_context *ctx, struct geul_tokenizer_spec *spec,
                                          const struct geul_regex_engine *engine)
{
    struct geul_context *own = geul_context_new_like(ctx);
    struct geul_tokenizer *tok = own ? geul_alloc(own, 1, sizeof *tok) : NULL;
    if (!tok) {
        geul_fail_memory(ctx, sizeof *tok);
        geul_tokenizer_spec_free(ctx, spec);
        geul_context_free(own);
        return NULL;
    }
    tok->ctx = own;
    tok->budget = geul_search_budget(spec->pool_length);
    tok->spec = *spec; /* moved: the caller's is empty, whatever happens */
    geul_tokenizer_spec_init(spec);
    if (build_vocabulary(tok) && build_steps(tok, engine) && build_texts(tok) && build_symbols(tok) &&
        build_merges(tok) && build_whole(tok) && build_added(tok)) {
        build_ends(tok);
        return tok;
    }
    geul_fail_from(ctx, own);
    geul_tokenizer_free(tok);
    return NULL;
}

/* Frees the compiled patterns of n steps, and the steps. */
static void free_normal(struct geul_context *ctx, struct geul_normal_step *steps, size_t n)
{
    for (size_t i = 0; steps && i < n; i++)
        if (steps[i].search.compiled)
            steps[i].search.engine->free(steps[i].search.compiled);
    geul_free(ctx, steps);
}

void geul_tokenizer_free(struct geul_tokenizer *tok)
{
    if (!tok)
        return;
    struct geul_context *ctx = tok->ctx;
    free_normal(ctx, tok->normal, tok->spec.stages[GEUL_TOK_STAGE_NORMALIZE].count);
    free_normal(ctx, tok->decode, tok->spec.stages[GEUL_TOK_STAGE_DECODE].count);
    for (size_t i = 0; i < tok->n_split; i++)
        if (tok->split[i].search.compiled)
            tok->split[i].search.engine->free(tok->split[i].search.compiled);
    geul_free(ctx, tok->split);
    geul_added_free(ctx, &tok->added_raw);
    geul_added_free(ctx, &tok->added_normal);
    geul_free(ctx, tok->merges.slots);
    geul_free(ctx, tok->raw_table.slots);
    geul_free(ctx, tok->table.slots);
    geul_free(ctx, tok->decoded.data);
    geul_free(ctx, tok->text);
    geul_free(ctx, tok->raw);
    geul_free(ctx, tok->flags);
    geul_tokenizer_spec_free(ctx, &tok->spec);
    geul_free(ctx, tok);
    geul_context_free(ctx);
}
