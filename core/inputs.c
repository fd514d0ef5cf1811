/* inputs.c: see inputs.h. */
#include "core/inputs.h"

#include <string.h>

static struct geul_input *find(const struct geul_inputs *set, struct geul_file_id id)
{
    for (size_t i = 0; i < set->n; i++)
        if (set->items[i].id.inode == id.inode && set->items[i].id.device == id.device)
            return &set->items[i];
    return NULL;
}

/* Removes the input if nothing counts any more. The last one takes its place; an empty set holds no memory. */
static void drop_unused(struct geul_context *ctx, struct geul_input *input)
{
    struct geul_inputs *set = geul_context_inputs(ctx);
    if (!input || input->open || input->over)
        return;
    geul_free(ctx, input->name);
    *input = set->items[--set->n];
    if (set->n == 0)
        geul_context_drop_inputs(ctx);
}

void geul_inputs_begin(struct geul_context *ctx)
{
    geul_context_inputs(ctx)->depth++;
}

void geul_inputs_end(struct geul_context *ctx)
{
    struct geul_inputs *set = geul_context_inputs(ctx);
    if (--set->depth > 0)
        return;
    for (size_t i = set->n; i-- > 0;) {
        set->items[i].over = 0;
        drop_unused(ctx, &set->items[i]);
    }
}

bool geul_inputs_open(struct geul_context *ctx, struct geul_file_id id, const char *name)
{
    struct geul_inputs *set = geul_context_inputs(ctx);
    struct geul_input *known = find(set, id);
    if (!known) {
        char *copy = geul_strndup(ctx, name, strlen(name));
        if (!copy || !geul_reserve(ctx, &set->items, &set->capacity, set->n + 1, sizeof *set->items)) {
            geul_free(ctx, copy);
            return false;
        }
        known = &set->items[set->n++];
        *known = (struct geul_input){.id = id, .name = copy};
    }
    known->open++;
    return true;
}

void geul_inputs_close(struct geul_context *ctx, struct geul_file_id id)
{
    struct geul_inputs *set = geul_context_inputs(ctx);
    struct geul_input *known = find(set, id);
    if (!known || known->open == 0)
        return;
    known->open--;
    known->over += set->depth > 0;
    drop_unused(ctx, known);
}

void geul_inputs_forget(struct geul_context *ctx, struct geul_file_id id)
{
    struct geul_input *known = find(geul_context_inputs(ctx), id);
    if (!known || known->over == 0)
        return;
    known->over--;
    drop_unused(ctx, known);
}

const char *geul_inputs_find(struct geul_context *ctx, struct geul_file_id id)
{
    const struct geul_input *known = find(geul_context_inputs(ctx), id);
    return known ? known->name : NULL;
}
