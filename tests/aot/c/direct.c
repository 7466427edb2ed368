/* A kernel linked with directly: no launcher, no loading. */
#include "causal.h"
#include "reference.h"

static int causal(const void *self, int b, int h, int q, int k)
{
    (void)self, (void)b, (void)h;
    return k <= q;
}

int main(void)
{
    enum { N = 100, D = 16 };
    const problem p = {1, 1, 1, N, N, D, D, 0.25, causal, NULL, NULL};
    const numbers Q = fresh(N * D, 0), K = fresh(N * D, 0), V = fresh(N * D, 0);
    double O[N * D], LSE[N];
    float got[N * D], lse[N];
    attend(&p, Q.exact, K.exact, V.exact, O, LSE);
    void *const pointers[] = {Q.data, K.data, V.data, got, lse};
    const int64_t ints[] = {1, 1, 1, N, N, 2, 0, 0, D, 1, 0, 0, D, 1, 0, 0, D, 1, 0, 0, D, 1, 0, 0, 1};
    const double reals[] = {0.25};
    REQUIRE(attngen_causal_cpu_fp32_d16_one_pass_0(pointers, ints, reals) == 0);
    REQUIRE(apart(got, 0, O, N * D) <= 2e-6);
    REQUIRE(apart(lse, 0, LSE, N) <= 1e-5);
    return 0;
}
