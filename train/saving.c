/* saving.c: saving and restoring a run. A checkpoint is a GGUF file: geul.train.* keys and a tensor for every weight
 * and state, in the order of geul_params_saved(); of a whole model it has the model's own keys too, so that it can be
 * loaded and run like one.
 *
 * Saving is atomic: the writer renames a finished and synced file over path, so an interrupted one leaves the older
 * checkpoint whole. Loading checks everything before it changes the first value. */
#include "train/trainer.h"

#include "core/gguf.h"
#include "core/gguf_kind.h"
#include "core/os.h"

#include <string.h>

enum { VERSION = 1, PIECE = 1 << 20, NOTE_MOST = 4000 };

/* ------------------------------------------------------------------------------------ saving -- */

static void set_keys(struct geul_trainer *t, struct geul_gguf_writer *w, const void *note, size_t note_bytes)
{
    const char *optimizer = geul_optimizer_info(t->options.optimizer)->name;
    if (t->options.lora.rank == 0) {
        geul_trainer_copy_keys(t, w, GEUL_TYPE_F32);
    } else {
        geul_gguf_set_string(w, "general.architecture", "gptneox", 7);
        geul_gguf_set_string(w, "general.type", "checkpoint", 10);
    }
    geul_gguf_set_u32(w, "geul.train.version", VERSION);
    geul_gguf_set_u64(w, "geul.train.step", (uint64_t)t->step);
    geul_gguf_set_u64(w, "geul.train.position", (uint64_t)t->batcher.position);
    geul_gguf_set_u64(w, "geul.train.seed", t->options.seed);
    geul_gguf_set_string(w, "geul.train.optimizer", optimizer, strlen(optimizer));
    geul_gguf_set_f32(w, "geul.train.lora_scale", t->params.adapter.scale);
    if (note)
        geul_gguf_set_string(w, "geul.train.note", note, note_bytes);
}

/* Hands t's values to the writer, a piece at a time. */
static enum geul_status write_tensor(struct geul_context *ctx, struct geul_gguf_writer *w, const struct geul_tensor *t,
                                     void *piece)
{
    size_t bytes = geul_tensor_bytes(t);
    enum geul_status status = geul_gguf_writer_status(w);
    for (size_t at = 0; at < bytes && status == GEUL_OK; at += PIECE) {
        size_t n = bytes - at < PIECE ? bytes - at : PIECE;
        status = t->buffer->device->backend->download(ctx, t->buffer, (const char *)t->data + at, piece, n);
        if (status != GEUL_OK)
            return status;
        geul_gguf_write_data(w, piece, n);
        status = geul_gguf_writer_status(w);
    }
    return status;
}

/* Trained weights that are not finite must not replace an older checkpoint. */
static enum geul_status check_finite(struct geul_trainer *t, const char *path)
{
    char where[96];
    enum geul_status status = geul_diagnose_trained(t, where, sizeof where);
    if (status == GEUL_OK && where[0])
        status = geul_fail(t->ctx, GEUL_ERROR_ARGUMENT, "%s is not written: %s", path, where);
    return status;
}

enum geul_status geul_trainer_save(struct geul_trainer *t, const char *path, const void *note, size_t note_bytes)
{
    char name[GEUL_MAX_NAME];
    struct geul_tensor *x;
    geul_error_clear(t->ctx);
    if (check_finite(t, path) != GEUL_OK)
        return geul_error_status(t->ctx);
    if (note_bytes > NOTE_MOST)
        return geul_fail(t->ctx, GEUL_ERROR_ARGUMENT, "a note of %zu bytes is too long; %d are possible", note_bytes,
                         NOTE_MOST);
    void *piece = geul_alloc(t->ctx, PIECE, 1);
    struct geul_gguf_writer *w = piece ? geul_gguf_writer_new(t->ctx, path) : NULL;
    if (!w) {
        geul_free(t->ctx, piece);
        return geul_error_status(t->ctx);
    }
    set_keys(t, w, note, note_bytes);
    /* Data follows in the order of the declarations. */
    for (int i = 0; (x = geul_params_saved(&t->params, i, name)); i++)
        geul_gguf_declare_tensor(w, name, x->type, x->n_dims, x->shape);
    enum geul_status status = GEUL_OK;
    for (int i = 0; status == GEUL_OK && (x = geul_params_saved(&t->params, i, name)); i++)
        status = write_tensor(t->ctx, w, x, piece);
    geul_free(t->ctx, piece);
    if (status == GEUL_OK)
        return geul_gguf_writer_commit(w);
    geul_gguf_writer_abandon(w);
    return status;
}

/* ----------------------------------------------------------------------------------- loading -- */

/* The tensor of the file that x is saved as; NULL (recorded) when it is missing or has another type or shape. */
static const struct geul_gguf_tensor *find(struct geul_trainer *t, const struct geul_gguf *g,
                                           const struct geul_tensor *x, const char *name)
{
    const struct geul_gguf_tensor *f = geul_gguf_find_tensor(g, name);
    bool same = f && f->type == x->type && f->n_dims == x->n_dims;
    for (int i = 0; same && i < x->n_dims; i++)
        same = f->shape[i] == x->shape[i];
    if (!same)
        geul_fail(t->ctx, GEUL_ERROR_FORMAT,
                  "%s: tensor %s is missing or of another shape: the checkpoint belongs to another model or other "
                  "options",
                  geul_gguf_path(g), name);
    return same ? f : NULL;
}

/* Checks that the checkpoint is of a run with this optimizer, seed and scale. Its numbers are bounded, so that adding
 * to them cannot overflow. */
static enum geul_status check(struct geul_trainer *t, const struct geul_gguf *g, uint64_t *step, uint64_t *position)
{
    uint64_t version, seed;
    double scale;
    const char *s, *optimizer = geul_optimizer_info(t->options.optimizer)->name;
    size_t n;
    if (!geul_gguf_u64(g, "geul.train.version", &version) || !geul_gguf_u64(g, "geul.train.step", step) ||
        !geul_gguf_u64(g, "geul.train.position", position) || !geul_gguf_u64(g, "geul.train.seed", &seed) ||
        !geul_gguf_string(g, "geul.train.optimizer", &s, &n) || !geul_gguf_f64(g, "geul.train.lora_scale", &scale))
        return geul_fail_kind(t->ctx, geul_gguf_path(g), "a checkpoint of a training run", geul_gguf_kind(g));
    if (version > VERSION)
        return geul_fail(t->ctx, GEUL_ERROR_UNSUPPORTED, "%s was written by a newer geul", geul_gguf_path(g));
    if (n != strlen(optimizer) || memcmp(s, optimizer, n) != 0)
        return geul_fail(t->ctx, GEUL_ERROR_ARGUMENT, "%s was trained with %.*s, not with %s", geul_gguf_path(g),
                         (int)(n < 32 ? n : 32), s, optimizer);
    if (seed != t->options.seed)
        return geul_fail(t->ctx, GEUL_ERROR_ARGUMENT, "%s was trained with seed %llu, not %llu", geul_gguf_path(g),
                         (unsigned long long)seed, (unsigned long long)t->options.seed);
    if ((float)scale != (t->params.adapter.scale))
        return geul_fail(t->ctx, GEUL_ERROR_ARGUMENT, "%s was trained with another scale of its adapter, %g",
                         geul_gguf_path(g), scale);
    if (*step > 1000000000000 || *position > INT64_MAX / 2)
        return geul_fail(t->ctx, GEUL_ERROR_FORMAT, "%s: its step or position in the data is impossible",
                         geul_gguf_path(g));
    return GEUL_OK;
}

static enum geul_status read_note(struct geul_trainer *t, const struct geul_gguf *g, void *note, size_t *note_bytes)
{
    const char *s = NULL;
    size_t n = 0;
    geul_gguf_string(g, "geul.train.note", &s, &n);
    if (n > NOTE_MOST)
        return geul_fail(t->ctx, GEUL_ERROR_FORMAT, "%s: its note is too long", geul_gguf_path(g));
    if (n && note)
        memcpy(note, s, n);
    if (note_bytes)
        *note_bytes = n;
    return GEUL_OK;
}

/* Copies the checkpoint's tensors into the parameters. All are checked before the first value changes. */
static enum geul_status take_over(struct geul_trainer *t, const struct geul_gguf *g)
{
    char name[GEUL_MAX_NAME];
    struct geul_tensor *x;
    int n = 0;
    for (; (x = geul_params_saved(&t->params, n, name)); n++)
        if (!find(t, g, x, name))
            return geul_error_status(t->ctx);
    if (geul_gguf_tensor_count(g) != n)
        return geul_fail(t->ctx, GEUL_ERROR_FORMAT,
                         "%s holds %lld tensors, not %d: the checkpoint belongs to another model or other options",
                         geul_gguf_path(g), (long long)geul_gguf_tensor_count(g), n);
    enum geul_status status = GEUL_OK;
    for (int i = 0; status == GEUL_OK && (x = geul_params_saved(&t->params, i, name)); i++)
        status = x->buffer->device->backend->upload(t->ctx, x->buffer, x->data, geul_gguf_find_tensor(g, name)->data,
                                                    geul_tensor_bytes(x));
    /* nothing of a step that was begun before remains */
    return status == GEUL_OK ? geul_params_clear(&t->params) : status;
}

enum geul_status geul_trainer_load(struct geul_trainer *t, const char *path, bool keep_position, void *note,
                                   size_t *note_bytes)
{
    uint64_t step, position;
    geul_error_clear(t->ctx);
    struct geul_gguf *g = geul_gguf_open(t->ctx, path);
    if (!g)
        return geul_error_status(t->ctx);
    enum geul_status status = check(t, g, &step, &position);
    if (status == GEUL_OK)
        status = read_note(t, g, note, note_bytes);
    if (status == GEUL_OK)
        status = take_over(t, g);
    if (status == GEUL_OK && !keep_position) { /* otherwise steps and data continue from here */
        t->step = (int64_t)step;
        t->batcher.position = (int64_t)position;
    }
    geul_gguf_close(g);
    geul_os_forget_input(t->ctx, path); /* a run goes on in its checkpoint, which the next one may replace */
    return status;
}
