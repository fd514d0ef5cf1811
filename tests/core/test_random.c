/* test_random.c: the promised sequences, against the same arithmetic written in Python; splitmix64's also against the
 * numbers that its authors' program prints. */
#include "core/bytes.h"
#include "core/random.h"

#include "tests/harness.h"

#define SAME(call, want)                                                                                               \
    do {                                                                                                               \
        uint64_t got = (call);                                                                                         \
        CHECK_MSG(got == (want), "%s: %llx", #call, (unsigned long long)got);                                          \
    } while (0)

TEST(random_splitmix_is_the_published_sequence)
{
    static const uint64_t published[] = {6457827717110365317u, 3203168211198807973u, 9817491932198370423u,
                                         4593380528125082431u};
    for (uint64_t i = 0; i < 4; i++)
        SAME(geul_random_splitmix(1234567, i), published[i]);
    SAME(geul_random_splitmix(0, 0), 0xe220a8397b1dcdafu);
    SAME(geul_random_splitmix(UINT64_MAX, UINT64_MAX), 0xb4d055fcf2cbbd7bu);
}

/* The numbers are those of the authors' test program. */
TEST(random_hash_is_the_published_one)
{
    SAME(geul_hash_bytes(GEUL_HASH_START, "", 0), 0xcbf29ce484222325u);
    SAME(geul_hash_bytes(GEUL_HASH_START, "a", 1), 0xaf63dc4c8601ec8cu);
    SAME(geul_hash_bytes(geul_hash_bytes(GEUL_HASH_START, "foo", 3), "bar", 3), 0x85944171f73967e8u);
}

TEST(random_sequences_keep_their_bits)
{
    SAME(geul_random_bits(0, 0), 0x48218226ff3cd4bfu);
    SAME(geul_random_bits(1, 2), 0xf18d6ce93d6cf1eeu);
    SAME(geul_random_bits(1234567, 3), 0xff5a7968cc4a2bbcu);
    SAME(geul_random_bits(UINT64_MAX, UINT64_MAX), 0x2dfe1aa565b7ff81u);
    SAME(geul_random_key(0, 0), 0xa3bb0bd1c5dde297u);
    SAME(geul_random_key(1, 2), 0x2a7be3b1135440cau);
    SAME(geul_random_key(UINT64_MAX, UINT64_MAX), 0x321ccd1b5dcfc55eu);
    SAME(geul_random_element(1, 2), 0x7875abf7u);
    SAME(geul_random_element(0x123456789abcdef0u, 7), 0x82097e15u);
    SAME(geul_random_element(UINT64_MAX, UINT32_MAX), 0x7e12e7d8u);
    uint64_t state = 1;
    SAME(geul_random_congruential(&state), 0x6c576fac43fd007cu);
    SAME(geul_random_congruential(&state), 0x826886b3864a1b1bu);
}

TEST(random_numbers_lie_in_the_unit_interval)
{
    CHECK(geul_random_real(0) == 0);
    CHECK(geul_random_real(UINT64_MAX) == 1 - 0x1p-53);
    CHECK(geul_random_unit(1, 2) == geul_random_real(0xf18d6ce93d6cf1eeu));
}
