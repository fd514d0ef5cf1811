/* test_card_models.c: the goldens on a card of this machine (tests/card.h), alone and divided between it and the CPU.
 */
#include "tests/card.h"
#include "tests/models/device_models.h"

static const struct rig_options on_card = {.poisoned_from = -1, .all_poisoned = true, .other = card_open},
                                exact = {.poisoned_from = -1, .all_poisoned = true, .other = card_open, .exact = true},
                                divided = {.poisoned_from = 1, .other = card_open};

TEST(card_models_equal_transformers)
{
    if (card_is_named())
        check_golden_logits(
            (const struct device_division[]){{"on a card", on_card}, {"exact", exact}, {"divided", divided}}, 3);
}

TEST(card_models_continue_as_transformers)
{
    if (card_is_named())
        check_golden_texts((const struct device_division[]){{"on a card", on_card}, {"divided", divided}}, 2);
}
