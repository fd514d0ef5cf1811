/* What the watch names, and that it stays silent over curves that are only noisy. */
#include "tests/harness.h"
#include "journal/watch.h"

/* A falling loss with noise; heavy: the tails of batches with one record. */
static double curve(uint64_t *seed, int step, double width, bool heavy)
{
    double noise = (double)test_normal(seed);
    if (heavy) { /* Laplace's distribution with the variance of the other */
        double u = test_uniform(seed, -0.5, 0.5);
        noise = (u < 0 ? 1 : -1) * log(1 - 2 * fabs(u) + 1e-12) / sqrt(2);
    }
    return 2.2 + 8 * exp(-step / 150.0) + 0.6 * exp(-step / 2000.0) + width * noise;
}

static double gradient(uint64_t *seed, int step)
{
    return (0.4 + 3 * exp(-step / 100.0)) * exp(0.35 * (double)test_normal(seed));
}

TEST(watch_stays_silent_over_noise)
{
    static const double widths[] = {0.02, 0.1, 0.3};
    for (uint64_t s = 1; s <= 8; s++)
        for (int k = 0; k < 6; k++) {
            struct geul_watch w = {.ctx = NULL};
            uint64_t seed = s * 977;
            char why[GEUL_WATCH_WHY];
            for (int step = 1; step <= 10000; step++) {
                double loss = curve(&seed, step, widths[k / 2], k % 2), grad = gradient(&seed, step);
                enum geul_watch_verdict v = geul_watch_step(&w, loss, grad, why, sizeof why);
                if (!CHECK_MSG(v == GEUL_WATCH_FINE && why[0] == '\0', "seed %llu, curve %d, step %d: %s, %s",
                               (unsigned long long)s, k, step, geul_watch_name(v), why))
                    return;
            }
        }
}

/* Feeds n quiet steps. */
static void settle(struct geul_watch *w, uint64_t *seed, int n)
{
    for (int i = 0; i < n; i++)
        geul_watch_step(w, 2.3 + 0.08 * (double)test_normal(seed), 0.5 * exp(0.2 * (double)test_normal(seed)), NULL, 0);
}

TEST(watch_names_what_is_odd)
{
    static const struct {
        double loss, grad;
        enum geul_watch_verdict verdict;
        const char *name, *why;
    } cases[] = {
        {5.1, 0.5, GEUL_WATCH_LOSS_SPIKE, "loss spike", "loss 5.1; it was about"},
        {5.1, 80, GEUL_WATCH_LOSS_SPIKE, "loss spike", "loss 5.1; it was about"},
        {0.9, 0.5, GEUL_WATCH_LOSS_DROP, "loss drop", "does the data repeat"},
        {2.3, 40, GEUL_WATCH_GRADIENT_SPIKE, "gradient spike", "gradient norm 40"},
        {(double)NAN, 1, GEUL_WATCH_NOT_FINITE, "not finite", "loss nan"},
        {2.3, (double)INFINITY, GEUL_WATCH_NOT_FINITE, "not finite", "gradient norm inf"},
        {2.7, 0.5, GEUL_WATCH_FINE, "fine", ""}, /* many deviations, but not half a nat */
        {2.3, 0, GEUL_WATCH_FINE, "fine", ""},
        {2.3, 0.001, GEUL_WATCH_FINE, "fine", ""}, /* a small gradient is not trouble */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (uint64_t seed = 1; seed < 6; seed++) {
            struct geul_watch w = {.ctx = NULL};
            uint64_t state = seed;
            char why[GEUL_WATCH_WHY];
            settle(&w, &state, 300);
            struct geul_watch before = w;
            enum geul_watch_verdict v = geul_watch_step(&w, cases[i].loss, cases[i].grad, why, sizeof why);
            CHECK_MSG(v == cases[i].verdict, "case %zu: %s (%s)", i, geul_watch_name(v), why);
            CHECK_STR(geul_watch_name(v), cases[i].name);
            CHECK_MSG(strstr(why, cases[i].why) != NULL, "case %zu says: %s", i, why);
            if (v == GEUL_WATCH_NOT_FINITE)
                CHECK(memcmp(&w, &before, sizeof w) == 0);
            if (v == GEUL_WATCH_LOSS_SPIKE || v == GEUL_WATCH_LOSS_DROP)
                CHECK(w.levels.loss.mean == before.levels.loss.mean &&
                      w.levels.loss.variance == before.levels.loss.variance);
            if (v == GEUL_WATCH_GRADIENT_SPIKE)
                CHECK(w.levels.log_grad.mean == before.levels.log_grad.mean &&
                      w.levels.log_grad.variance == before.levels.log_grad.variance);
        }
    CHECK_STR(geul_watch_name((enum geul_watch_verdict)99), "?");
}

TEST(watch_judges_nothing_while_it_warms_up)
{
    struct geul_watch w = {.ctx = NULL};
    for (int i = 0; i < 20; i++)
        CHECK(geul_watch_step(&w, i % 2 ? 9 : 2, 1, NULL, 0) == GEUL_WATCH_FINE);
    CHECK(geul_watch_step(&w, (double)NAN, 1, NULL, 0) == GEUL_WATCH_NOT_FINITE);
    memset(&w, 0, sizeof w);
    CHECK(geul_watch_step(&w, (double)NAN, 1, NULL, 0) == GEUL_WATCH_NOT_FINITE);
}

/* A loss that climbs to 26, fast or slowly, from the first step on or later, is named before it is there, by this or as
 * a spike; losses that are only noisy climb nowhere. */
TEST(watch_names_a_climb)
{
    static const double speeds[] = {0.05, 0.2, 0.6, 1.5}; /* nats a step */
    static const int before[] = {0, 1, 10, 40, 300};      /* quiet steps */
    for (uint64_t s = 1; s <= 20; s++)
        for (size_t i = 0; i < sizeof speeds / sizeof *speeds; i++)
            for (size_t k = 0; k < sizeof before / sizeof *before; k++) {
                struct geul_watch w = {.ctx = NULL};
                uint64_t seed = s;
                char why[GEUL_WATCH_WHY];
                double loss = 3.6, named = 0;
                for (int step = 0; loss < 26; step++) {
                    loss = fmax(3.6, 3.6 + speeds[i] * (step - before[k])) + 0.15 * (double)test_normal(&seed);
                    enum geul_watch_verdict v = geul_watch_step(&w, loss, 1, why, sizeof why);
                    if (v == GEUL_WATCH_LOSS_CLIMB)
                        CHECK_MSG(strstr(why, "climbed: now "), "%s", why);
                    if (named == 0 && (v == GEUL_WATCH_LOSS_CLIMB || v == GEUL_WATCH_LOSS_SPIKE))
                        named = loss;
                }
                CHECK_MSG(named > 4 && named < 22, "seed %d, %g nats a step after %d: named at %g", (int)s, speeds[i],
                          before[k], named);
                CHECK_STR(geul_watch_name(GEUL_WATCH_LOSS_CLIMB), "loss climb");
            }
    for (uint64_t s = 1; s <= 40; s++) { /* as of batches of one short row */
        struct geul_watch w = {.ctx = NULL};
        uint64_t seed = s;
        for (int step = 0; step < 3000; step++) {
            enum geul_watch_verdict v = geul_watch_step(&w, fmax(0, 3 + 1.2 * (double)test_normal(&seed)), 1, NULL, 0);
            CHECK_MSG(v == GEUL_WATCH_FINE, "seed %d, step %d: %s", (int)s, step, geul_watch_name(v));
        }
    }
}

/* In the middle of a climb a run is not calm, so that what it saves then is not what to go back to. */
TEST(watch_is_calm_but_in_a_climb)
{
    struct geul_watch w = {.ctx = NULL};
    uint64_t seed = 9;
    CHECK(geul_watch_is_calm(&w));
    settle(&w, &seed, 200);
    CHECK(geul_watch_is_calm(&w));
    for (int i = 1; i <= 14; i++)
        geul_watch_step(&w, 2.3 + 0.08 * i, 0.5, NULL, 0);
    CHECK(!geul_watch_is_calm(&w));
}

/* A level that lasts is named for a while, then it is where the run is. */
TEST(watch_gets_used_to_a_new_level)
{
    struct geul_watch w = {.ctx = NULL};
    uint64_t seed = 3;
    int named = 0;
    settle(&w, &seed, 200);
    for (int i = 0; i < 100; i++)
        named += geul_watch_step(&w, 1.1 + 0.05 * (double)test_normal(&seed), 0.5, NULL, 0) == GEUL_WATCH_LOSS_DROP;
    CHECK_INT(named, 10);
    CHECK(geul_watch_step(&w, 2.6, 0.5, NULL, 0) == GEUL_WATCH_LOSS_SPIKE);
}

TEST(watch_goes_on_from_saved_bytes)
{
    struct geul_context *ctx = geul_context_new(NULL);
    struct geul_watch *w = geul_watch_new(ctx), *restored = geul_watch_new(ctx);
    uint64_t seed = 5;
    unsigned char saved[GEUL_WATCH_STATE_BYTES], later[GEUL_WATCH_STATE_BYTES], restored_later[GEUL_WATCH_STATE_BYTES];
    static const unsigned char zero[GEUL_WATCH_STATE_BYTES];
    geul_watch_get_state(w, saved);
    CHECK(memcmp(saved, zero, sizeof zero) == 0);
    settle(w, &seed, 123);
    geul_watch_get_state(w, saved);
    geul_watch_set_state(restored, saved);
    for (int i = 0; i < 500; i++) {
        double loss = 2.3 + 0.1 * (double)test_normal(&seed) + (i % 90 == 7 ? 3 : 0);
        CHECK(geul_watch_step(w, loss, 0.5, NULL, 0) == geul_watch_step(restored, loss, 0.5, NULL, 0));
    }
    geul_watch_get_state(w, later);
    geul_watch_get_state(restored, restored_later);
    CHECK(memcmp(later, restored_later, sizeof later) == 0 && memcmp(later, saved, sizeof saved) != 0);
    geul_watch_free(w);
    geul_watch_free(restored);
    geul_context_free(ctx);
}

/* Bytes from a damaged file: such a level begins again with its warm-up, the other one stays. */
TEST(watch_refuses_impossible_levels)
{
    static const struct geul_watch_level fresh = {0}, good = {2.3, 0.01, 300, 1};
    static const struct geul_watch_level bad[] = {
        {(double)NAN, 0.01, 300, 0}, {(double)INFINITY, 0.01, 300, 0}, {2.3, (double)NAN, 300, 0},
        {2.3, -1, 300, 0},           {2.3, (double)INFINITY, 300, 0},  {2.3, 0.01, INT64_MAX, 0},
        {2.3, 0.01, -1, 0},          {2.3, 0.01, 300, INT64_MAX},      {2.3, 0.01, 300, -1},
        {2.3, 0.01, INT64_MIN, 300},
    };
    struct geul_watch w = {.ctx = NULL};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        for (int k = 0; k < 2; k++) {
            struct geul_watch_levels levels = {.loss = k ? good : bad[i], .log_grad = k ? bad[i] : good};
            unsigned char bytes[GEUL_WATCH_STATE_BYTES];
            memcpy(bytes, &levels, sizeof bytes);
            geul_watch_set_state(&w, bytes);
            CHECK_MSG(memcmp(k ? &w.levels.log_grad : &w.levels.loss, &fresh, sizeof fresh) == 0 &&
                          memcmp(k ? &w.levels.loss : &w.levels.log_grad, &good, sizeof good) == 0,
                      "bad level %zu", i);
            for (int step = 0; step < 30; step++)
                geul_watch_step(&w, step < 2 ? 9 : 2.3, 1, NULL, 0);
            CHECK(geul_watch_step(&w, 50, 1, NULL, 0) == GEUL_WATCH_LOSS_SPIKE);
        }
}

/* ------------------------------------------------------------------------------------- texts -- */

static void check_text(const char *text, const char *expected)
{
    const char *found = geul_watch_text(text, strlen(text));
    CHECK_MSG(found == expected || (found && expected && strcmp(found, expected) == 0), "\"%.60s\": %s, expected %s",
              text, found ? found : "fine", expected ? expected : "fine");
}

TEST(watch_knows_broken_texts)
{
    check_text("", "empty");
    check_text(" \n\t\xE3\x80\x80", "empty"); /* U+3000 is a space */
    check_text("글을 \xEF\xBF\xBD 쓴다", "broken characters");
    check_text("글을 \xEA\xB8 쓴다", "broken characters");
    check_text("\xFF", "broken characters");
    check_text("글을 쓴\xEB\x8B", NULL);                 /* cut off by a limit of tokens */
    check_text("글을 쓴\xEF\xBF\xBD\xEF\xBF\xBD", NULL); /* the same after a decoder */
    check_text("\xEF\xBF\xBD", "broken characters");
    check_text("ㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋ", "mostly one character");
    check_text("a . . . . . . . . . . . . . . . . . . . . b", "mostly one character");
    check_text("네, 서울은 서울은 서울은 서울은 서울은 서울은 서울은 서울은", "repeats itself");
    check_text("저는 학생입니다. 저는 학생입니다. 저는 학생입니다. 저는 학생입니다.", "repeats itself");
    check_text("좋다", NULL);
    check_text("ㅋㅋㅋㅋ 재밌네요", NULL);
    check_text(
        "대한민국의 수도는 서울특별시입니다. 조선이 한양으로 도읍을 옮긴 뒤로 정치와 경제의 중심지가 되었습니다.",
        NULL);
    check_text("1. 물을 끓입니다.\n2. 면을 넣습니다.\n3. 스프를 넣습니다.\n4. 4분을 기다립니다.\n5. 그릇에 담습니다.",
               NULL);
}

/* Loops in which a number changes each time, and long texts. */
TEST(watch_knows_loops_that_vary)
{
    char text[10000] = "";
    size_t n = 0;
    for (int i = 0; i < 12; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%d 번째 사람은 오늘도 학교에 가서 공부를 합니다 그리고 ", i);
    check_text(text, "repeats itself");
    uint64_t seed = 1;
    n = 0;
    for (int i = 0; i < 600; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%llu ", (unsigned long long)(test_random(&seed) % 1000000));
    check_text(text, NULL);
    for (int i = 0; i < 300; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "네 그래요 ");
    CHECK(n < sizeof text);
    check_text(text, "repeats itself");
}
