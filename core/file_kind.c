/* file_kind.c: see file_kind.h. */
#include "core/file_kind.h"

#include "core/os.h"

#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

#define CONVERT  "convert the directory that it belongs to (geul convert DIR -o FILE)"
#define UNPACK   "unpack it first"
#define FETCH    "fetch the file itself: `git lfs pull` in its directory, or download it again"

/* Marks at the start of a file, in the order in which they are looked for. */
static const struct mark {
    size_t at;
    const char *bytes;
    size_t n;
    struct geul_file_kind kind;
} marks[] = {
#define MARK(at, bytes, file, what, advice) {at, bytes, sizeof bytes - 1, {GEUL_FILE_##file, what, advice}},
    /* clang-format off */
    MARK(0, "GGUF", OTHER, "a GGUF file", "it is converted already, and can be used as it is")
    MARK(0, "version https://git-lfs.github.com/spec/", POINTER, "a git-lfs pointer, a few lines that stand for the file", FETCH)
    MARK(0, "version https://hawser.github.com/spec/", POINTER, "a git-lfs pointer, a few lines that stand for the file", FETCH)
    MARK(0, "PK\3\4", TORCH, "a ZIP archive, as torch.save() writes checkpoints", CONVERT)
    MARK(0, "PK\5\6", OTHER, "an empty ZIP archive", "fetch it again")
    MARK(0, "\x80\2\x8a\nl\xfc\x9c\x46\xf9\x20j\xa8P\x19.", TORCH, "a PyTorch checkpoint", CONVERT)
    MARK(0, "\x93NUMPY", OTHER, "a NumPy array", "geul writes such files and reads none")
    MARK(0, "geulshrd", OTHER, "a token shard", "training takes it as data (--train-file)")
    MARK(0, "geulbase", OTHER, "the logits of a base model", "an evaluation compares with it (geul perplexity --kl-base)")
    MARK(0, "lmgg", OTHER, "a model in a format from before GGUF (ggml)", "convert the original weights")
    MARK(0, "fmgg", OTHER, "a model in a format from before GGUF (ggmf)", "convert the original weights")
    MARK(0, "tjgg", OTHER, "a model in a format from before GGUF (ggjt)", "convert the original weights")
    MARK(0, "algg", OTHER, "an adapter in a format from before GGUF (ggla)", "convert the original adapter")
    MARK(0, "\x89HDF", OTHER, "an HDF5 file, as TensorFlow saves weights", "take the safetensors or .bin version of the model")
    MARK(0, "PAR1", OTHER, "a Parquet file", "it holds rows of data, no weights")
    MARK(0, "\x1f\x8b", OTHER, "a gzip archive", UNPACK)
    MARK(0, "BZh", OTHER, "a bzip2 archive", UNPACK)
    MARK(0, "\xfd" "7zXZ", OTHER, "an xz archive", UNPACK)
    MARK(0, "\x28\xb5\x2f\xfd", OTHER, "a zstd archive", UNPACK)
    MARK(0, "7z\xbc\xaf", OTHER, "a 7-Zip archive", UNPACK)
    MARK(257, "ustar", OTHER, "a tar archive", UNPACK)
    MARK(0, "<!DOCTYPE html", OTHER, "a web page", "a download went wrong: fetch the file again")
    MARK(0, "<!doctype html", OTHER, "a web page", "a download went wrong: fetch the file again")
    MARK(0, "<html", OTHER, "a web page", "a download went wrong: fetch the file again")
/* clang-format on */
#undef MARK
};

/* Kinds without such a mark. */
static const struct geul_file_kind safetensors = {GEUL_FILE_SAFETENSORS, "a safetensors file", CONVERT},
                                   dat = {GEUL_FILE_DAT, "an importance matrix in llama.cpp's .dat form",
                                          GEUL_FILE_QUANTIZE},
                                   empty = {GEUL_FILE_TEXT, "empty", "fetch it again"},
                                   json = {GEUL_FILE_JSON, "JSON", "a model's weights are other files"},
                                   text = {GEUL_FILE_TEXT, "a text", "a model's weights are other files"};

/* Files that tell what a directory holds, in the order in which they are looked for. */
static const struct {
    const char *file;
    struct geul_file_kind kind;
} insides[] = {
    {"config.json", {GEUL_FILE_OTHER, "a directory of Hugging Face", "convert it first (geul convert DIR -o FILE)"}},
    {"adapter_config.json",
     {GEUL_FILE_OTHER, "a directory of an adapter (PEFT)",
      "add it to the model that it was made for (-m MODEL --lora DIR)"}},
    {"adapter.gguf", {GEUL_FILE_OTHER, "the directory of a training run", "its adapter is adapter.gguf in it"}},
    {"model.gguf", {GEUL_FILE_OTHER, "the directory of a training run", "its model is model.gguf in it"}},
    {"model.safetensors",
     {GEUL_FILE_OTHER, "a directory of weights without their config.json", "fetch config.json and the tokenizer too"}},
    {"pytorch_model.bin",
     {GEUL_FILE_OTHER, "a directory of weights without their config.json", "fetch config.json and the tokenizer too"}},
};

static bool is_space(uint8_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* u64 length of the header, then the header, an object. */
static bool is_safetensors(const uint8_t *p, size_t n)
{
    return n > 9 && p[8] == '{' && p[7] == 0 && p[6] == 0 && p[5] == 0 &&
           (p[9] == '"' || p[9] == '}' || is_space(p[9]));
}

/* i32 entries, i32 length of the first name, which begins as those of llama.cpp do. */
static bool is_dat(const uint8_t *p, size_t n)
{
    return n > 12 && p[3] == 0 && p[5] == 0 && p[6] == 0 && p[7] == 0 &&
           (memcmp(p + 8, "blk.", 4) == 0 || memcmp(p + 8, "outp", 4) == 0);
}

/* Text for as far as is looked, at most 256 bytes: no control characters. */
static bool is_text(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n && i < 256; i++)
        if ((p[i] < 0x20 && !is_space(p[i])) || p[i] == 0x7f || p[i] == 0xff)
            return false;
    return true;
}

const struct geul_file_kind *geul_file_kind_of(const void *data, size_t size)
{
    const uint8_t *p = data;
    size_t at = 0;
    if (size == 0)
        return &empty;
    for (size_t i = 0; i < COUNT(marks); i++)
        if (size >= marks[i].at + marks[i].n && memcmp(p + marks[i].at, marks[i].bytes, marks[i].n) == 0)
            return &marks[i].kind;
    if (is_safetensors(p, size))
        return &safetensors;
    if (is_dat(p, size))
        return &dat;
    if (!is_text(p, size))
        return NULL;
    while (at < size && at < 256 && is_space(p[at]))
        at++;
    return at < size && (p[at] == '{' || p[at] == '[') ? &json : &text;
}

const struct geul_file_kind *geul_file_kind_foreign(const void *data, size_t size, enum geul_file own)
{
    const struct geul_file_kind *kind = geul_file_kind_of(data, size);
    return kind && kind->file != own && kind->file != GEUL_FILE_TEXT ? kind : NULL;
}

const struct geul_file_kind *geul_file_kind_of_directory(const char *path)
{
    for (size_t i = 0; i < COUNT(insides); i++)
        if (geul_os_has(path, insides[i].file))
            return &insides[i].kind;
    return NULL;
}

enum geul_status geul_fail_kind(struct geul_context *ctx, const char *name, const char *wanted,
                                const struct geul_file_kind *kind)
{
    if (!kind)
        return geul_fail(ctx, GEUL_ERROR_FORMAT, "%s is not %s", name, wanted);
    return geul_fail(ctx, GEUL_ERROR_FORMAT, "%s is not %s: it is %s; %s", name, wanted, kind->what, kind->advice);
}
