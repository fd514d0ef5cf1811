/* checkpoint.c: see checkpoint.h. */
#include "formats/checkpoint.h"

#include "formats/json_file.h"
#include "formats/pickle.h"
#include "formats/safetensors.h"
#include "core/os.h"

#include <string.h>

typedef enum geul_status (*read_tensors)(struct geul_context *ctx, const char *name, const uint8_t *data, size_t size,
                                         struct geul_source_list *list);

/* The forms a directory may have, in the order in which transformers looks for them. */
static const struct form {
    const char *file;
    bool index; /* names the shards */
    read_tensors read;
} forms[] = {
    {"model.safetensors", false, geul_safetensors_read},
    {"model.safetensors.index.json", true, geul_safetensors_read},
    {"pytorch_model.bin", false, geul_pickle_read},
    {"pytorch_model.bin.index.json", true, geul_pickle_read},
};
static const struct form peft_forms[] = {
    {"adapter_model.safetensors", false, geul_safetensors_read},
    {"adapter_model.bin", false, geul_pickle_read},
};
enum { N_FORMS = sizeof forms / sizeof *forms, N_PEFT_FORMS = sizeof peft_forms / sizeof *peft_forms };

struct geul_checkpoint {
    struct geul_context *ctx;
    const struct geul_checkpoint_names *names; /* NULL: as they are */
    struct geul_map *maps;
    size_t n_maps;
    struct geul_source_list list; /* sorted by name */
};

/* Maps one file and appends its tensors. The mapping stays until close: tensors point into it. */
static enum geul_status add_file(struct geul_checkpoint *c, const char *path, read_tensors read)
{
    struct geul_map *maps = geul_realloc(c->ctx, c->maps, c->n_maps + 1, sizeof *maps);
    if (!maps)
        return GEUL_ERROR_MEMORY;
    c->maps = maps;
    enum geul_status status = geul_os_map(c->ctx, path, &maps[c->n_maps]);
    if (status != GEUL_OK)
        return status;
    struct geul_map *map = &maps[c->n_maps++]; /* counted before it is read, so that close unmaps it either way */
    size_t first = c->list.count;
    status = read(c->ctx, path, map->data, map->size, &c->list);
    for (size_t i = first; status == GEUL_OK && c->names && i < c->list.count; i++) {
        char *plain = c->names->plain(c->ctx, c->list.items[i].name);
        if (!plain)
            return GEUL_ERROR_MEMORY;
        geul_free(c->ctx, c->list.items[i].name);
        c->list.items[i].name = plain;
    }
    return status;
}

/* Whether a shard's name stays in its directory: an index from elsewhere names no files outside of it. */
static bool is_plain_name(const char *file)
{
    bool plain = file && *file && *file != '.' && strlen(file) <= 255;
    for (const char *s = file; plain && *s; s++)
        plain = (unsigned char)*s >= 0x20 && *s != 0x7f && *s != '/' && *s != '\\' && *s != ':';
    return plain;
}

/* Adds each shard that the index names, once. seen is an empty JSON object. */
static enum geul_status add_shards(struct geul_checkpoint *c, const char *dir, const char *index, const json_t *map,
                                   json_t *seen, read_tensors read)
{
    const char *key;
    json_t *value;
    if (!json_is_object(map) || json_object_size(map) == 0)
        return geul_fail(c->ctx, GEUL_ERROR_FORMAT, "%s: has no \"weight_map\" from tensors to files", index);
    json_object_foreach((json_t *)(uintptr_t)map, key, value)
    {
        const char *file = json_string_value(value);
        char text[100];
        if (!is_plain_name(file))
            return geul_fail(c->ctx, GEUL_ERROR_FORMAT,
                             "%s: the file of tensor %s, %s, is not a plain file name in the same directory", index,
                             geul_printable(key, text, 60), file ? geul_printable(file, text + 60, 40) : "?");
        if (json_object_get(seen, file))
            continue;
        char *path = geul_os_join_path(c->ctx, dir, file);
        enum geul_status status = path ? add_file(c, path, read) : GEUL_ERROR_MEMORY;
        geul_free(c->ctx, path);
        if (status != GEUL_OK)
            return status;
        if (json_object_set_new(seen, file, json_true()) != 0)
            return geul_fail(c->ctx, GEUL_ERROR_MEMORY, "%s: out of memory", index);
    }
    return GEUL_OK;
}

/* Checks that a tensor of the index is in one of the shards, whichever. Indices list buffers that later versions of
 * transformers no longer save. */
static enum geul_status check_listed(struct geul_checkpoint *c, const char *index, const char *name)
{
    char *plain = c->names ? c->names->plain(c->ctx, name) : NULL, text[100];
    if (c->names && !plain)
        return GEUL_ERROR_MEMORY;
    bool fine = geul_source_find(&c->list, plain ? plain : name) || (plain && c->names->is_buffer(plain));
    geul_free(c->ctx, plain);
    return fine ? GEUL_OK
                : geul_fail(c->ctx, GEUL_ERROR_FORMAT, "%s: names tensor %s, which no shard holds", index,
                            geul_printable(name, text, sizeof text));
}

/* Adds all shards of an index. */
static enum geul_status add_index(struct geul_checkpoint *c, const char *dir, const char *path, read_tensors read)
{
    json_t *index = geul_json_load(c->ctx, path);
    if (!index)
        return geul_error_status(c->ctx);
    const json_t *map = json_object_get(index, "weight_map");
    json_t *seen = json_object();
    enum geul_status status = add_shards(c, dir, path, map, seen, read);
    json_decref(seen);
    if (status == GEUL_OK) /* look-ups need the order; a name that two shards hold fails here */
        status = geul_source_sort(c->ctx, &c->list, path);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)map, key, value)
    {
        if (status == GEUL_OK)
            status = check_listed(c, path, key);
    }
    json_decref(index);
    return status;
}

/* Adds the files of the first of n forms that dir has; *found: there was one. */
static enum geul_status add_directory(struct geul_checkpoint *c, const char *dir, const struct form *form, int n,
                                      bool *found)
{
    for (int i = 0; i < n; i++, form++) {
        char *path = geul_os_join_path(c->ctx, dir, form->file);
        if (!path)
            return GEUL_ERROR_MEMORY;
        *found = geul_os_exists(path);
        enum geul_status status = GEUL_OK;
        if (*found && form->index)
            status = add_index(c, dir, path, form->read);
        else if (*found)
            status = add_file(c, path, form->read);
        if (*found && status == GEUL_OK)
            status = geul_source_sort(c->ctx, &c->list, path);
        geul_free(c->ctx, path);
        if (*found)
            return status;
    }
    return GEUL_OK;
}

/* A checkpoint of the first of n forms that dir has; missing says which there are. */
static struct geul_checkpoint *open_forms(struct geul_context *ctx, const char *dir, const struct form *form, int n,
                                          const struct geul_checkpoint_names *names, const char *missing)
{
    struct geul_checkpoint *c = geul_alloc(ctx, 1, sizeof *c);
    bool found = false;
    if (!c)
        return NULL;
    c->ctx = ctx;
    c->names = names;
    enum geul_status status = add_directory(c, dir, form, n, &found);
    if (status == GEUL_OK && !found)
        status = geul_fail(ctx, GEUL_ERROR_IO, "%s: has no weights: %s", dir, missing);
    if (status == GEUL_OK)
        return c;
    geul_checkpoint_close(c);
    return NULL;
}

struct geul_checkpoint *geul_checkpoint_open(struct geul_context *ctx, const char *dir,
                                             const struct geul_checkpoint_names *names)
{
    return open_forms(ctx, dir, forms, N_FORMS, names,
                      "neither model.safetensors nor pytorch_model.bin, nor an index of either "
                      "(model.safetensors.index.json, pytorch_model.bin.index.json)");
}

struct geul_checkpoint *geul_checkpoint_open_peft(struct geul_context *ctx, const char *dir,
                                                  const struct geul_checkpoint_names *names)
{
    return open_forms(ctx, dir, peft_forms, N_PEFT_FORMS, names,
                      geul_checkpoint_has_model(dir)
                          ? "neither adapter_model.safetensors nor adapter_model.bin; it holds those of a whole model"
                          : "neither adapter_model.safetensors nor adapter_model.bin");
}

bool geul_checkpoint_has_model(const char *dir)
{
    int i = 0;
    while (i < N_FORMS && !geul_os_has(dir, forms[i].file))
        i++;
    return i < N_FORMS;
}

void geul_checkpoint_close(struct geul_checkpoint *c)
{
    if (!c)
        return;
    geul_source_free(c->ctx, &c->list);
    for (size_t i = 0; i < c->n_maps; i++)
        geul_os_unmap(&c->maps[i]);
    geul_free(c->ctx, c->maps);
    geul_free(c->ctx, c);
}

size_t geul_checkpoint_count(const struct geul_checkpoint *c)
{
    return c->list.count;
}

const struct geul_source_tensor *geul_checkpoint_at(const struct geul_checkpoint *c, size_t i)
{
    return &c->list.items[i];
}

const struct geul_source_tensor *geul_checkpoint_find(const struct geul_checkpoint *c, const char *name)
{
    return geul_source_find(&c->list, name);
}
