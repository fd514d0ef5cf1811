/* cmd_tokenize.c: `geul tokenize` turns lines of text into lines of ids, and back, and files into token shards. */
#include "command/command.h"
#include "command/model_args.h"
#include "command/report.h"
#include "command/shard_files.h"
#include "command/text_input.h"

#include "geul_tools.h"
#include "core/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct settings {
    const char *source, *text, *shards, *template_name, *encoding, *nfc;
    int shard_tokens;
    bool decode, pieces, plain, bare, json;
};

#define SETTINGS struct settings
/* clang-format off */
static const struct geul_option options[] = {
    REQUIRED_PATH("-m, --model",    source,        "FILE", FILE_OR_DIR,
                  "where the tokenizer is: a GGUF file, a tokenizer.json or a Hugging Face directory"),
    OPTION_TEXT(  "-p, --prompt",   text,          "TEXT",
                  "the text, which may have several lines; without it every line of standard input is one"),
    OPTION_FLAG(  "--decode",       decode,        "the input is ids, the output text"),
    OPTION_FLAG(  "--pieces",       pieces,        "one token per line: its id and its text"),
    OPTION_FLAG(  "--plain",        plain,         "treats special tokens in the text as ordinary text"),
    OPTION_FLAG(  "--no-bos",       bare,          "leaves out what the tokenizer puts before and after every text"),
    OPTION_FLAG(  "--json",         json,          "one JSON object per line: ids and pieces, or text"),
    OPTION_TEXT(  "--shards",       shards,        "PREFIX",
                  "writes the rows of the FILEs as training data: PREFIX-00000.geulshard and so on"),
    OPTION_INT(   "--shard-tokens", shard_tokens,  0, 1 << 30, "most tokens of a shard, 0: 134217728"),
    OPTION_PATH(  "--template",     template_name, "NAME", NAME_OR_FILE,
                  "with --shards: koalpaca, kullm, kgoat or a file, for rows that are questions and answers; without "
                  "it these are joined as they are"),
    OPTION_TEXT(  "--encoding",     encoding,      "NAME",
                  "with --shards: of the FILEs, as iconv names it: cp949, utf-16; UTF-8 when not given"),
    GEUL_NFC_OPTION("the rows of --shards"),
    OPTION_END,
};
/* clang-format on */

static const struct geul_command_help help = {
    .name = "tokenize",
    .usage = "-m FILE [-p TEXT | --shards PREFIX FILE...] [options]",
    .summary = "text to token ids and back: one line of ids per line of text",
    .about =
        "With --shards it makes token shards, a corpus that is mapped for training. Each FILE holds rows with "
        "text, instruction and output, messages, question and answer, or prompt and completion: JSON Lines, a JSON "
        "array, a table (.csv, .tsv), or, when its name ends in .txt, one document. Documents end with <|endoftext|>; "
        "that text inside a document is ordinary "
        "text. Rows that cannot be used are reported and left out. The shards appear once all of them are complete.",
    .example = "geul tokenize -m polyglot.gguf -p \"안녕하세요\"\n"
               "geul tokenize -m polyglot-ko-1.3b < corpus.txt > ids.txt\n"
               "geul tokenize -m polyglot-ko-1.3b --decode < ids.txt\n"
               "geul tokenize -m polyglot.gguf --shards corpus/ko news.jsonl wiki.txt",
    .options = options,
    .max_args = GEUL_ARGS_MAX,
    .arg_name = "a file",
};

/* The tokenizer of a directory, a .json or a GGUF file. NULL on failure. */
static struct geul_tokenizer *load(struct geul_context *ctx, const char *path)
{
    struct stat st;
    size_t n = strlen(path);
    bool json = (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) || (n > 5 && strcmp(path + n - 5, ".json") == 0);
    return json ? geul_tokenizer_from_json(ctx, path) : geul_tokenizer_load(ctx, path, geul_regex());
}

/* Bytes as printable text: control characters, backslashes and broken UTF-8 as escapes. out holds 4 * n + 1 bytes. */
static const char *visible(const char *bytes, size_t n, char *out)
{
    static const char hex[] = "0123456789abcdef";
    char *at = out;
    for (size_t i = 0; i < n;) {
        unsigned char c = (unsigned char)bytes[i];
        size_t size = c == '\\' ? 0 : geul_printable_length(bytes + i, n - i);
        if (size > 0) {
            memcpy(at, bytes + i, size);
            at += size;
            i += size;
        } else if (c == '\n' || c == '\\') {
            *at++ = '\\';
            *at++ = c == '\n' ? 'n' : '\\';
            i++;
        } else {
            at += sprintf(at, "\\x%c%c", hex[c >> 4], hex[c & 15]);
            i++;
        }
    }
    *at = '\0';
    return out;
}

/* A token's text in printable form; free with free(). NULL when memory is short. */
static char *piece(const struct geul_tokenizer *tok, int32_t id)
{
    size_t n;
    const char *bytes = geul_token_text(tok, id, &n);
    char *out = malloc(4 * n + 1);
    if (out)
        visible(bytes, n, out);
    return out;
}

static int print_ids_json(const struct settings *s, const struct geul_tokenizer *tok, const int32_t *ids, size_t n)
{
    json_t *json = json_pack("{s:o}", "ids", geul_report_json_ids(ids, n));
    json_t *pieces = s->pieces ? json_array() : NULL;
    for (size_t i = 0; pieces && i < n; i++) {
        char *text = piece(tok, ids[i]);
        json_array_append_new(pieces, text ? json_string(text) : json_null());
        free(text);
    }
    if (pieces)
        json_object_set_new(json, "pieces", pieces);
    return geul_report_json_line(json);
}

/* By hand, since most of the time would go to printf("%d"). */
static void print_id(int32_t id, bool first)
{
    char digits[12];
    int at = sizeof digits;
    uint32_t v = (uint32_t)id;
    do {
        digits[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    if (!first)
        putchar(' ');
    fwrite(digits + at, 1, sizeof digits - (size_t)at, stdout);
}

/* Prints the ids of one text. Returns the exit code. */
static int encode(const struct settings *s, struct geul_context *ctx, const struct geul_tokenizer *tok,
                  const char *text, size_t length)
{
    int32_t *ids;
    size_t n;
    int code = 0;
    enum geul_status status = s->bare ? geul_tokenize(ctx, tok, text, length, !s->plain, &ids, &n)
                                      : geul_tokenize_whole(ctx, tok, text, length, !s->plain, false, &ids, &n);
    if (status != GEUL_OK)
        return geul_report_failure(ctx);
    if (s->json) {
        code = print_ids_json(s, tok, ids, n);
    } else if (s->pieces) {
        for (size_t i = 0; i < n; i++) {
            char *shown = piece(tok, ids[i]);
            printf("%d\t%s\n", ids[i], shown ? shown : "");
            free(shown);
        }
    } else {
        for (size_t i = 0; i < n; i++)
            print_id(ids[i], i == 0);
        putchar('\n');
    }
    geul_tokens_free(ctx, ids);
    return code;
}

/* Reads the next id of a line of numbers, separated by white space, commas or brackets. 0: the end, -1: not a number.
 */
static int next_id(const char **at, int32_t *id)
{
    *at += strspn(*at, " \t\r,[]");
    if (!**at)
        return 0;
    char *end;
    long v = strtol(*at, &end, 10);
    if (end == *at || v < 0 || v > INT32_MAX)
        return -1;
    *at = end;
    *id = (int32_t)v;
    return 1;
}

/* Prints the text of one line of ids. Returns the exit code. */
static int decode(const struct settings *s, struct geul_context *ctx, const struct geul_tokenizer *tok,
                  const char *line, size_t length)
{
    int32_t *ids = malloc((length / 2 + 1) * sizeof *ids), id;
    size_t n = 0, text_length = 0;
    int more;
    const char *at = line;
    if (!ids)
        return geul_report_error("out of memory");
    while ((more = next_id(&at, &id)) > 0) {
        if (id >= geul_tokenizer_size(tok)) {
            free(ids);
            return geul_report_error("id %d is outside the vocabulary of %d", id, geul_tokenizer_size(tok));
        }
        ids[n++] = id;
    }
    if (more < 0 || at < line + length) { /* ids end before the line where it holds a NUL byte */
        free(ids);
        return geul_report_error("\"%.20s\" is not a token id", *at ? at : "NUL byte");
    }
    char *text = geul_detokenize(ctx, tok, ids, n, false, &text_length);
    free(ids);
    if (!text)
        return geul_report_failure(ctx);
    if (s->json) {
        geul_report_json_line(json_pack("{s:o}", "text", geul_report_json_text(text, text_length)));
    } else {
        fwrite(text, 1, text_length, stdout);
        putchar('\n');
    }
    geul_text_free(ctx, text);
    return 0;
}

/* Works on -p or on every line of standard input. Returns the exit code. */
static int run_lines(const struct settings *s, struct geul_context *ctx, const struct geul_tokenizer *tok)
{
    int (*work)(const struct settings *, struct geul_context *, const struct geul_tokenizer *, const char *, size_t) =
        s->decode ? decode : encode;
    char *line = NULL;
    size_t capacity = 0, length;
    int code = 0;
    if (s->text)
        return work(s, ctx, tok, s->text, strlen(s->text));
    while (code == 0 && !ferror(stdout) && geul_text_input_line(stdin, &line, &capacity, &length))
        code = s->decode || geul_text_input_check(line, length) ? work(s, ctx, tok, line, length) : 1;
    free(line);
    return code;
}

/* 0, or 2 after a message about options that do not go together. */
static int check_usage(const struct settings *s, const char *const *args, int n_args)
{
    if (s->decode && s->pieces)
        return geul_report_usage("--decode and --pieces exclude each other");
    if (!s->shards && n_args)
        return geul_report_usage("\"%s\" is one argument too many", args[0]);
    if (!s->shards && (s->shard_tokens || s->template_name || s->encoding))
        return geul_report_usage("%s is possible only with --shards", s->shard_tokens    ? "--shard-tokens"
                                                                      : s->template_name ? "--template"
                                                                                         : "--encoding");
    if (s->shards && (s->text || s->decode || s->pieces || s->plain || s->bare))
        return geul_report_usage("--shards reads files; -p, --decode, --pieces, --plain and --no-bos are not possible "
                                 "with it");
    if (s->template_name && strcmp(s->template_name, "auto") == 0)
        return geul_report_usage("--template: auto is not possible here; use koalpaca, kullm, kgoat or a file");
    if (s->shards && n_args == 0)
        return geul_report_usage("--shards needs at least one FILE");
    if (s->shards && s->shard_tokens == 1)
        return geul_report_usage("--shard-tokens: at least 2 are needed");
    return 0;
}

int geul_cmd_tokenize(int argc, char **argv)
{
    struct settings s = {.nfc = "auto"};
    const char *args[GEUL_ARGS_MAX];
    int n_args, code;
    if (!geul_options_parse(&help, argc, argv, &s, args, &n_args, &code))
        return code;
    code = check_usage(&s, args, n_args);
    if (code)
        return code;
    struct geul_context *ctx = geul_report_context(false);
    if (!ctx)
        return 1;
    struct geul_tokenizer *tok = load(ctx, s.source);
    struct geul_shard_files files = {.prefix = s.shards,
                                     .template_name = s.template_name,
                                     .encoding = s.encoding,
                                     .nfc = geul_nfc_of(s.nfc),
                                     .shard_tokens = s.shard_tokens,
                                     .paths = args,
                                     .n_paths = n_args,
                                     .json = s.json};
    if (!tok)
        code = geul_report_failure(ctx);
    else
        code = s.shards ? geul_shard_files_write(ctx, tok, &files) : run_lines(&s, ctx, tok);
    geul_tokenizer_free(tok);
    geul_report_context_free(ctx);
    return code;
}
