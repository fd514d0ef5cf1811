/* test_wrong_files.c: a file of one kind given where another is asked for. Each door names it as what it is and says
 * what to do with it. */
#include "tests/command/command_fixture.h"

#include "core/gguf.h"

#include <sys/stat.h>

#define LFS                                                                                                            \
    "version https://git-lfs.github.com/spec/v1\noid sha256:"                                                          \
    "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 2662345678\n"
#define POINTER "it is a git-lfs pointer, a few lines that stand for the file; fetch the file itself: `git lfs pull`"

struct wrong {
    const char *name, *what; /* what: part of every door's message */
};

/* The files, made or copied into `dir`. */
static const struct wrong files[] = {
    {"lfs.gguf", POINTER},
    {"page.gguf", "it is a web page; a download went wrong"},
    {"weights.safetensors", "it is a safetensors file; convert the directory that it belongs to"},
    {"new.bin", "it is a ZIP archive, as torch.save() writes checkpoints; convert the directory"},
    {"old.bin", "it is a PyTorch checkpoint; convert the directory"},
    {"logits.npy", "it is a NumPy array"},
    {"shard.bin", "it is a token shard; training takes it"},
    {"base.logits", "it is the logits of a base model; an evaluation compares"},
    {"packed.gguf", "it is a gzip archive; unpack it"},
    {"config.json", "it is JSON; a model's weights are other files"},
    {"note.txt", "it is a text"},
    {"old.ggml", "it is a model in a format from before GGUF (ggjt); convert the original"},
};
enum { N_FILES = sizeof files / sizeof *files };

static struct test_kept in(const struct test_kept *dir, const char *file)
{
    struct test_kept p;
    snprintf(p.text, sizeof p.text, "%.900s/%s", dir->text, file);
    return p;
}

static void put(const struct test_kept *dir, const char *file, const char *data, size_t size)
{
    struct test_kept path = in(dir, file);
    CHECK(test_spill(path.text, data, size));
}

static void copy(const struct test_kept *dir, const char *file, const char *from)
{
    size_t size = 0;
    char *data = test_slurp(test_path(from), &size);
    REQUIRE(data);
    put(dir, file, data, size);
    free(data);
}

/* Every file of the table, and GGUF files of each kind. */
static struct test_kept make_files(void)
{
    struct test_kept dir = test_keep(test_scratch("wrong"));
    CHECK(mkdir(dir.text, 0700) == 0);
    put(&dir, "lfs.gguf", LFS, sizeof LFS - 1);
    put(&dir, "page.gguf", "<!DOCTYPE html>\n<html><body>404</body></html>\n", 46);
    copy(&dir, "weights.safetensors", "golden/torch_forms/model.safetensors");
    copy(&dir, "new.bin", "golden/torch_forms/strided.bin");
    copy(&dir, "old.bin", "golden/torch_forms/legacy.bin");
    copy(&dir, "logits.npy", "golden/torch_forms/logits.npy");
    copy(&dir, "shard.bin", "fuzz/seeds/fuzz_shard/narrow");
    copy(&dir, "base.logits", "fuzz/seeds/fuzz_base_logits/stride");
    put(&dir, "packed.gguf", "\x1f\x8b\x08\0\0\0\0\0\0\3\1\2", 12);
    copy(&dir, "config.json", "golden/torch_forms/config.json");
    put(&dir, "note.txt", "hello\n", 6);
    put(&dir, "old.ggml", "tjgg\3\0\0\0\1\2\3\4", 12);
    copy(&dir, "imatrix.gguf", "fuzz/seeds/fuzz_imatrix/gguf");
    put(&dir, "imatrix.dat", "\1\0\0\0\23\0\0\0blk.0.ffn_up.weight\1\0\0\0\1\0\0\0\0\0\200\77", 39);
    copy(&dir, "adapter.gguf", "fuzz/seeds/fuzz_adapter/lora");
    struct geul_context *ctx = geul_context_new(NULL);
    struct test_kept path = in(&dir, "checkpoint.gguf");
    struct geul_gguf_writer *w = geul_gguf_writer_new(ctx, path.text);
    geul_gguf_set_string(w, "general.architecture", "gptneox", 7);
    geul_gguf_set_string(w, "general.type", "checkpoint", 10);
    CHECK(geul_gguf_writer_commit(w) == GEUL_OK);
    geul_context_free(ctx);
    return dir;
}

TEST(wrong_files_at_every_door_are_named)
{
    const char *fixture = fixture_model();
    REQUIRE(fixture);
    struct test_kept m = test_keep(fixture), dir = make_files(), out = test_keep(test_scratch("out"));
    for (int i = 0; i < N_FILES; i++) {
        struct test_kept f = in(&dir, files[i].name);
        const char *what = files[i].what;
        fixture_fails(GEUL("logits", "-m", f.text, "--ids", "1", "-o", out.text), 1, "geul logits: ", what);
        fixture_fails(GEUL("logits", "-m", m.text, "--lora", f.text, "--ids", "1", "-o", out.text), 1,
                      "geul logits: ", what);
        fixture_fails(GEUL("quantize", f.text, out.text, "q8_0"), 1, "geul quantize: ", what);
        fixture_fails(GEUL("quantize", m.text, out.text, "q8_0", "--imatrix", f.text), 1, "geul quantize: ", what);
        fixture_fails(GEUL("convert", f.text, "-o", out.text), 1, "geul convert: ", what);
        if (strcmp(files[i].name, "base.logits") != 0)
            fixture_fails(GEUL("perplexity", "-m", m.text, "-p", "가나다", "--kl-base", f.text), 1,
                          "geul perplexity: ", what);
    }
}

TEST(wrong_files_of_gguf_are_named_by_their_type)
{
    static const struct wrong kinds[] = {
        {"adapter.gguf", "is not a model: it is an adapter (LoRA); load the model that it was made for and add it"},
        {"imatrix.gguf", "is not a model: it is an importance matrix; quantizing takes it (geul quantize --imatrix)"},
        {"checkpoint.gguf", "is not a model: it is a checkpoint of a training run; training goes on from it"},
        {"imatrix.dat", "is not a GGUF file: it is an importance matrix in llama.cpp's .dat form"},
    };
    const char *fixture = fixture_model();
    REQUIRE(fixture);
    struct test_kept m = test_keep(fixture), dir = make_files(), out = test_keep(test_scratch("out"));
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct test_kept f = in(&dir, kinds[i].name);
        fixture_fails(GEUL("logits", "-m", f.text, "--ids", "1", "-o", out.text), 1, "geul logits: ", kinds[i].what);
        fixture_fails(GEUL("complete", "-m", f.text, "-p", "x"), 1, "geul complete: ", kinds[i].what);
        fixture_fails(GEUL("quantize", f.text, out.text, "q8_0"), 1, "geul quantize: ", kinds[i].what);
        fixture_fails(GEUL("merge", "-m", f.text, "--lora", f.text, "-o", out.text), 1, "geul merge: ", kinds[i].what);
    }
    /* and the other way round */
    struct test_kept imatrix = in(&dir, "imatrix.gguf"), adapter = in(&dir, "adapter.gguf");
    fixture_fails(GEUL("logits", "-m", m.text, "--lora", m.text, "--ids", "1", "-o", out.text), 1,
                  "geul logits: ", "is not an adapter: it is a model; it can be used as one (-m)");
    fixture_fails(GEUL("logits", "-m", m.text, "--lora", imatrix.text, "--ids", "1", "-o", out.text), 1,
                  "geul logits: ", "is not an adapter: it is an importance matrix; quantizing takes it");
    fixture_fails(GEUL("quantize", m.text, out.text, "q8_0", "--imatrix", m.text), 1,
                  "geul quantize: ", "is not an importance matrix: it is a model");
    fixture_fails(GEUL("quantize", m.text, out.text, "q8_0", "--imatrix", adapter.text), 1,
                  "geul quantize: ", "is not an importance matrix: it is an adapter (LoRA)");
}

TEST(wrong_files_that_are_directories_are_named)
{
    const char *fixture = fixture_model();
    REQUIRE(fixture);
    struct test_kept m = test_keep(fixture), hf = test_keep(test_path("golden/torch_forms"));
    struct test_kept peft = test_keep(test_path("golden/peft_plain")), out = test_keep(test_scratch("out"));
    fixture_fails(GEUL("logits", "-m", hf.text, "--ids", "1", "-o", out.text), 1, "geul logits: ",
                  "is not a GGUF file: it is a directory of Hugging Face; convert it first (geul convert DIR -o FILE)");
    fixture_fails(GEUL("complete", "-m", peft.text, "-p", "x"), 1, "geul complete: ",
                  "it is a directory of an adapter (PEFT); add it to the model that it was made for");
    fixture_fails(GEUL("logits", "-m", m.text, "--lora", hf.text, "--ids", "1", "-o", out.text), 1, "geul logits: ",
                  "is not an adapter (it has no adapter_config.json): it is a directory of Hugging Face");
}

/* The same inside of a directory that is converted. */
TEST(wrong_files_in_a_checkpoint_are_named)
{
    static const struct {
        const char *file, *as, *what;
    } cases[] = {
        {"lfs.gguf", "model.safetensors", "model.safetensors is not a safetensors file: " POINTER},
        {"page.gguf", "model.safetensors", "is not a safetensors file: it is a web page"},
        {"adapter.gguf", "model.safetensors", "it is a GGUF file; it is converted already"},
        {"new.bin", "model.safetensors", "it is a ZIP archive, as torch.save()"},
        {"lfs.gguf", "pytorch_model.bin", "pytorch_model.bin is not a PyTorch checkpoint: " POINTER},
        {"weights.safetensors", "pytorch_model.bin", "is not a PyTorch checkpoint: it is a safetensors file"},
        {"lfs.gguf", "config.json", "config.json is not JSON: " POINTER},
        {"lfs.gguf", "tokenizer.json", "tokenizer.json is not JSON: " POINTER},
        {"lfs.gguf", "model.safetensors.index.json", "index.json is not JSON: " POINTER},
    };
    struct test_kept dir = make_files();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[32];
        size_t size = 0;
        snprintf(name, sizeof name, "hf%zu", i);
        struct test_kept hf = test_keep(test_scratch(name)), from = in(&dir, cases[i].file), out = in(&hf, "m.gguf");
        CHECK(mkdir(hf.text, 0700) == 0);
        copy(&hf, "config.json", "golden/torch_forms/config.json");
        if (strcmp(cases[i].as, "tokenizer.json") == 0)
            copy(&hf, "model.safetensors", "golden/torch_forms/model.safetensors");
        char *data = test_slurp(from.text, &size);
        REQUIRE(data);
        put(&hf, cases[i].as, data, size);
        free(data);
        fixture_fails(GEUL("convert", hf.text, "-o", out.text), 1, "geul convert: ", cases[i].what);
    }
}
