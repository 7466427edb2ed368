/* A captured tensor, and lists: those of the launcher, and those that a caller makes for the tiles that it is told. */
#include "documents.h"
#include "reference.h"

enum { B = 2, H = 2, N = 300, D = 16 };

static int64_t doc[B][N];

static int keeps(const void *self, int b, int h, int q, int k)
{
    (void)self, (void)h;
    return k <= q && doc[b][k] == doc[b][q];
}

static void check(documents_library *library, const documents_args *args, const double *O, const double *LSE)
{
    const attngen_status status = documents_run(library, args);
    if (status != ATTNGEN_OK) fprintf(stderr, "%s\n", documents_error());
    REQUIRE(status == ATTNGEN_OK);
    REQUIRE(apart(args->O, 0, O, (size_t)B * H * N * D) <= 2e-6);
    REQUIRE(apart(args->LSE, 0, LSE, (size_t)B * H * N) <= 1e-5);
    memset(args->O, 0, sizeof(float) * B * H * N * D);
}

int main(int argc, char **argv)
{
    documents_library *library = NULL;
    documents_args args;
    const int64_t size[] = {B, H, N, D};
    REQUIRE(argc == 2 && documents_open(argv[1], &library) == ATTNGEN_OK);
    for (int b = 0; b < B; ++b)
        for (int i = 0; i < N; ++i) doc[b][i] = i / (b ? 37 : 110);
    const numbers Q = fresh((size_t)B * H * N * D, 0), K = fresh((size_t)B * H * N * D, 0), V = fresh((size_t)B * H * N * D, 0);
    static double O[B * H * N * D], LSE[B * H * N];
    static float got[B * H * N * D], lse[B * H * N];
    const problem p = {B, H, H, N, N, D, D, 0.25, keeps, NULL, NULL};
    attend(&p, Q.exact, K.exact, V.exact, O, LSE);

    documents_init(&args);
    args.dtype = ATTNGEN_FLOAT32;
    args.n_b = B, args.n_h = args.n_kv = H, args.n_q = args.n_k = N, args.head_dim = args.value_dim = D;
    args.scale = 0.25;
    args.Q = Q.data, args.K = K.data, args.V = V.data, args.O = got, args.LSE = lse;
    attngen_contiguous(4, size, args.Q_stride);
    attngen_contiguous(4, size, args.K_stride);
    attngen_contiguous(4, size, args.V_stride);
    attngen_contiguous(4, size, args.O_stride);
    attngen_contiguous(3, size, args.LSE_stride);
    args.doc = doc[0];
    args.doc_size[0] = B, args.doc_size[1] = N;
    args.doc_stride[0] = N, args.doc_stride[1] = 1;
    check(library, &args, O, LSE);

    /* lists of every tile that can hold a kept pair: those up to the diagonal, the shortest rows first */
    attngen_choice choice;
    REQUIRE(documents_choose(library, &args, &choice) == ATTNGEN_OK);
    REQUIRE(choice.takes_lists && choice.takes_order && !choice.packed);
    int32_t ptr[64] = {0}, index[1024], none[64] = {0}, order[256];
    for (int t = 0; t < choice.tiles; ++t) {
        ptr[t + 1] = ptr[t];
        for (int k = 0; k * choice.block_k < N && k * choice.block_k < (t + 1) * choice.block_q; ++k) index[ptr[t + 1]++] = k;
    }
    for (int i = 0; i < choice.programs; ++i) order[i] = (int32_t)choice.programs - 1 - i;
    args.partial_ptr = ptr, args.partial_index = index, args.full_ptr = none, args.full_index = none;
    args.list_b = args.list_h = 1, args.list_q = choice.tiles;
    args.order = order;
    check(library, &args, O, LSE);

    args.list_q += 1;
    REQUIRE(documents_run(library, &args) == ATTNGEN_INVALID);
    printf("%s\n", documents_error());
    args.list_q -= 1, args.full_ptr = NULL;
    REQUIRE(documents_run(library, &args) == ATTNGEN_INVALID);
    printf("%s\n", documents_error());
    args.full_ptr = none, args.doc_size[1] = N - 1;
    REQUIRE(documents_run(library, &args) == ATTNGEN_INVALID);
    printf("%s\n", documents_error());
    documents_close(library);
    return 0;
}
