/* Dense attention in double, and what tests of the C interface share. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQUIRE(condition)                                                        \
    do {                                                                          \
        if (!(condition)) {                                                       \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                              \
        }                                                                         \
    } while (0)

static uint32_t seed = 20261126;

static double uniform(void) /* in [-1, 1) */
{
    seed = seed * 1664525u + 1013904223u;
    return (double)(seed >> 8) / (1 << 23) - 1;
}

static uint16_t to_bfloat16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static float from_bfloat16(uint16_t x)
{
    const uint32_t bits = (uint32_t)x << 16;
    float out;
    memcpy(&out, &bits, 4);
    return out;
}

/* One tensor of n numbers, in float32 or bfloat16, and the same numbers in double. */
typedef struct numbers { void *data; double *exact; } numbers;

static numbers fresh(size_t n, int is_bfloat16)
{
    numbers out = {malloc(4 * n), malloc(8 * n)};
    for (size_t i = 0; i < n; ++i) {
        const float x = (float)uniform();
        if (is_bfloat16) ((uint16_t *)out.data)[i] = to_bfloat16(x);
        else ((float *)out.data)[i] = x;
        out.exact[i] = is_bfloat16 ? from_bfloat16(to_bfloat16(x)) : x;
    }
    return out;
}

typedef struct problem {
    int n_b, n_h, n_kv, n_q, n_k, d, e;
    double scale;
    int (*keeps)(const void *self, int b, int h, int q, int k);
    double (*bias)(const void *self, int b, int h, int q, int k);
    const void *self;
} problem;

/* O [b, h, q, e] and LSE [b, h, q] of contiguous Q, K, V. */
static void attend(const problem *p, const double *Q, const double *K, const double *V, double *O, double *LSE)
{
    double *s = malloc((size_t)(p->n_k + 1) * sizeof *s);
    for (int b = 0; b < p->n_b; ++b)
        for (int h = 0; h < p->n_h; ++h)
            for (int q = 0; q < p->n_q; ++q) {
                const int g = h / (p->n_h / p->n_kv);
                const size_t row = ((size_t)b * p->n_h + h) * p->n_q + q, keys = ((size_t)b * p->n_kv + g) * p->n_k;
                double m = -INFINITY, z = 0;
                for (int k = 0; k < p->n_k; ++k) {
                    s[k] = -INFINITY;
                    if (!p->keeps(p->self, b, h, q, k)) continue;
                    s[k] = 0;
                    for (int i = 0; i < p->d; ++i) s[k] += Q[row * p->d + i] * K[(keys + k) * p->d + i];
                    s[k] = s[k] * p->scale + (p->bias ? p->bias(p->self, b, h, q, k) : 0);
                    m = fmax(m, s[k]);
                }
                for (int i = 0; i < p->e; ++i) O[row * p->e + i] = 0;
                for (int k = 0; k < p->n_k; ++k) {
                    if (s[k] == -INFINITY) continue;
                    const double w = exp(s[k] - m);
                    z += w;
                    for (int i = 0; i < p->e; ++i) O[row * p->e + i] += w * V[(keys + k) * p->e + i];
                }
                for (int i = 0; i < p->e && z > 0; ++i) O[row * p->e + i] /= z;
                LSE[row] = z > 0 ? m + log(z) : -INFINITY;
            }
    free(s);
}

/* The largest difference; infinite where only one of two numbers is finite. */
static double apart(const void *got, int is_bfloat16, const double *expected, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; ++i) {
        const double x = is_bfloat16 ? from_bfloat16(((const uint16_t *)got)[i]) : ((const float *)got)[i];
        if (x == expected[i]) continue;
        const double by = fabs(x - expected[i]);
        most = isfinite(by) ? fmax(most, by) : INFINITY;
    }
    return most;
}
