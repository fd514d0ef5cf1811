/* tokenizer_files.c: see tokenizer_files.h. The files become one document in the form of tokenizer.json, "root", as
 * transformers 5's AutoTokenizer would build it, and tokenizer_json.c reads that:
 *
 *     load()            the files that are there
 *     choose_class()    whose steps the tokenizer has: those of tokenizer.json, or a class's own
 *     make_root()       tokenizer.json, or vocab.json and merges.txt
 *     set_steps()       the steps of a class that brings its own, what it puts before and after a text
 *     add_tokens()      tokens that only the other files name, with the ids that transformers gives them
 *
 * An id of added_tokens_decoder is a wish: a token that is new gets the next free id, in the order of those ids. */
#include "convert/tokenizer_files.h"

#include "convert/end_ids.h"
#include "convert/kept_files.h"
#include "convert/tokenizer_json.h"
#include "formats/json_file.h"
#include "geul_tools.h"
#include "core/os.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is known of a class of transformers that brings its own steps instead of tokenizer.json's. */
struct class
{
    const char *name;
    bool nfc;            /* normalizes */
    bool keeps_borders;  /* with tokenizer.json: its post-processor counts */
    const char *padding; /* pad_token where the files name none */
};
static const struct class classes[] = {
    {"GPTNeoXTokenizer", true, false, "<|padding|>"},
    {"GPT2Tokenizer", false, true, NULL},
};
static const char end_of_text[] = "<|endoftext|>"; /* bos_token, eos_token and unk_token of these classes */

enum file { CONFIG, GENERATION, TOKENIZER, TOKENIZER_CONFIG, SPECIAL_MAP, ADDED, VOCAB, N_FILES };
static const char *const names[N_FILES] = {"config.json",
                                           "generation_config.json",
                                           "tokenizer.json",
                                           "tokenizer_config.json",
                                           "special_tokens_map.json",
                                           "added_tokens.json",
                                           "vocab.json"};

/* The named special tokens, in the order in which new ones get their ids. */
static const char *const named[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                    "pad_token", "cls_token", "mask_token"};
enum { N_NAMED = sizeof named / sizeof *named };

struct source {
    struct geul_context *ctx;
    const char *dir;
    json_t *files[N_FILES];    /* NULL: not there */
    const struct class *class; /* NULL: the steps are tokenizer.json's */
    json_t *settings;          /* tokenizer_config.json, with what special_tokens_map.json adds; {} without both */
    json_t *root;
    json_t *by_text; /* text -> its object in root's added_tokens */
    json_int_t next; /* id of the next new token */
    json_int_t rows; /* of the model, for ids */
    struct geul_tokenizer_notes *notes;
    struct count {
        int n;
        char first[64]; /* text of the first of them, printable */
    } beyond, moved;    /* tokens that were left out because they have no row; that got another id than a file names */
};

static void count_token(struct count *c, const char *text)
{
    if (c->n++ == 0)
        geul_printable(text, c->first, sizeof c->first);
}

static bool no_memory(struct source *s)
{
    geul_fail(s->ctx, GEUL_ERROR_MEMORY, "out of memory");
    return false;
}

/* Adds a message for geul_tokenizer_notes_log(). */
__attribute__((format(printf, 2, 3))) static void note(struct source *s, const char *format, ...)
{
    struct geul_tokenizer_notes *notes = s->notes;
    va_list args;
    if (notes->n == GEUL_TOKENIZER_NOTES)
        return;
    va_start(args, format);
    vsnprintf(notes->text[notes->n++], sizeof notes->text[0], format, args);
    va_end(args);
}

void geul_tokenizer_notes_log(const struct geul_context *ctx, const struct geul_tokenizer_notes *notes)
{
    for (int i = 0; i < notes->n; i++)
        geul_log(ctx, GEUL_LOG_WARN, "%s", notes->text[i]);
}

static bool malformed(struct source *s, enum file file, const char *what)
{
    geul_fail(s->ctx, GEUL_ERROR_FORMAT, "%s/%s: %s", s->dir, names[file], what);
    return false;
}

/* ------------------------------------------------------------------------------------- files -- */

/* Reads the files that are there. vocab.json is only read without a tokenizer.json. */
static bool load(struct source *s)
{
    for (int i = 0; i < N_FILES; i++) {
        if (!geul_os_has(s->dir, names[i]) || (i == VOCAB && s->files[TOKENIZER]))
            continue;
        char *path = geul_os_join_path(s->ctx, s->dir, names[i]);
        s->files[i] = path ? geul_json_load(s->ctx, path) : NULL;
        geul_free(s->ctx, path);
        if (!s->files[i])
            return false;
    }
    return geul_error_status(s->ctx) == GEUL_OK;
}

/* The class of the tokenizer, without "Fast" at its end; NULL where the files name none. *length gets its length. */
static const char *class_name(const struct source *s, size_t *length)
{
    const char *name = json_string_value(json_object_get(s->files[TOKENIZER_CONFIG], "tokenizer_class"));
    const char *type = json_string_value(json_object_get(s->files[CONFIG], "model_type"));
    name = name ? name : json_string_value(json_object_get(s->files[CONFIG], "tokenizer_class"));
    if (!name && type && strcmp(type, "gpt_neox") == 0)
        name = classes[0].name;
    size_t n = name ? strlen(name) : 0;
    *length = n > 4 && strcmp(name + n - 4, "Fast") == 0 ? n - 4 : n;
    return name;
}

/* Finds the class whose steps the tokenizer has. */
static void choose_class(struct source *s)
{
    size_t n;
    const char *name = class_name(s, &n);
    for (size_t i = 0; name && i < sizeof classes / sizeof *classes; i++)
        if (strlen(classes[i].name) == n && memcmp(classes[i].name, name, n) == 0)
            s->class = &classes[i];
}

/* Files that show that there is a tokenizer, though not one that geul can read. */
static const struct {
    const char *file, *what;
} others[] = {
    {"tokenizer.model", "a SentencePiece model, which geul cannot read"},
    {"spiece.model", "a SentencePiece model, which geul cannot read"},
    {"spm.model", "a SentencePiece model, which geul cannot read"},
    {"vocab.txt", "a WordPiece vocabulary, which geul cannot read"},
    {"tekken.json", "a tokenizer of Mistral's, which geul cannot read"},
    {"vocab.json", "half of a tokenizer: merges.txt is missing"},
    {"merges.txt", "half of a tokenizer: vocab.json is missing"},
    {"tokenizer_config.json", "its settings alone"},
    {"special_tokens_map.json", "its special tokens alone"},
    {"added_tokens.json", "its added tokens alone"},
};
enum { N_OTHERS = sizeof others / sizeof *others };

/* The first of them that is there; N_OTHERS: none. */
static size_t find_other(const char *dir)
{
    size_t i = 0;
    while (i < N_OTHERS && !geul_os_has(dir, others[i].file))
        i++;
    return i;
}

bool geul_tokenizer_files_exist(const char *dir)
{
    return geul_os_has(dir, names[TOKENIZER]) || find_other(dir) < N_OTHERS;
}

/* Records that there is no tokenizer, and what there is instead. */
static bool no_tokenizer(struct source *s)
{
    size_t i = find_other(s->dir), n = N_OTHERS, length;
    char shown[64];
    const char *name = class_name(s, &length);
    geul_fail(s->ctx, GEUL_ERROR_UNSUPPORTED,
              "%s has no tokenizer that geul can read: neither tokenizer.json nor vocab.json with merges.txt%s%s%s%s "
              "(tokenizer_class %s); transformers' AutoTokenizer and its save_pretrained() write a tokenizer.json, and "
              "geul convert --no-tokenizer makes a file without texts",
              s->dir, i < n ? ", but " : "", i < n ? others[i].file : "", i < n ? ", " : "",
              i < n ? others[i].what : "", name ? geul_printable(name, shown, sizeof shown) : "not named");
    return false;
}

/* The lines of merges.txt as a list of strings; NULL on failure. Ends of lines may be CR LF. */
static json_t *read_merges(struct source *s)
{
    size_t n = 0;
    char *text = geul_kept_read(s->ctx, s->dir, "merges.txt", &n);
    json_t *list = text ? json_array() : NULL;
    for (char *at = text, *end = text ? text + n : NULL; list && at < end;) {
        char *stop = memchr(at, '\n', (size_t)(end - at)), *next = stop ? stop + 1 : end;
        size_t length = (size_t)((stop ? stop : end) - at);
        length -= length > 0 && at[length - 1] == '\r';
        bool comment = length >= 8 && memcmp(at, "#version", 8) == 0;
        json_t *line = length > 0 && !comment ? json_stringn(at, length) : NULL;
        if (length > 0 && !comment && !line) {
            geul_fail(s->ctx, GEUL_ERROR_FORMAT, "%s/merges.txt: line %zu is not valid UTF-8", s->dir,
                      json_array_size(list) + 1);
            json_decref(list);
            list = NULL;
            break;
        }
        if (line && json_array_append_new(list, line) != 0)
            no_memory(s);
        at = next;
    }
    geul_free(s->ctx, text);
    return list;
}

/* The document that the rest works on. */
static bool make_root(struct source *s)
{
    if (s->files[TOKENIZER]) {
        s->root = json_incref(s->files[TOKENIZER]);
    } else {
        if (!s->files[VOCAB] || !geul_os_has(s->dir, "merges.txt"))
            return no_tokenizer(s);
        if (!s->class) {
            size_t n;
            char shown[64];
            const char *name = class_name(s, &n);
            geul_fail(s->ctx, GEUL_ERROR_UNSUPPORTED,
                      "%s has vocab.json and merges.txt, but tokenizer_class is %s: geul, as transformers, makes a "
                      "tokenizer of them for GPTNeoXTokenizer and GPT2Tokenizer; name one of these in "
                      "tokenizer_config.json",
                      s->dir, name ? geul_printable(name, shown, sizeof shown) : "not named");
            return false;
        }
        json_t *merges = read_merges(s);
        s->root = merges ? json_pack("{s:{s:s, s:O, s:o}}", "model", "type", "BPE", "vocab", s->files[VOCAB], "merges",
                                     merges)
                         : NULL;
    }
    if (s->root && !json_is_array(json_object_get(s->root, "added_tokens")))
        json_object_set_new(s->root, "added_tokens", json_array());
    return s->root || (geul_error_status(s->ctx) == GEUL_OK && no_memory(s));
}

/* ---------------------------------------------------------------------------------- settings -- */

/* A token as the files write it, a text or an object with a text, as an object of added_tokens without an id; NULL when
 * it is neither. A text alone is a special token. */
static json_t *token_object(const json_t *value, bool special)
{
    const json_t *text = json_is_object(value) ? json_object_get(value, "content") : value;
    if (!json_is_string(text) || json_string_length(text) == 0)
        return NULL;
    const json_t *says = json_object_get(value, "special");
    special = json_is_object(value) && json_is_boolean(says) ? json_is_true(says) : special;
    json_t *token = json_pack("{s:O, s:b}", "content", text, "special", special);
    static const char *const flags[] = {"lstrip", "rstrip", "single_word", "normalized"};
    for (size_t i = 0; token && i < 4; i++) {
        bool otherwise = i == 3 && !special;
        const json_t *flag = json_object_get(value, flags[i]);
        json_object_set_new(token, flags[i], json_boolean(json_is_boolean(flag) ? json_is_true(flag) : otherwise));
    }
    return token;
}

/* The text of a token in either form, NULL when it is none. */
static const char *token_text(const json_t *value)
{
    return json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
}

/* Whether a member is a list or an object with something in it. */
static bool has_items(const json_t *v)
{
    return json_array_size(v) > 0 || json_object_size(v) > 0;
}

/* settings: tokenizer_config.json, over which special_tokens_map.json goes where that has no added_tokens_decoder
 * (before it, the map was where special tokens stood), and the tokens that a class has anyway. */
static bool make_settings(struct source *s)
{
    s->settings = s->files[TOKENIZER_CONFIG] ? json_copy(s->files[TOKENIZER_CONFIG]) : json_object();
    if (!s->settings)
        return no_memory(s);
    if (!has_items(json_object_get(s->settings, "extra_special_tokens")) &&
        json_object_get(s->settings, "additional_special_tokens"))
        json_object_set(s->settings, "extra_special_tokens", json_object_get(s->settings, "additional_special_tokens"));
    const char *key;
    json_t *value;
    bool map = !json_object_get(s->settings, "added_tokens_decoder");
    json_object_foreach(map ? s->files[SPECIAL_MAP] : NULL, key, value)
    {
        bool extra = strcmp(key, "extra_special_tokens") == 0, more = strcmp(key, "additional_special_tokens") == 0;
        if (!extra && !more)
            json_object_set(s->settings, key, value);
        else if (!has_items(json_object_get(s->settings, "extra_special_tokens")))
            json_object_set(s->settings, "extra_special_tokens", value);
    }
    for (int i = 0; s->class && i < 3; i++) /* bos, eos and unk */
        if (!json_object_get(s->settings, named[i]))
            json_object_set_new(s->settings, named[i], json_string(end_of_text));
    if (s->class && s->class->padding && !json_object_get(s->settings, "pad_token"))
        json_object_set_new(s->settings, "pad_token", json_string(s->class->padding));
    return true;
}

static bool setting_is(const struct source *s, const char *key)
{
    return json_is_true(json_object_get(s->settings, key));
}

/* Replaces the steps by those of a class that brings its own. */
static bool set_steps(struct source *s)
{
    if (!s->class)
        return true;
    json_t *level = json_pack("{s:s, s:b, s:b}", "type", "ByteLevel", "add_prefix_space",
                              setting_is(s, "add_prefix_space"), "use_regex", 1);
    json_t *nfc = s->class->nfc ? json_pack("{s:s}", "type", "NFC") : json_null();
    json_t *model = json_object_get(s->root, "model");
    const json_t *splits = json_object_get(json_object_get(s->root, "pre_tokenizer"), "type");
    bool changed =
        s->files[TOKENIZER] && (!json_equal(json_object_get(s->root, "normalizer"), nfc) || !json_is_string(splits) ||
                                strcmp(json_string_value(splits), "ByteLevel") != 0);
    if (json_object_set_new(s->root, "normalizer", nfc) || json_object_set_new(s->root, "pre_tokenizer", level) ||
        json_object_set_new(s->root, "decoder", json_pack("{s:s}", "type", "ByteLevel")))
        return no_memory(s);
    static const char *const unused[] = {"unk_token", "ignore_merges", "byte_fallback", "fuse_unk"};
    for (size_t i = 0; i < sizeof unused / sizeof *unused; i++)
        json_object_del(model, unused[i]);
    if (s->files[TOKENIZER] && !s->class->keeps_borders)
        json_object_del(s->root, "post_processor");
    if (changed)
        note(s,
             "%s: the tokenizer is a %s, which has its own normalizer and pre-tokenizer: those of tokenizer.json are "
             "not "
             "used, as in transformers 5 (tokenizer_class PreTrainedTokenizerFast uses them)",
             s->dir, s->class->name);
    return true;
}

/* --------------------------------------------------------------------------------- more tokens -- */

/* The id that a text has in root already, -1: none. */
static json_int_t known_id(const struct source *s, const json_t *text)
{
    const json_t *id = json_object_getn(json_object_get(json_object_get(s->root, "model"), "vocab"),
                                        json_string_value(text), json_string_length(text));
    const json_t *added = json_object_getn(s->by_text, json_string_value(text), json_string_length(text));
    id = added ? json_object_get(added, "id") : id;
    return json_is_integer(id) ? json_integer_value(id) : -1;
}

/* Adds a token as the tokenizers library's add_tokens() does, or gives one that is there already its flags. Takes
 * token; NULL is a failure. wished: the id that a file names for it, -1: none. */
static bool add_token(struct source *s, json_t *token, json_int_t wished)
{
    const json_t *text = json_object_get(token, "content");
    if (!token || !text)
        return no_memory(s);
    json_int_t id = known_id(s, text);
    bool is_new = id < 0;
    id = is_new ? s->next++ : id;
    if (id >= s->rows) {
        count_token(&s->beyond, json_string_value(text));
        json_decref(token);
        return true;
    }
    if (wished >= 0 && wished != id)
        count_token(&s->moved, json_string_value(text));
    json_t *old = json_object_getn(s->by_text, json_string_value(text), json_string_length(text));
    json_object_set_new(token, "id", json_integer(id));
    bool ok = old ? json_object_update(old, token) == 0
                  : json_array_append(json_object_get(s->root, "added_tokens"), token) == 0 &&
                        json_object_setn(s->by_text, json_string_value(text), json_string_length(text), token) == 0;
    json_decref(token);
    return ok || no_memory(s);
}

/* Adds a special token unless it is an added one already, in which case it keeps its flags. */
static bool add_special(struct source *s, const json_t *value)
{
    const json_t *text = json_is_object(value) ? json_object_get(value, "content") : value;
    if (!json_is_string(text) || json_string_length(text) == 0 ||
        json_object_getn(s->by_text, json_string_value(text), json_string_length(text)))
        return true;
    json_t *token = token_object(value, true);
    if (token)
        json_object_set_new(token, "special", json_true());
    return add_token(s, token, -1);
}

/* A token with the id that a file names for it. */
struct wish {
    json_int_t id;
    const char *text;    /* added_tokens.json */
    const json_t *value; /* added_tokens_decoder; NULL: text */
};

static int by_id(const void *a, const void *b)
{
    const struct wish *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

/* Whether the text is one of the named special tokens of the settings or, with extras, one of the others. */
static bool is_named(const struct source *s, const char *text, bool extras)
{
    const json_t *extra = json_object_get(s->settings, "extra_special_tokens"), *v;
    size_t i;
    for (i = 0; i < N_NAMED; i++) {
        const char *other = token_text(json_object_get(s->settings, named[i]));
        if (other && strcmp(other, text) == 0)
            return true;
    }
    json_array_foreach(extras ? extra : NULL, i, v)
    {
        const char *other = token_text(v);
        if (other && strcmp(other, text) == 0)
            return true;
    }
    return false;
}

/* Fills the list of wishes with what the file's object holds; false for a value that is no token. */
static bool list_wishes(struct source *s, json_t *from, bool decoder, struct wish *wishes)
{
    const char *key;
    json_t *value;
    size_t n = 0;
    json_object_foreach(from, key, value)
    {
        char *end = NULL;
        json_int_t id = decoder ? strtoll(key, &end, 10) : json_integer_value(value);
        if (decoder ? *end || !json_is_object(value) || !token_text(value) : !json_is_integer(value))
            return malformed(s, decoder ? TOKENIZER_CONFIG : ADDED,
                             decoder ? "added_tokens_decoder is not ids with their tokens"
                                     : "the file is not tokens with their ids");
        wishes[n++] = (struct wish){id, key, decoder ? value : NULL};
    }
    qsort(wishes, n, sizeof *wishes, by_id);
    return true;
}

/* Adds the tokens of added_tokens_decoder, or without one of added_tokens.json, in the order of their ids. */
static bool add_wishes(struct source *s)
{
    json_t *decoder = json_object_get(s->settings, "added_tokens_decoder");
    json_t *from = decoder ? decoder : s->files[ADDED];
    size_t n = json_object_size(from);
    struct wish *wishes = n ? geul_alloc(s->ctx, n, sizeof *wishes) : NULL;
    bool ok = n == 0 || (wishes && list_wishes(s, from, decoder != NULL, wishes));
    for (size_t i = 0; ok && i < n; i++) {
        const struct wish *w = &wishes[i];
        if (w->value ? json_string_length(json_object_get(w->value, "content")) == 0 : !w->text[0])
            continue; /* as add_tokens() passes over a token without a text */
        json_t *text = json_string(w->text);
        json_t *token = w->value ? token_object(w->value, false) : token_object(text, is_named(s, w->text, true));
        if (token && w->value && is_named(s, token_text(w->value), false))
            json_object_set_new(token, "special", json_true());
        /* without an added_tokens_decoder tokenizer.json's own flags stand */
        const json_t *content = json_object_get(token, "content");
        if (!w->value && token && json_object_getn(s->by_text, json_string_value(content), json_string_length(content)))
            json_decref(token);
        else
            ok = add_token(s, token, w->id);
        json_decref(text);
    }
    geul_free(s->ctx, wishes);
    return ok;
}

/* Whether a key names a special token of a model's own, such as "image_token". */
static bool is_own_token(const char *key, const json_t *value)
{
    static const char ending[] = "_token";
    size_t n = strlen(key);
    for (int i = 0; i < N_NAMED; i++)
        if (strcmp(key, named[i]) == 0)
            return false;
    return n >= sizeof ending && strcmp(key + n - (sizeof ending - 1), ending) == 0 && token_text(value);
}

/* Removes from root's added_tokens those without a row in the model. */
static void drop_beyond(struct source *s, json_t *added)
{
    for (size_t i = json_array_size(added); i-- > 0;) {
        const json_t *token = json_array_get(added, i), *id = json_object_get(token, "id");
        const char *text = token_text(token);
        if (!json_is_integer(id) || json_integer_value(id) < s->rows || !text)
            continue;
        count_token(&s->beyond, text);
        json_array_remove(added, i);
    }
}

/* Adds the tokens that only the other files name. */
static bool add_tokens(struct source *s)
{
    json_t *added = json_object_get(s->root, "added_tokens"), *token, *value;
    json_int_t most = -1;
    size_t i;
    const char *key;
    drop_beyond(s, added);
    s->by_text = json_object();
    json_array_foreach(added, i, token)
    {
        const json_t *text = json_object_get(token, "content"), *id = json_object_get(token, "id");
        if (json_is_string(text) && json_is_integer(id)) {
            json_object_setn(s->by_text, json_string_value(text), json_string_length(text), token);
            most = json_integer_value(id) > most ? json_integer_value(id) : most;
        }
    }
    json_t *vocab = json_object_get(json_object_get(s->root, "model"), "vocab");
    json_object_foreach(vocab, key, value)
    {
        if (json_is_integer(value) && json_integer_value(value) > most)
            most = json_integer_value(value);
    }
    s->next = most < INT32_MAX ? most + 1 : INT32_MAX;
    if (!s->by_text)
        return no_memory(s);
    if (!add_wishes(s))
        return false;
    for (i = 0; i < N_NAMED; i++)
        if (!add_special(s, json_object_get(s->settings, named[i])))
            return false;
    json_object_foreach(s->settings, key, value) if (is_own_token(key, value) && !add_special(s, value)) return false;
    json_t *extra = json_object_get(s->settings, "extra_special_tokens");
    json_object_foreach(json_is_object(extra) ? extra : NULL, key, value) if (!add_special(s, value)) return false;
    json_array_foreach(extra, i, value) if (!add_special(s, value)) return false;
    if (setting_is(s, "split_special_tokens"))
        note(s,
             "%s: split_special_tokens is not used: special tokens in a text count as such (geul tokenize --plain "
             "treats "
             "them as ordinary text)",
             s->dir);
    if (s->moved.n)
        note(s,
             "%s: tokens that get other ids than the files name, the next free ones, as in transformers: %d, the first "
             "%s",
             s->dir, s->moved.n, s->moved.first);
    if (s->beyond.n)
        note(s,
             "%s: added tokens beyond the %lld rows of the model, which are left out (their text is ordinary text; "
             "transformers fails at them): %d, the first %s",
             s->dir, (long long)s->rows, s->beyond.n, s->beyond.first);
    return true;
}

/* -------------------------------------------------------------------------------------- ends -- */

/* The id of a named special token, -1: none. */
static int32_t named_id(const struct source *s, const struct geul_tokenizer_spec *spec, const char *key)
{
    const char *text = token_text(json_object_get(s->settings, key));
    return text ? geul_tokenizer_spec_find(spec, text, strlen(text)) : -1;
}

/* Without a tokenizer.json, add_bos_token and add_eos_token say what is put around a text; with one, its post-processor
 * does, and transformers ignores both. */
static void set_borders(const struct source *s, struct geul_tokenizer_spec *spec, int32_t own)
{
    if (s->files[TOKENIZER])
        return;
    if (setting_is(s, "add_bos_token") && spec->bos >= 0)
        geul_tok_ids_add(&spec->before, spec->bos);
    if (setting_is(s, "add_eos_token") && own >= 0)
        geul_tok_ids_add(&spec->after, own);
}

/* Sets what begins and ends a text, and says what is put right. */
static void set_ends(struct source *s, struct geul_tokenizer_spec *spec)
{
    const char *name = token_text(json_object_get(s->settings, "eos_token"));
    int32_t own = named_id(s, spec, "eos_token");
    bool wrong, is_usual = name && strcmp(name, end_of_text) == 0;
    spec->bos = named_id(s, spec, "bos_token");
    spec->ends = geul_end_ids_choose(s->files[CONFIG], s->files[GENERATION], own, is_usual, spec->n_tokens, &wrong);
    int32_t usual = geul_tokenizer_spec_find(spec, end_of_text, sizeof end_of_text - 1);
    if (own < 0 && usual > 0 && spec->ends.n == 1 && spec->ends.id[0] == 0 && geul_tokenizer_spec_is_unused(spec, 0)) {
        wrong = true; /* the same files without the tokenizer's settings */
        own = spec->ends.id[0] = usual;
    }
    set_borders(s, spec, own);
    if (wrong)
        note(s, "config.json says that id 0 ends a text; the tokenizer's %s is %d, which is used instead", end_of_text,
             own);
    if (spec->ends.n == 0 && usual >= 0)
        geul_tok_ids_add(&spec->ends, usual);
    if (spec->ends.n == 0)
        note(s, "%s: no file names a token that ends a text, and there is no %s", s->dir, end_of_text);
    if (spec->bos < 0 && spec->ends.n > 0)
        spec->bos = spec->ends.id[0]; /* as in GPT-NeoX's own training data: one token between texts */
}

enum geul_status geul_tokenizer_spec_from_directory(struct geul_context *ctx, const char *dir,
                                                    struct geul_tokenizer_spec *spec,
                                                    struct geul_tokenizer_notes *notes)
{
    struct source s = {.ctx = ctx, .dir = dir, .rows = INT32_MAX, .notes = notes};
    notes->n = 0;
    bool ok = load(&s);
    if (ok) {
        const json_t *rows = json_object_get(s.files[CONFIG], "vocab_size");
        if (json_is_integer(rows) && json_integer_value(rows) > 0 && json_integer_value(rows) < INT32_MAX)
            s.rows = json_integer_value(rows);
        choose_class(&s);
        ok = make_root(&s) && make_settings(&s);
        /* where there is no vocabulary of the usual form, the reader says what is wrong */
        if (ok && json_is_object(json_object_get(json_object_get(s.root, "model"), "vocab")))
            ok = set_steps(&s) && add_tokens(&s);
        ok = ok && geul_tokenizer_spec_from_object(ctx, s.root, spec) == GEUL_OK;
    }
    if (ok)
        set_ends(&s, spec);
    json_decref(s.by_text);
    json_decref(s.root);
    json_decref(s.settings);
    for (int i = 0; i < N_FILES; i++)
        json_decref(s.files[i]);
    return ok ? GEUL_OK : geul_error_status(ctx);
}

struct geul_tokenizer *geul_tokenizer_from_json(struct geul_context *ctx, const char *path)
{
    static const char ending[] = ".json";
    struct geul_tokenizer_spec spec;
    struct geul_tokenizer_notes notes = {.n = 0};
    struct geul_tokenizer *tok = NULL;
    struct geul_map map = {0};
    size_t n = strlen(path);
    enum geul_status status;
    geul_error_clear(ctx);
    geul_tokenizer_spec_init(&spec);
    if (n < sizeof ending || strcmp(path + n - (sizeof ending - 1), ending) != 0) {
        status = geul_tokenizer_spec_from_directory(ctx, path, &spec, &notes);
    } else {
        status = geul_os_map(ctx, path, &map);
        if (status == GEUL_OK)
            status = geul_tokenizer_spec_from_json(ctx, (const char *)map.data, map.size, &spec);
        geul_os_unmap(&map);
    }
    if (status == GEUL_OK)
        tok = geul_tokenizer_new(ctx, &spec, geul_regex_pcre2());
    if (tok)
        geul_tokenizer_notes_log(ctx, &notes);
    geul_tokenizer_spec_free(ctx, &spec);
    return tok;
}
