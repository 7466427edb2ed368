/* Calls of causal on a fake GPU; the first argument is the artefact, each further one a call, `field=value,...`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "causal.h"

static void set(causal_args *args, const char *name, int64_t value)
{
    if (strcmp(name, "Q") == 0) args->Q = (const void *)(uintptr_t)value;
    else if (strcmp(name, "n_b") == 0) args->n_b = value;
    else if (strcmp(name, "n_h") == 0) args->n_h = value;
    else if (strcmp(name, "n_kv") == 0) args->n_kv = value;
    else if (strcmp(name, "n_q") == 0) args->n_q = value;
    else if (strcmp(name, "n_k") == 0) args->n_k = value;
    else if (strcmp(name, "head_dim") == 0) args->head_dim = value;
    else if (strcmp(name, "dtype") == 0) args->dtype = (attngen_dtype)value;
    else if (strcmp(name, "device") == 0) args->device = (attngen_device)value;
    else if (strcmp(name, "k_row") == 0) args->K_stride[2] = value;
    else if (strcmp(name, "k_head") == 0) args->K_stride[1] = value;
    else if (strcmp(name, "v_last") == 0) args->V_stride[3] = value;
    else if (strcmp(name, "stream") == 0) args->stream = (void *)(uintptr_t)value;
    else exit(2);
}

int main(int argc, char **argv)
{
    causal_library *library;
    if (argc < 2 || causal_open(argv[1], &library) != ATTNGEN_OK) return 1;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 2; i < argc; ++i) {
        causal_args args;
        causal_init(&args);
        args.device = ATTNGEN_CUDA;
        args.dtype = ATTNGEN_BFLOAT16;
        args.n_b = 2, args.n_h = args.n_kv = 3, args.n_q = 300, args.n_k = 400;
        args.head_dim = args.value_dim = 64;
        args.scale = 0.125;
        args.Q = (void *)0x1000, args.K = (void *)0x2000, args.V = (void *)0x3000;
        args.O = (void *)0x4000, args.LSE = (void *)0x5000;
        const int64_t q[] = {2, 3, 300, 64}, k[] = {2, 3, 400, 64};
        attngen_contiguous(4, q, args.Q_stride);
        attngen_contiguous(4, k, args.K_stride);
        attngen_contiguous(4, k, args.V_stride);
        attngen_contiguous(4, q, args.O_stride);
        attngen_contiguous(3, q, args.LSE_stride);
        for (char *at = strtok(argv[i], ","); at != NULL; at = strtok(NULL, ",")) {
            char *equals = strchr(at, '=');
            if (equals == NULL) continue;
            *equals = '\0';
            set(&args, at, strtoll(equals + 1, NULL, 0));
        }
        attngen_choice choice;
        const attngen_status chosen = causal_choose(library, &args, &choice);
        printf("chosen %s\n", chosen == ATTNGEN_OK ? choice.kernel : "none");
        const attngen_status status = causal_run(library, &args);
        printf("%d %s\n", (int)status, status == ATTNGEN_OK ? "ran" : causal_error());
    }
    causal_close(library);
    return 0;
}
