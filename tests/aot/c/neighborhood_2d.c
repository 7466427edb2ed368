/* Tiles that are boxes of a grid: the nearest keys along each axis, moved inwards at the borders. */
#include "neighborhood_2d.h"
#include "reference.h"

enum { Y = 23, X = 31, N = Y * X, H = 2, D = 16, WINDOW_Y = 5, WINDOW_X = 9 };

static int clip(int x, int low, int high)
{
    return x < low ? low : x > high ? high : x;
}

static int keeps(const void *self, int b, int h, int q, int k)
{
    (void)self, (void)b, (void)h;
    const int y = clip(q / X - WINDOW_Y / 2, 0, Y - WINDOW_Y), x = clip(q % X - WINDOW_X / 2, 0, X - WINDOW_X);
    return k / X >= y && k / X < y + WINDOW_Y && k % X >= x && k % X < x + WINDOW_X;
}

int main(int argc, char **argv)
{
    neighborhood_2d_library *library = NULL;
    neighborhood_2d_args args;
    const int64_t size[] = {1, H, N, D};
    REQUIRE(argc == 2 && neighborhood_2d_open(argv[1], &library) == ATTNGEN_OK);
    const numbers Q = fresh((size_t)H * N * D, 0), K = fresh((size_t)H * N * D, 0), V = fresh((size_t)H * N * D, 0);
    static double O[H * N * D], LSE[H * N];
    static float got[H * N * D], lse[H * N];
    const problem p = {1, H, H, N, N, D, D, 0.25, keeps, NULL, NULL};
    attend(&p, Q.exact, K.exact, V.exact, O, LSE);

    neighborhood_2d_init(&args);
    REQUIRE(args.window_y == 7 && args.dilation_x == 1);
    args.dtype = ATTNGEN_FLOAT32;
    args.n_b = 1, args.n_h = args.n_kv = H, args.n_q = args.n_k = N, args.head_dim = args.value_dim = D;
    args.scale = 0.25;
    args.size_y = Y, args.size_x = X;
    args.window_y = WINDOW_Y, args.window_x = WINDOW_X;
    args.Q = Q.data, args.K = K.data, args.V = V.data, args.O = got, args.LSE = lse;
    attngen_contiguous(4, size, args.Q_stride);
    attngen_contiguous(4, size, args.K_stride);
    attngen_contiguous(4, size, args.V_stride);
    attngen_contiguous(4, size, args.O_stride);
    attngen_contiguous(3, size, args.LSE_stride);
    const attngen_status status = neighborhood_2d_run(library, &args);
    if (status != ATTNGEN_OK) fprintf(stderr, "%s\n", neighborhood_2d_error());
    REQUIRE(status == ATTNGEN_OK);
    REQUIRE(apart(got, 0, O, (size_t)H * N * D) <= 2e-6);
    REQUIRE(apart(lse, 0, LSE, (size_t)H * N) <= 1e-5);

    args.size_y = Y + 1;
    REQUIRE(neighborhood_2d_run(library, &args) == ATTNGEN_INVALID);
    printf("%s\n", neighborhood_2d_error());
    args.size_y = Y, args.dilation_x = 2;
    REQUIRE(neighborhood_2d_run(library, &args) == ATTNGEN_NO_VARIANT);
    printf("%s\n", neighborhood_2d_error());
    args.dilation_x = 1, args.stride_y = 0;
    REQUIRE(neighborhood_2d_run(library, &args) == ATTNGEN_INVALID);
    printf("%s\n", neighborhood_2d_error());
    neighborhood_2d_close(library);
    return 0;
}
