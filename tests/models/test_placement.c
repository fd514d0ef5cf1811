/* test_placement.c: which device gets which part of a model: arithmetic, without any device. */
#include "models/placement.h"
#include "tests/harness.h"

enum { MOST_LAYERS = 8, ANY = -1 };

/* Sizes are small numbers: they mean the same as large ones. */
struct table_row {
    const char *what;
    int n_layers;
    size_t layer, embedding, output; /* of each layer */
    int n_devices;
    struct geul_placement_room rooms[4]; /* the CPU's first */
    int n;                               /* ANY: as many as fit */
    int layers[MOST_LAYERS], where_embedding, where_output, on_cards;
    bool fits;
};

/* clang-format off */
static const struct table_row rows[] = {
    {"no card",               4, 10, 5, 7, 1, {{0}},                                   ANY, {0, 0, 0, 0}, 0, 0, 0, true},
    {"no card, all wanted",   4, 10, 5, 7, 1, {{0}},                                   5,   {0, 0, 0, 0}, 0, 0, 0, true},
    {"none wanted",           4, 10, 5, 7, 2, {{0}, {100, 1, 1, 0}},                   0,   {0, 0, 0, 0}, 0, 0, 0, true},
    {"the last two",          4, 10, 5, 7, 2, {{0}, {100, 1, 1, 0}},                   2,   {0, 0, 1, 1}, 0, 0, 2, true},
    {"all layers",            4, 10, 5, 7, 2, {{0}, {100, 1, 1, 0}},                   4,   {1, 1, 1, 1}, 1, 0, 4, true},
    {"and the output",        4, 10, 5, 7, 2, {{0}, {100, 1, 1, 0}},                   5,   {1, 1, 1, 1}, 1, 1, 5, true},
    {"more than there are",   4, 10, 5, 7, 2, {{0}, {100, 1, 1, 0}},                   99,  {1, 1, 1, 1}, 1, 1, 5, true},
    {"all fit exactly",       4, 10, 5, 7, 2, {{0}, {55, 1, 3, 0}},                    ANY, {1, 1, 1, 1}, 1, 1, 5, true},
    {"one byte short of all", 4, 10, 5, 7, 2, {{0}, {54, 1, 3, 0}},                    ANY, {1, 1, 1, 1}, 1, 0, 4, true},
    {"layers fit exactly",    4, 10, 5, 7, 2, {{0}, {46, 1, 9, 0}},                    ANY, {1, 1, 1, 1}, 1, 0, 4, true},
    {"short of the embedding",4, 10, 5, 7, 2, {{0}, {45, 1, 9, 0}},                    ANY, {0, 1, 1, 1}, 0, 0, 3, true},
    {"one layer, exactly",    4, 10, 5, 7, 2, {{0}, {11, 1, 9, 0}},                    ANY, {0, 0, 0, 1}, 0, 0, 1, true},
    {"no layer",              4, 10, 5, 7, 2, {{0}, {10, 1, 9, 0}},                    ANY, {0, 0, 0, 0}, 0, 0, 0, true},
    {"an empty card",         4, 10, 5, 7, 2, {{0}, {0, 0, 0, 0}},                     ANY, {0, 0, 0, 0}, 0, 0, 0, true},
    {"wanted, short",         4, 10, 5, 7, 2, {{0}, {54, 1, 3, 0}},                    5,   {1, 1, 1, 1}, 1, 1, 5, false},
    {"memory not known",      4, 10, 5, 7, 2, {{0}, {SIZE_MAX, 1, 3, 0}},              ANY, {1, 1, 1, 1}, 1, 1, 5, true},
    {"two equal cards",       4, 10, 5, 7, 3, {{0}, {50, 1, 1, 0}, {50, 1, 1, 0}},     ANY, {1, 1, 2, 2}, 1, 2, 5, true},
    {"three to one",          4, 10, 5, 7, 3, {{0}, {91, 1, 1, 0}, {31, 1, 1, 0}},     ANY, {1, 1, 1, 2}, 1, 2, 5, true},
    {"as was said",           4, 10, 5, 7, 3, {{0}, {100, 1, 1, 1}, {100, 1, 1, 3}},   ANY, {1, 2, 2, 2}, 1, 2, 5, true},
    {"all on the second",     4, 10, 5, 7, 3, {{0}, {100, 1, 1, 0}, {100, 1, 1, 1}},   ANY, {2, 2, 2, 2}, 2, 2, 5, true},
    {"all on the first",      4, 10, 5, 7, 3, {{0}, {100, 1, 1, 1}, {100, 1, 1, 0}},   ANY, {1, 1, 1, 1}, 1, 1, 5, true},
    {"said, and too much",    4, 10, 5, 7, 3, {{0}, {20, 1, 1, 1}, {100, 1, 1, 1}},    5,   {1, 1, 2, 2}, 1, 2, 5, false},
    {"room in another way",   4, 10, 5, 7, 3, {{0}, {26, 1, 1, 0}, {38, 1, 1, 0}},     5,   {1, 1, 2, 2}, 1, 2, 5, true},
    {"only by filling",       3, 10, 0, 9, 3, {{0}, {21, 1, 1, 0}, {20, 1, 1, 0}},     4,   {1, 1, 2},    1, 2, 4, true},
    {"two of three layers",   3, 10, 5, 7, 3, {{0}, {11, 1, 1, 0}, {11, 1, 1, 0}},     ANY, {0, 1, 2},    0, 0, 2, true},
    {"more cards than layers",2, 10, 5, 7, 4, {{0}, {50, 1, 1, 0}, {50, 1, 1, 0}, {50, 1, 1, 0}}, ANY, {1, 3}, 1, 3, 3, true},
    {"one layer, three cards",1, 10, 5, 7, 4, {{0}, {50, 1, 1, 0}, {50, 1, 1, 0}, {50, 1, 1, 0}}, ANY, {2},    2, 2, 2, true},
    {"a small card beside",   3, 10, 5, 7, 3, {{0}, {3, 1, 1, 0}, {50, 1, 1, 0}},      ANY, {2, 2, 2},    2, 2, 4, true},
    {"a cache beyond counting", 2, SIZE_MAX - 3, 5, 7, 2, {{0}, {SIZE_MAX - 1, 9, 9, 0}}, ANY, {0, 0},     0, 0, 0, true},
    {"the same, wanted",      2, SIZE_MAX - 3, 5, 7, 2, {{0}, {SIZE_MAX - 1, 9, 9, 0}}, 2,  {1, 1},         1, 0, 2, false},
    {"working memory beyond", 2, 10, 5, 7, 2, {{0}, {100, SIZE_MAX, SIZE_MAX, 0}},     ANY, {0, 0},         0, 0, 0, true},
};
/* clang-format on */

TEST(placement_follows_the_table)
{
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        const struct table_row *row = &rows[r];
        size_t layers[MOST_LAYERS];
        int where[MOST_LAYERS];
        for (int i = 0; i < row->n_layers; i++) {
            layers[i] = row->layer;
            where[i] = 77;
        }
        const struct geul_placement_costs costs = {row->n_layers, layers, row->embedding, row->output};
        struct geul_placement p = {.layers = where};
        if (row->n == ANY)
            geul_placement_most(&costs, row->rooms, row->n_devices, &p);
        else
            geul_placement_make(&costs, row->rooms, row->n_devices, row->n, &p);
        for (int i = 0; i < row->n_layers; i++)
            CHECK_MSG(where[i] == row->layers[i], "%s: layer %d is on %d", row->what, i, where[i]);
        CHECK_MSG(p.embedding == row->where_embedding && p.output == row->where_output,
                  "%s: embedding on %d, output %d", row->what, p.embedding, p.output);
        CHECK_MSG(p.n == row->on_cards && p.fits == row->fits, "%s: %d layers, %s", row->what, p.n,
                  p.fits ? "fits" : "does not fit");
        for (int d = 1; d < row->n_devices && p.fits; d++)
            CHECK_MSG(p.taken[d] <= row->rooms[d].bytes, "%s: %zu of %zu bytes", row->what, p.taken[d],
                      row->rooms[d].bytes);
    }
}

/* Layers of different sizes on cards of different sizes: what is chosen fits, lies in blocks, and one layer more would
 * not fit in any way. */
TEST(placement_takes_as_many_as_can_be)
{
    uint64_t seed = 11;
    for (int run = 0; run < 3000; run++) {
        size_t layers[MOST_LAYERS];
        int where[MOST_LAYERS], n_layers = 1 + (int)(test_random(&seed) % MOST_LAYERS),
                                n_devices = 2 + (int)(test_random(&seed) % 3);
        struct geul_placement_room rooms[4] = {{0}};
        for (int i = 0; i < n_layers; i++)
            layers[i] = 1 + (size_t)(test_random(&seed) % 20);
        for (int d = 1; d < n_devices; d++) {
            rooms[d] =
                (struct geul_placement_room){(size_t)(test_random(&seed) % 80), (size_t)(test_random(&seed) % 5), 0, 0};
            rooms[d].working_output = rooms[d].working + (size_t)(test_random(&seed) % 5);
        }
        const struct geul_placement_costs costs = {n_layers, layers, (size_t)(test_random(&seed) % 10),
                                                   (size_t)(test_random(&seed) % 10)};
        struct geul_placement p = {.layers = where};
        geul_placement_most(&costs, rooms, n_devices, &p);
        CHECK(p.fits);
        for (int i = 1; i < n_layers; i++)
            CHECK_MSG(where[i] >= where[i - 1], "run %d: layer %d goes back", run, i);
        int on_cards = 0;
        for (int i = 0; i < n_layers; i++)
            on_cards += where[i] > 0;
        CHECK_INT(on_cards, p.n < n_layers ? p.n : n_layers);
        size_t all = 0; /* with one layer more, of the bytes alone */
        int more = p.n + 1;
        for (int i = n_layers - (more < n_layers ? more : n_layers); i < n_layers; i++)
            all += layers[i];
        if (p.n == n_layers + 1 || n_devices > 2)
            continue;
        all += (more >= n_layers ? costs.embedding : 0) + (more > n_layers ? costs.output : 0);
        all += more > n_layers ? rooms[1].working_output : rooms[1].working;
        CHECK_MSG(all > rooms[1].bytes, "run %d: %d layers are %zu of %zu bytes", run, more, all, rooms[1].bytes);
    }
}
