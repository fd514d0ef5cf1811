/* row_reader.h: one file of rows that is being read: what rows.c, row_source.c, row_table.c and row_shapes.c share.
 *
 *     bytes -> row_source.c, or row_table.c for tables: the next object -> row_shapes.c: its row
 */
#ifndef GEUL_ROW_READER_H
#define GEUL_ROW_READER_H

#include "core/bytes.h"
#include "core/os.h"
#include "corpus/row_problems.h"

#include <jansson.h>

/* A row in JSON, or of a table; a parsed row takes about ten times its text. */
#define GEUL_ROW_BYTES ((size_t)64 << 20)

enum geul_row_form { GEUL_ROW_LINES, GEUL_ROW_ARRAY, GEUL_ROW_PLAIN, GEUL_ROW_TABLE };

/* What geul_row_notes_print() says about a file besides keys, each with a count. */
enum geul_row_note {
    GEUL_ROW_NOTE_OPENING,
    GEUL_ROW_NOTE_LAST,
    GEUL_ROW_NOTE_READ,
    GEUL_ROW_NOTE_WEIGHT,
    GEUL_ROW_NOTES
};

enum { GEUL_ROW_KEYS_KEPT = 16, GEUL_ROW_SHAPES_MOST = 24 };

/* What was found in a file, and what of it was not used. */
struct geul_row_tally {
    struct {
        char *name;   /* malloc()ed */
        int64_t rows; /* that have it */
        int64_t last; /* number of the last one */
    } keys[GEUL_ROW_KEYS_KEPT];
    int n_keys;
    int64_t other_keys;                          /* rows of keys for which there was no room, once per key */
    int64_t notes[GEUL_ROW_NOTES];               /* messages */
    int64_t shapes[GEUL_ROW_SHAPES_MOST], texts; /* rows of each shape, and of none: a whole text */
    int64_t rows;                                /* objects so far */
    bool spread;                                 /* some objects have several lines */
};

struct geul_rows {
    struct geul_context *ctx;
    char *name;
    struct geul_map map; /* data is NULL over a caller's memory */
    char *decoded;       /* the file as UTF-8, when it is in another encoding; or NULL */
    size_t file_size;    /* of the file, whose text may be longer */
    const char *data;
    size_t size, pos, dropped;
    int64_t line, next_line; /* of the current row's beginning and of pos, from 1 */
    enum geul_row_form form;
    int64_t element; /* ARRAY: number of the current one, from 1 */
    size_t wasted;   /* LINES: bytes in which an end of an object was looked for in vain */
    char delimiter;  /* TABLE */
    char **columns;  /* TABLE: the header's names, of which n_columns */
    size_t n_columns, column_capacity;
    struct geul_bytes record; /* TABLE: the fields of the current one, each with a NUL */
    bool found;               /* a row or a problem so far: the file is not empty */
    json_t *json;             /* of the current row, whose texts are in it */
    json_t *made;             /* an array of texts and values that were made for it */
    struct geul_turn *turns;
    bool *learned; /* by turn */
    size_t turn_capacity, learned_capacity;
    struct geul_row_problems *problems, unread; /* unread: used when the caller wants none */
    struct geul_row_tally tally;
    char *text;          /* PLAIN: a copy without CR, or NULL */
    struct geul_row row; /* the current one */
};

/* Records what is wrong with the current row. Always returns false, for "no row". */
bool geul_rows_problem(struct geul_rows *r, const char *format, ...) GEUL_PRINTF(2, 3);
/* Offset of the first byte that is not UTF-8, n when there is none. */
size_t geul_rows_first_broken(const char *s, size_t n);
/* Records that byte number `byte`, counted from 1, of what ("the line") in [s, s + n) is not UTF-8. Returns false. */
bool geul_rows_not_utf8(struct geul_rows *r, const char *s, size_t n, size_t byte, const char *what);
/* "a number": the kind of a value, for messages. */
const char *geul_rows_kind(const json_t *v);

/* What the next row is. */
enum geul_row_next { GEUL_ROW_END, GEUL_ROW_OBJECT, GEUL_ROW_BROKEN };
/* row_source.c: moves to the next object of JSON text, which r->json then is. BROKEN: a problem or a failure is
 * recorded. */
enum geul_row_next geul_row_source_next(struct geul_rows *r);
/* row_table.c: reads the header; false with a failure recorded. Then the next record as an object, as above. */
bool geul_row_table_open(struct geul_rows *r);
enum geul_row_next geul_row_table_next(struct geul_rows *r);
void geul_row_table_free(struct geul_rows *r);

/* row_shapes.c: fills *row from r->json; false with a problem or a failure recorded. */
bool geul_row_shape_read(struct geul_rows *r, struct geul_row *row);
/* Whether the keys of an object are those of a shape. */
bool geul_row_shape_known(const json_t *object);
/* Writes the keys of an object and those that are expected: "its keys are ..." */
void geul_row_shape_describe(const json_t *object, const char *what, char *out, size_t size);
/* The name of shape i: "question and answer"; NULL after the last. */
const char *geul_row_shape_name(int i);
/* Counts a key that is not used, once per row. */
void geul_row_tally_key(struct geul_rows *r, const char *name);
/* Adds what the tally says to the problems' notes and forms, and frees it. */
void geul_row_tally_finish(struct geul_rows *r);

#endif
