/* row_shapes.c: the shapes in which people keep questions, answers and conversations, as rows.
 *
 * Whatever the shape, a row is built out of messages: a question and its answer are two, pairs of a history come before
 * them, and a conversation is a list. add_message() is the one place that knows what may follow what.
 */
#include "corpus/row_reader.h"

#include "core/check.h"
#include "formats/json_text.h"

#include <stdio.h>
#include <string.h>

#define EXPECTED                                                                                                       \
    "instruction and output (and input), messages or conversations, question and answer, prompt and completion, or "   \
    "text"

/* ------------------------------------------------------------------------------------ shapes -- */

static bool read_messages(struct geul_rows *r, const char *const keys[3], struct geul_row *row);
static bool read_pair(struct geul_rows *r, const char *const keys[3], struct geul_row *row);
static bool read_text(struct geul_rows *r, const char *const keys[3], struct geul_row *row);

/* The first whose keys an object has is its shape. Upper and lower case are the same, for the headers of tables. */
static const struct shape {
    const char *name;
    const char *keys[3]; /* a question, its answer and perhaps a context, or a list; the second may be NULL */
    bool (*read)(struct geul_rows *r, const char *const keys[3], struct geul_row *row);
} shapes[] = {
    {"messages", {"messages"}, read_messages},
    {"conversations", {"conversations"}, read_messages},
    {"conversation", {"conversation"}, read_messages},
    {"instruction and output", {"instruction", "output", "input"}, read_pair},
    {"question and answer", {"question", "answer", "context"}, read_pair},
    {"prompt and completion", {"prompt", "completion"}, read_pair},
    {"instruction and response", {"instruction", "response", "context"}, read_pair},
    {"question and response", {"question", "response", "context"}, read_pair},
    {"query and response", {"query", "response"}, read_pair},
    {"prompt and response", {"prompt", "response"}, read_pair},
    {"input and output", {"input", "output"}, read_pair},
    {"Q and A", {"Q", "A"}, read_pair},
    {"질문 and 답변", {"질문", "답변", "맥락"}, read_pair},
    {"명령어 and 응답", {"명령어", "응답", "입력"}, read_pair},
    {"text", {"text"}, read_text},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };
_Static_assert((int)N_SHAPES <= (int)GEUL_ROW_SHAPES_MOST, "the tally has room for every shape");

static bool same_letters(const char *a, const char *b)
{
    for (; *a && *b; a++, b++) {
        char x = *a >= 'A' && *a <= 'Z' ? (char)(*a + 32) : *a, y = *b >= 'A' && *b <= 'Z' ? (char)(*b + 32) : *b;
        if (x != y)
            return false;
    }
    return *a == *b;
}

/* The value of a key, as it is written or in other case; NULL when the object lacks it. */
static json_t *find(const json_t *object, const char *key)
{
    enum { FEW = 64 }; /* keys of an object that is looked through */
    json_t *v = json_object_get(object, key);
    if (v || json_object_size(object) > FEW)
        return v;
    json_t *o = (json_t *)(uintptr_t)object;
    for (void *at = json_object_iter(o); at; at = json_object_iter_next(o, at))
        if (same_letters(json_object_iter_key(at), key))
            return json_object_iter_value(at);
    return NULL;
}

/* The shape of an object, NULL when it is none. */
static const struct shape *shape_of(const json_t *object)
{
    for (size_t i = 0; i < N_SHAPES; i++)
        if (find(object, shapes[i].keys[0]) && (!shapes[i].keys[1] || find(object, shapes[i].keys[1])))
            return &shapes[i];
    return NULL;
}

bool geul_row_shape_known(const json_t *object)
{
    return shape_of(object) != NULL;
}

const char *geul_row_shape_name(int i)
{
    return i < N_SHAPES ? shapes[i].name : NULL;
}

void geul_row_shape_describe(const json_t *object, const char *what, char *out, size_t size)
{
    char keys[200] = "", cut[200];
    size_t used = 0, n = 0;
    json_t *o = (json_t *)(uintptr_t)object;
    void *at = json_object_iter(o);
    for (; at && used < sizeof keys - 1; at = json_object_iter_next(o, at)) {
        int more = snprintf(keys + used, sizeof keys - used, "%s%s", n++ ? ", " : "", json_object_iter_key(at));
        used += more > 0 ? (size_t)more : 0;
    }
    size_t whole = geul_rows_first_broken(keys, strlen(keys));
    snprintf(cut, sizeof cut, "%.*s", (int)whole, keys);
    if (n == 0)
        snprintf(out, size, "the object is empty; expected are " EXPECTED);
    else
        snprintf(out, size, "its %ss are %s%s; expected are " EXPECTED, what, cut, used >= sizeof keys ? "..." : "");
}

/* ------------------------------------------------------------------------------------- texts -- */

static bool is_blank(const char *s)
{
    return s[strspn(s, " \t\r\n")] == '\0';
}

/* The text of a value, which where and key together name in messages ("output", "messages[2].content"). Texts are C
 * strings from here on, so they must not hold NULs. */
static bool get_text(struct geul_rows *r, const json_t *v, const char *where, const char *key, const char **out)
{
    if (!json_is_string(v))
        return geul_rows_problem(r, "%s%s is %s, not a string", where, key, geul_rows_kind(v));
    *out = json_string_value(v);
    if (strlen(*out) != json_string_length(v))
        return geul_rows_problem(r, "%s%s holds a NUL character", where, key);
    return true;
}

/* Keeps a value until the next row. NULL when memory is short; v is then freed. */
static json_t *keep(struct geul_rows *r, json_t *v)
{
    if (!r->made)
        r->made = json_array();
    if (v && json_array_append_new(r->made, v) == 0)
        return v;
    geul_fail_memory(r->ctx, 0);
    return NULL;
}

/* first and second with a gap between them, kept until the next row; second alone where first is NULL. */
static bool join(struct geul_rows *r, const char *first, const char *gap, const char *second, const char **out)
{
    const json_t *both = first ? keep(r, json_sprintf("%s%s%s", first, gap, second)) : NULL;
    *out = first ? json_string_value(both) : second;
    return !first || both;
}

/* One part of a message's content: {"type": "text", "text": ...}, or a string. */
static bool get_part(struct geul_rows *r, const json_t *part, const char *where, const char **out)
{
    if (json_is_string(part))
        return get_text(r, part, where, "", out);
    if (!json_is_object(part))
        return geul_rows_problem(r, "%s is %s, not a part with type and text", where, geul_rows_kind(part));
    const char *type = json_string_value(json_object_get(part, "type"));
    if (type && strcmp(type, "text") != 0 && strcmp(type, "input_text") != 0 && strcmp(type, "output_text") != 0)
        return geul_rows_problem(r, "%s is of type %.40s; only text can be learned", where, type);
    return get_text(r, json_object_get(part, "text"), where, ".text", out);
}

/* Texts of a list, joined by line ends: the parts of a content, or the lines of an input. */
static bool get_list(struct geul_rows *r, const json_t *list, const char *where, const char *key, const char **out)
{
    char place[96];
    const char *text = NULL, *part;
    for (size_t i = 0; i < json_array_size(list); i++) {
        snprintf(place, sizeof place, "%s%s[%zu]", where, key, i);
        if (!get_part(r, json_array_get(list, i), place, &part) || !join(r, text, "\n", part, &text))
            return false;
    }
    *out = text ? text : "";
    return true;
}

/* A text, or a list of texts, that must not be blank. */
static bool get_filled(struct geul_rows *r, const json_t *v, const char *where, const char *key, const char **out)
{
    if (!(json_is_array(v) ? get_list(r, v, where, key, out) : get_text(r, v, where, key, out)))
        return false;
    return is_blank(*out) ? geul_rows_problem(r, "%s%s is empty", where, key) : true;
}

/* A text that may be missing, null, NaN (which Python writes for it) or blank: NULL then. */
static bool get_optional(struct geul_rows *r, const json_t *v, const char *key, const char **out)
{
    *out = NULL;
    const char *odd = geul_json_oddity(v);
    if (!v || json_is_null(v) || (odd && strcmp(odd, "NaN") == 0))
        return true;
    if (!(json_is_array(v) ? get_list(r, v, "", key, out) : get_text(r, v, "", key, out)))
        return false;
    *out = is_blank(*out) ? NULL : *out;
    return true;
}

/* v, or the list that a string of it holds, as in the cells of tables. */
static const json_t *as_list(struct geul_rows *r, const json_t *v)
{
    const char *text = json_string_value(v);
    if (!text || text[strspn(text, " \t\r\n")] != '[')
        return v;
    json_error_t error;
    json_t *list = geul_json_decode(r->ctx, text, strlen(text), 0, &error);
    return list ? keep(r, list) : v;
}

/* ---------------------------------------------------------------------------------- messages -- */

enum role { ROLE_USER, ROLE_ASSISTANT, ROLE_SYSTEM, ROLE_TOOL };

static const struct {
    const char *name;
    enum role role;
} roles[] = {
    {"user", ROLE_USER},           {"human", ROLE_USER},         {"prompter", ROLE_USER},
    {"assistant", ROLE_ASSISTANT}, {"gpt", ROLE_ASSISTANT},      {"model", ROLE_ASSISTANT},
    {"bot", ROLE_ASSISTANT},       {"chatgpt", ROLE_ASSISTANT},  {"chatbot", ROLE_ASSISTANT},
    {"system", ROLE_SYSTEM},       {"developer", ROLE_SYSTEM},   {"tool", ROLE_TOOL},
    {"function", ROLE_TOOL},       {"function_call", ROLE_TOOL}, {"function_response", ROLE_TOOL},
    {"observation", ROLE_TOOL},    {"ipython", ROLE_TOOL},       {"tool_call", ROLE_TOOL},
    {"tool_response", ROLE_TOOL},
};

/* A row that grows by messages. */
struct conversation {
    struct geul_rows *r;
    struct geul_row *row;
    bool waiting; /* the last question, in turns[row->n_turns], has no answer yet */
    bool began;   /* a question or an answer was there */
};

/* Adds what somebody said, which where names in messages. learned: it is to be learned, if it is an answer. */
static bool add_message(struct conversation *c, enum role role, const char *text, bool learned, const char *where)
{
    struct geul_rows *r = c->r;
    struct geul_row *row = c->row;
    static const char *const names[] = {"user", "assistant", "system"};
    size_t n = (size_t)row->n_turns + 1;
    if (role == ROLE_SYSTEM) {
        if (c->began || row->system)
            return geul_rows_problem(r, "%srole is system; only the first message can be the system's", where);
        row->system = text;
        return true;
    }
    if (role == ROLE_ASSISTANT && !c->began) { /* a greeting: no prompt leads to it */
        r->tally.notes[GEUL_ROW_NOTE_OPENING]++;
        c->began = true;
        return true;
    }
    if ((role == ROLE_USER) == c->waiting)
        return geul_rows_problem(r, "%srole is %s, but it is the %s's turn", where, names[role],
                                 role == ROLE_USER ? "assistant" : "user");
    c->began = true;
    if (!geul_reserve(r->ctx, &r->turns, &r->turn_capacity, n, sizeof *r->turns) ||
        !geul_reserve(r->ctx, &r->learned, &r->learned_capacity, n, sizeof *r->learned))
        return false;
    if (role == ROLE_USER) {
        r->turns[row->n_turns] = (struct geul_turn){.question = text};
    } else {
        r->turns[row->n_turns].answer = text;
        r->learned[row->n_turns++] = learned;
        r->tally.notes[GEUL_ROW_NOTE_READ] += !learned;
    }
    c->waiting = role == ROLE_USER;
    return true;
}

/* The end of the messages; what names them. */
static bool finish(struct conversation *c, const char *what)
{
    struct geul_row *row = c->row;
    bool learns = false;
    if (c->waiting && row->n_turns == 0)
        return geul_rows_problem(c->r, "the last message is the user's: an answer is missing");
    if (row->n_turns == 0)
        return geul_rows_problem(c->r, "%s holds no question with an answer", what);
    for (int i = 0; i < row->n_turns; i++)
        learns |= c->r->learned[i];
    if (!learns)
        return geul_rows_problem(c->r, "no answer is to be learned: all have weight 0 or train false");
    c->r->tally.notes[GEUL_ROW_NOTE_LAST] += c->waiting;
    row->turns = c->r->turns;
    row->learned = c->r->learned;
    return true;
}

/* The keys that a message may have. What says whether an answer is learned: OpenAI and Mistral weigh (0 or 1), axolotl
 * trains, ms-swift has a loss. */
static const char *const role_keys[] = {"role", "from", NULL}, *const content_keys[] = {"content", "value", NULL},
                         *const learn_keys[] = {"weight", "train", "training", "loss", NULL};

/* The value of the first of the keys that the object has, and which; NULL when it has none. */
static const json_t *first_of(const json_t *object, const char *const *keys, const char **key)
{
    for (*key = keys[0]; *keys; keys++) {
        const json_t *v = json_object_get(object, *keys);
        if (v) {
            *key = *keys;
            return v;
        }
    }
    return NULL;
}

/* Counts the keys of a message that say nothing here. Those that call tools are refused: without them the messages make
 * no sense. */
static bool check_keys(struct geul_rows *r, json_t *message, const char *where)
{
    static const char *const *const known[] = {role_keys, content_keys, learn_keys};
    for (void *at = json_object_iter(message); at; at = json_object_iter_next(message, at)) {
        const char *key = json_object_iter_key(at), *found;
        const json_t *v = json_object_iter_value(at);
        bool used = false;
        char name[80];
        for (size_t k = 0; k < 3; k++)
            used |= first_of(message, known[k], &found) && strcmp(found, key) == 0;
        if (used || json_is_null(v) || (json_is_string(v) && json_string_length(v) == 0) ||
            (json_is_array(v) && json_array_size(v) == 0))
            continue;
        if (strcmp(key, "tool_calls") == 0 || strcmp(key, "function_call") == 0)
            return geul_rows_problem(r, "%s%s: templates have no place for calls of tools", where, key);
        snprintf(name, sizeof name, "messages[].%.60s", key);
        name[geul_rows_first_broken(name, strlen(name))] = '\0';
        geul_row_tally_key(r, name);
    }
    return true;
}

/* Whether the answer in a message is to be learned. */
static bool is_learned(struct geul_rows *r, const json_t *message)
{
    const char *key;
    const json_t *v = first_of(message, learn_keys, &key);
    double weight = json_number_value(v);
    if (json_is_number(v) && weight != 0 && weight != 1)
        r->tally.notes[GEUL_ROW_NOTE_WEIGHT]++;
    return !(json_is_false(v) || (json_is_number(v) && weight == 0));
}

/* Message i of a list that what names. */
static bool read_message(struct conversation *c, const char *what, json_t *message, size_t i, bool learned)
{
    struct geul_rows *r = c->r;
    char where[80];
    const char *role, *role_key, *content, *content_key;
    snprintf(where, sizeof where, "%s[%zu]", what, i);
    if (!json_is_object(message))
        return geul_rows_problem(r, "%s is %s, not an object with role and content", where, geul_rows_kind(message));
    strcat(where, ".");
    const json_t *said_by = first_of(message, role_keys, &role_key);
    const json_t *said = first_of(message, content_keys, &content_key);
    if (!get_text(r, said_by, where, role_key, &role))
        return false;
    size_t k = 0;
    while (k < sizeof roles / sizeof *roles && !same_letters(roles[k].name, role))
        k++;
    if (k == sizeof roles / sizeof *roles)
        return geul_rows_problem(r, "%s%s is \"%.40s\"; system, user (human) and assistant (gpt) are known", where,
                                 role_key, role);
    if (roles[k].role == ROLE_TOOL)
        return geul_rows_problem(r, "%s%s is \"%s\": templates have no place for tools", where, role_key, role);
    return check_keys(r, message, where) && get_filled(r, said, where, content_key, &content) &&
           add_message(c, roles[k].role, content, learned && is_learned(r, message), where);
}

/* Adds all messages of a list. */
static bool read_list(struct conversation *c, const char *what, const json_t *list, bool learned)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!read_message(c, what, json_array_get(list, i), i, learned))
            return false;
    return true;
}

/* Adds the system's text of a row, beside what it says. */
static bool read_system(struct conversation *c)
{
    static const char *const keys[] = {"system", "system_prompt"};
    for (size_t i = 0; i < 2; i++) {
        const char *text;
        if (!get_optional(c->r, find(c->r->json, keys[i]), keys[i], &text))
            return false;
        if (text && !add_message(c, ROLE_SYSTEM, text, true, ""))
            return false;
    }
    return true;
}

static bool read_messages(struct geul_rows *r, const char *const keys[3], struct geul_row *row)
{
    struct conversation c = {.r = r, .row = row};
    const json_t *list = as_list(r, find(r->json, keys[0]));
    if (!json_is_array(list))
        return geul_rows_problem(r, "%s is %s, not an array", keys[0], geul_rows_kind(list));
    return read_system(&c) && read_list(&c, keys[0], list, true) && finish(&c, keys[0]);
}

/* ------------------------------------------------------------------------------------- pairs -- */

/* Pair i of a history: [question, answer]. */
static bool read_past(struct conversation *c, const json_t *pair, size_t i)
{
    char where[64];
    const char *question, *answer;
    snprintf(where, sizeof where, "history[%zu]", i);
    if (!json_is_array(pair) || json_array_size(pair) != 2)
        return geul_rows_problem(c->r, "%s is %s, not a question and its answer", where,
                                 json_is_array(pair) ? "an array of another length" : geul_rows_kind(pair));
    return get_filled(c->r, json_array_get(pair, 0), where, "[0]", &question) &&
           get_filled(c->r, json_array_get(pair, 1), where, "[1]", &answer) &&
           add_message(c, ROLE_USER, question, true, where) && add_message(c, ROLE_ASSISTANT, answer, true, where);
}

/* Adds the turns that came before: pairs, or messages. */
static bool read_history(struct conversation *c)
{
    const json_t *history = as_list(c->r, find(c->r->json, "history"));
    const char *text = json_string_value(history);
    if (!history || json_is_null(history) || (text && is_blank(text)))
        return true;
    if (!json_is_array(history))
        return geul_rows_problem(c->r, "history is %s, not an array", geul_rows_kind(history));
    if (json_is_object(json_array_get(history, 0)))
        return read_list(c, "history", history, true);
    for (size_t i = 0; i < json_array_size(history); i++)
        if (!read_past(c, json_array_get(history, i), i))
            return false;
    return true;
}

/* Whether the value is a list of messages. */
static bool is_messages(const json_t *v)
{
    const char *key;
    return first_of(json_array_get(v, 0), role_keys, &key) != NULL;
}

/* Adds one side of a pair: a text or list of texts of that role, or messages. *text: it, NULL for messages. */
static bool read_side(struct conversation *c, const char *key, enum role role, bool learned, const char **text)
{
    const json_t *v = as_list(c->r, find(c->r->json, key));
    *text = NULL;
    if (is_messages(v))
        return read_list(c, key, v, learned);
    if (role == ROLE_ASSISTANT && json_is_array(v)) /* several answers, perhaps: which of them is for the user to say */
        return geul_rows_problem(c->r, "%s is an array, not a string", key);
    return get_filled(c->r, v, "", key, text) && add_message(c, role, *text, learned, "");
}

/* A question and its answer, with the turns before it. The answers in a list of messages that is a question are read,
 * not learned, as by TRL. */
static bool read_pair(struct geul_rows *r, const char *const keys[3], struct geul_row *row)
{
    struct conversation c = {.r = r, .row = row};
    const char *input = NULL, *question = keys[0], *text;
    const json_t *asked = find(r->json, question);
    if (!read_system(&c) || !read_history(&c) || (keys[2] && !get_optional(r, find(r->json, keys[2]), keys[2], &input)))
        return false;
    if (input && json_is_string(asked) && is_blank(json_string_value(asked))) { /* the whole question is in the input */
        question = keys[2];
        input = NULL;
    }
    row->input_turn = row->n_turns;
    if (!read_side(&c, question, ROLE_USER, false, &text) || !read_side(&c, keys[1], ROLE_ASSISTANT, true, &text))
        return false;
    row->input = input;
    return finish(&c, "the row");
}

static bool read_text(struct geul_rows *r, const char *const keys[3], struct geul_row *row)
{
    row->kind = GEUL_ROW_TEXT;
    if (!get_filled(r, find(r->json, keys[0]), "", keys[0], &row->text))
        return false;
    row->length = strlen(row->text);
    return true;
}

/* --------------------------------------------------------------------------------- what is used -- */

void geul_row_tally_key(struct geul_rows *r, const char *name)
{
    struct geul_row_tally *t = &r->tally;
    int i = 0;
    while (i < t->n_keys && strcmp(t->keys[i].name, name) != 0)
        i++;
    if (i == GEUL_ROW_KEYS_KEPT) {
        t->other_keys++;
        return;
    }
    if (i == t->n_keys) {
        t->keys[i].name = geul_strndup(r->ctx, name, strlen(name));
        if (!t->keys[i].name)
            return;
        t->keys[i].rows = t->keys[i].last = 0;
        t->n_keys++;
    }
    t->keys[i].rows += t->keys[i].last != t->rows;
    t->keys[i].last = t->rows;
}

/* Whether a value says nothing: null, blank, an empty list. */
static bool is_nothing(const json_t *v)
{
    return json_is_null(v) || (json_is_string(v) && is_blank(json_string_value(v))) ||
           (json_is_array(v) && json_array_size(v) == 0) || (json_is_object(v) && json_object_size(v) == 0);
}

/* Counts the keys of a row that its shape does not use. */
static void tally_keys(struct geul_rows *r, const struct shape *shape)
{
    static const char *const pair[] = {"system", "system_prompt", "history"};
    size_t n_beside = shape->read == read_pair ? 3 : shape->read == read_messages ? 2 : 0;
    for (void *at = json_object_iter(r->json); at; at = json_object_iter_next(r->json, at)) {
        const char *key = json_object_iter_key(at);
        bool used = is_nothing(json_object_iter_value(at));
        for (size_t i = 0; i < 3; i++)
            used |= shape->keys[i] && same_letters(key, shape->keys[i]);
        for (size_t i = 0; i < n_beside; i++)
            used |= same_letters(key, pair[i]);
        if (!used)
            geul_row_tally_key(r, key);
    }
}

bool geul_row_shape_read(struct geul_rows *r, struct geul_row *row)
{
    const struct shape *shape = shape_of(r->json);
    const struct geul_row_tally before = r->tally;
    char text[640];
    if (r->made)
        json_array_clear(r->made);
    if (!shape) {
        geul_row_shape_describe(r->json, "key", text, sizeof text);
        return geul_rows_problem(r, "%s", text);
    }
    r->tally.rows++;
    if (!shape->read(r, shape->keys, row)) {
        memcpy(r->tally.notes, before.notes, sizeof before.notes); /* what is left out has been said as a whole */
        return false;
    }
    r->tally.shapes[shape - shapes]++;
    tally_keys(r, shape);
    return geul_error_status(r->ctx) == GEUL_OK;
}

/* Appends to a text of `size` bytes, as far as there is room. */
static void append(char *text, size_t size, const char *format, ...) GEUL_PRINTF(3, 4);
static void append(char *text, size_t size, const char *format, ...)
{
    size_t used = strlen(text);
    va_list args;
    va_start(args, format);
    vsnprintf(text + used, size - used, format, args);
    va_end(args);
    text[geul_rows_first_broken(text, strlen(text))] = '\0';
}

static void note_keys(struct geul_rows *r)
{
    struct geul_row_tally *t = &r->tally;
    char text[1024] = "not used: ";
    for (int i = 0; i < t->n_keys; i++)
        append(text, sizeof text, "%s%.60s (%lld row%s)", i ? ", " : "", t->keys[i].name, (long long)t->keys[i].rows,
               t->keys[i].rows == 1 ? "" : "s");
    if (t->other_keys)
        append(text, sizeof text, " and more keys");
    if (t->n_keys)
        geul_row_problems_add(r->problems, &r->problems->notes, r->name, text);
}

/* "CSV; question and answer (3 rows)" */
static void note_form(struct geul_rows *r)
{
    static const char *const forms[] = {"JSON Lines", "a JSON array", "a text", "a table"};
    const struct geul_row_tally *t = &r->tally;
    char text[640] = "";
    const char *gap = "; ";
    append(text, sizeof text, "%s", t->spread ? "JSON objects" : forms[r->form]);
    if (r->form == GEUL_ROW_TABLE)
        append(text, sizeof text, " separated by %s",
               r->delimiter == '\t'  ? "tabs"
               : r->delimiter == ';' ? "semicolons"
                                     : "commas");
    for (int i = 0; i < N_SHAPES; i++)
        if (t->shapes[i]) {
            append(text, sizeof text, "%s%s (%lld row%s)", gap, shapes[i].name, (long long)t->shapes[i],
                   t->shapes[i] == 1 ? "" : "s");
            gap = ", ";
        }
    if (r->found)
        geul_row_problems_add(r->problems, &r->problems->forms, r->name, text);
}

void geul_row_tally_finish(struct geul_rows *r)
{
    static const char *const notes[GEUL_ROW_NOTES] = {
        [GEUL_ROW_NOTE_OPENING] = "not used: messages of the assistant that open a conversation (%lld)",
        [GEUL_ROW_NOTE_LAST] = "not used: last questions, which have no answer (%lld)",
        [GEUL_ROW_NOTE_READ] = "read, not learned: answers in a prompt, with weight 0 or train false (%lld)",
        [GEUL_ROW_NOTE_WEIGHT] = "weights other than 0 and 1 count as 1 (%lld)",
    };
    char text[128];
    note_form(r);
    note_keys(r);
    for (int i = 0; i < GEUL_ROW_NOTES; i++) {
        const char *mark = strstr(notes[i], "%lld");
        snprintf(text, sizeof text, "%.*s%lld%s", (int)(mark - notes[i]), notes[i], (long long)r->tally.notes[i],
                 mark + 4);
        if (r->tally.notes[i])
            geul_row_problems_add(r->problems, &r->problems->notes, r->name, text);
    }
    for (int i = 0; i < r->tally.n_keys; i++)
        geul_free(r->ctx, r->tally.keys[i].name);
    r->tally.n_keys = 0;
}
