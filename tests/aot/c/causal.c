/* Causal attention through the launcher, against a dense one: grouped heads, lengths, layouts, two dtypes. */
#include "causal.h"
#include "reference.h"

static int causal(const void *self, int b, int h, int q, int k)
{
    (void)b, (void)h;
    const problem *p = self;
    return k <= q + p->n_k - p->n_q;
}

static void tensor(const void *data, const void **at, int64_t *stride, int n_b, int n_h, int n, int d)
{
    const int64_t size[] = {n_b, n_h, n, d};
    *at = data;
    attngen_contiguous(4, size, stride);
}

static void run(causal_library *library, int n_b, int n_h, int n_kv, int n_q, int n_k, int is_bfloat16)
{
    problem p = {n_b, n_h, n_kv, n_q, n_k, 16, 16, 0.3, causal, NULL, NULL};
    p.self = &p;
    const size_t rows = (size_t)n_b * n_h * n_q, keys = (size_t)n_b * n_kv * n_k;
    const numbers Q = fresh(rows * 16, is_bfloat16), K = fresh(keys * 16, is_bfloat16), V = fresh(keys * 16, is_bfloat16);
    double *O = malloc(rows * 16 * sizeof *O + 1), *LSE = malloc(rows * sizeof *LSE + 1);
    attend(&p, Q.exact, K.exact, V.exact, O, LSE);

    causal_args args;
    causal_init(&args);
    REQUIRE(args.device == ATTNGEN_CPU);
    args.dtype = is_bfloat16 ? ATTNGEN_BFLOAT16 : ATTNGEN_FLOAT32;
    args.n_b = n_b, args.n_h = n_h, args.n_kv = n_kv, args.n_q = n_q, args.n_k = n_k;
    args.head_dim = args.value_dim = 16;
    args.scale = 0.3;
    args.threads = 2;
    tensor(Q.data, &args.Q, args.Q_stride, n_b, n_h, n_q, 16);
    tensor(K.data, &args.K, args.K_stride, n_b, n_kv, n_k, 16);
    tensor(V.data, &args.V, args.V_stride, n_b, n_kv, n_k, 16);
    /* O lies as [b, q, h, e], LSE backwards */
    float *got = malloc(rows * 16 * 4 + 1), *turned = malloc(rows * 16 * 4 + 1), *lse = malloc(rows * 4 + 4);
    args.O = turned;
    args.O_stride[0] = (int64_t)n_q * n_h * 16, args.O_stride[1] = 16, args.O_stride[2] = n_h * 16, args.O_stride[3] = 1;
    args.LSE = rows ? lse + rows - 1 : lse;
    args.LSE_stride[0] = -(int64_t)n_h * n_q, args.LSE_stride[1] = -n_q, args.LSE_stride[2] = -1;
    const attngen_status status = causal_run(library, &args);
    if (status != ATTNGEN_OK) fprintf(stderr, "%s\n", causal_error());
    REQUIRE(status == ATTNGEN_OK);

    const size_t width = is_bfloat16 ? 2 : 4;
    for (int b = 0; b < n_b; ++b)
        for (int h = 0; h < n_h; ++h)
            for (int q = 0; q < n_q; ++q)
                memcpy((char *)got + (((size_t)b * n_h + h) * n_q + q) * 16 * width,
                       (char *)turned + (((size_t)b * n_q + q) * n_h + h) * 16 * width, 16 * width);
    for (size_t i = 0; i < rows / 2; ++i) {
        const float x = lse[i];
        lse[i] = lse[rows - 1 - i];
        lse[rows - 1 - i] = x;
    }
    const double off = apart(got, is_bfloat16, O, rows * 16), lse_off = apart(lse, 0, LSE, rows);
    printf("%d %d %d %d %d %s: O within %.3g, LSE within %.3g\n", n_b, n_h, n_kv, n_q, n_k,
           is_bfloat16 ? "bf16" : "fp32", off, lse_off);
    REQUIRE(off <= (is_bfloat16 ? 8e-3 : 2e-6));
    REQUIRE(lse_off <= 1e-5);
    free(O), free(LSE), free(got), free(turned), free(lse);
    free(Q.data), free(Q.exact), free(K.data), free(K.exact), free(V.data), free(V.exact);
}

int main(int argc, char **argv)
{
    causal_library *library = NULL;
    REQUIRE(argc == 2);
    REQUIRE(causal_open(argv[1], &library) == ATTNGEN_OK);
    static const int shapes[][5] = {
        {1, 1, 1, 1, 1}, {2, 4, 2, 65, 80}, {1, 6, 1, 300, 300}, {2, 2, 2, 40, 17}, {1, 2, 2, 3, 700}, {1, 2, 2, 0, 9},
        {1, 2, 2, 5, 0},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; ++i)
        for (int is_bfloat16 = 0; is_bfloat16 < 2; ++is_bfloat16) {
            const int *s = shapes[i];
            run(library, s[0], s[1], s[2], s[3], s[4], is_bfloat16);
        }
    causal_close(library);
    return 0;
}
