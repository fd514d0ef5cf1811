/* test_card.c: the cases of all operations on a card of this machine (tests/card.h). */
#include "tests/backends/device_ops.h"
#include "tests/card.h"

static const char *again(int i)
{
    (void)i;
    return "again";
}

static const struct device_kind card = {"card", card_open, 2, again};

TEST(card_op_cases)
{
    for (int op = GEUL_OP_LEAF + 1; card_is_named() && op < GEUL_OP_COUNT; op++)
        check_device_op(&card, (enum geul_op)op, false);
}

TEST(card_op_cases_exact)
{
    for (int op = GEUL_OP_LEAF + 1; card_is_named() && op < GEUL_OP_COUNT; op++)
        check_device_op(&card, (enum geul_op)op, true);
}
