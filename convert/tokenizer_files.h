/* tokenizer_files.h: the tokenizer of a Hugging Face directory, which is spread over several files. */
#ifndef GEUL_TOKENIZER_FILES_H
#define GEUL_TOKENIZER_FILES_H

#include "tokenizer/tokenizer.h"

#define GEUL_TOKENIZER_NOTES 4

/* What is not as a reader of the files would expect, said once the tokenizer is known to work. */
struct geul_tokenizer_notes {
    int n;
    char text[GEUL_TOKENIZER_NOTES][600];
};
/* Logs them as warnings. */
void geul_tokenizer_notes_log(const struct geul_context *ctx, const struct geul_tokenizer_notes *notes);

/* Reads into spec, which must be initialised, what transformers' AutoTokenizer makes of dir: tokenizer.json, or
 * vocab.json with merges.txt, and what tokenizer_config.json, special_tokens_map.json and added_tokens.json add; the
 * end tokens as geul_end_ids_choose() has them. Added tokens beyond config.json's vocab_size are left out and
 * noted. A directory without a tokenizer that geul can read is an error that says what it has. */
enum geul_status geul_tokenizer_spec_from_directory(struct geul_context *ctx, const char *dir,
                                                    struct geul_tokenizer_spec *spec,
                                                    struct geul_tokenizer_notes *notes);
/* Whether dir has files of a tokenizer, whether or not geul can read it. */
bool geul_tokenizer_files_exist(const char *dir);

#endif
