/* What a call that no kernel serves is told: each line of the output is a status and a text. */
#include <stdio.h>

#include "causal.h"

static float data[4 * 8 * 16];

static causal_args good(void)
{
    causal_args args;
    const int64_t size[] = {1, 2, 8, 16};
    causal_init(&args);
    args.dtype = ATTNGEN_FLOAT32;
    args.n_b = 1, args.n_h = args.n_kv = 2, args.n_q = args.n_k = 8;
    args.head_dim = args.value_dim = 16;
    args.scale = 0.25;
    args.Q = args.K = args.V = data;
    args.O = data + 256;
    args.LSE = data + 300;
    attngen_contiguous(4, size, args.Q_stride);
    attngen_contiguous(4, size, args.K_stride);
    attngen_contiguous(4, size, args.V_stride);
    attngen_contiguous(4, size, args.O_stride);
    attngen_contiguous(3, size, args.LSE_stride);
    return args;
}

static void tell(causal_library *library, const causal_args *args)
{
    const attngen_status status = causal_run(library, args);
    printf("%d %s\n", (int)status, status == ATTNGEN_OK ? "ran" : causal_error());
}

int main(int argc, char **argv)
{
    causal_library *library = NULL, *elsewhere = NULL;
    if (argc != 2 || causal_open(argv[1], &library) != ATTNGEN_OK) return 1;
    causal_args args = good();
    tell(library, &args);
    args = good(), args.head_dim = args.value_dim = 24, tell(library, &args);
    args = good(), args.dtype = ATTNGEN_FLOAT16, tell(library, &args);
    args = good(), args.dtype = (attngen_dtype)0, tell(library, &args);
    args = good(), args.scale = -1, tell(library, &args);
    args = good(), args.scale = 1.0 / 0.0, tell(library, &args);
    args = good(), args.device = ATTNGEN_CUDA, tell(library, &args);
    args = good(), args.device = (attngen_device)7, tell(library, &args);
    args = good(), args.n_h = 3, tell(library, &args);
    args = good(), args.n_q = -1, tell(library, &args);
    args = good(), args.n_k = (int64_t)1 << 28, tell(library, &args);
    args = good(), args.V = NULL, tell(library, &args);
    args = good(), args.O = NULL, tell(library, &args);
    printf("%d %s\n", (int)causal_run(NULL, &args), causal_error());
    printf("%d %s\n", (int)causal_open(NULL, &elsewhere), causal_error());
    if (causal_open("/nowhere", &elsewhere) != ATTNGEN_OK) return 1;
    args = good(), tell(elsewhere, &args);
    attngen_choice choice;
    args = good();
    if (causal_choose(library, &args, &choice) != ATTNGEN_OK) return 1;
    printf("%s %lld %lld\n", choice.kernel, (long long)choice.tiles, (long long)choice.programs);
    causal_close(elsewhere);
    causal_close(library);
    causal_close(NULL);
    return 0;
}
