/* documents.h
 *
 * Packed documents: causal attention inside each, nothing between them.
 *
 * The program:
 *
 *     doc[b, k]: int
 *
 *     mask = (k <= q + (n_k - n_q)) & (doc[b, k] == doc[b, q + (n_k - n_q)])
 *
 *     S[q, k] = sum[d](Q[q, d] * K[k, d]) * scale
 *     M[q] = max[k](S[q, k])
 *     E[q, k] = exp(S[q, k] - M[q])
 *     Z[q] = sum[k](E[q, k])
 *     O[q, e] = sum[k](E[q, k] / Z[q] * V[k, e])
 *     LSE[q] = M[q] + log(Z[q])
 *     return O, LSE
 *
 * It returns O, LSE.
 *
 * Compile and link:
 *
 *     cc -std=c99 -O2 -c documents.c
 *     cc ... -ldl -lpthread
 *
 * With -DATTNGEN_WITH_CUDA, and cuda.h on the include path, calls with device = ATTNGEN_CUDA run. The
 * driver is found when the first of them is made; nothing is linked.
 * With -DATTNGEN_WITH_HIP, and hip/hip_runtime_api.h on the include path, calls with device =
 * ATTNGEN_HIP run. The driver is found when the first of them is made; nothing is linked.
 * A call runs in the thread's current CUDA context, or in the primary one of device 0 where there is
 * none.
 *
 * Usage:
 *
 *     documents_library *library;
 *     documents_args args;
 *     if (documents_open("path/of/documents", &library) != ATTNGEN_OK) die(documents_error());
 *     documents_init(&args);
 *     args.device = ATTNGEN_CPU;
 *     args.dtype = ATTNGEN_BFLOAT16;
 *     args.n_b = 1, args.n_h = args.n_kv = 8, args.n_q = args.n_k = 1024;
 *     args.head_dim = 64, args.value_dim = 64;
 *     args.scale = 0.125;
 *     const int64_t Q_size[] = {args.n_b, args.n_h, args.n_q, args.head_dim};
 *     attngen_contiguous(4, Q_size, args.Q_stride);
 *     args.Q = q;
 *     const int64_t K_size[] = {args.n_b, args.n_kv, args.n_k, args.head_dim};
 *     attngen_contiguous(4, K_size, args.K_stride);
 *     args.K = k;
 *     const int64_t V_size[] = {args.n_b, args.n_kv, args.n_k, args.value_dim};
 *     attngen_contiguous(4, V_size, args.V_stride);
 *     args.V = v;
 *     ...
 *     if (documents_run(library, &args) != ATTNGEN_OK) die(documents_error());
 *     documents_close(library);
 */
#ifndef ATTNGEN_documents_H
#define ATTNGEN_documents_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef ATTNGEN_C_INTERFACE
#define ATTNGEN_C_INTERFACE 1

/* ---- What the headers of all artefacts share ---- */

typedef enum attngen_status {
    ATTNGEN_OK = 0,
    ATTNGEN_INVALID = 1,      /* the call is wrong: a NULL, an extent, a parameter out of range */
    ATTNGEN_NO_VARIANT = 2,   /* no kernel suits the call; the text names the nearest and what differs */
    ATTNGEN_NOT_LOADED = 3,   /* the file of a kernel is missing, or no machine code for here */
    ATTNGEN_NO_MEMORY = 4,
    ATTNGEN_NO_DEVICE = 5,    /* no driver, no device, or a launcher that was compiled without it */
    ATTNGEN_NOT_LAUNCHED = 6  /* the driver refused a launch */
} attngen_status;

typedef enum attngen_device { ATTNGEN_CPU = 0, ATTNGEN_CUDA = 1, ATTNGEN_HIP = 2 } attngen_device;

typedef enum attngen_dtype {
    ATTNGEN_FLOAT32 = 1,
    ATTNGEN_BFLOAT16 = 2,
    ATTNGEN_FLOAT16 = 3,
    ATTNGEN_FLOAT64 = 4,
    ATTNGEN_INT64 = 5,
    ATTNGEN_INT32 = 6,
    ATTNGEN_INT16 = 7,
    ATTNGEN_INT8 = 8,
    ATTNGEN_UINT8 = 9,
    ATTNGEN_BOOL = 10,
} attngen_dtype;

/* The kernel that would run a call, and what lists and an order for it must be made for. */
typedef struct attngen_choice {
    const char *kernel;
    int64_t block_q, block_k; /* rows of a tile of queries, keys of a tile of keys */
    int64_t tiles;            /* tiles of queries of one head; of one key head where heads are packed */
    int64_t key_tiles;        /* tiles of its keys: what lists number, boxes of a grid with the last axis fastest */
    int64_t programs;         /* thread blocks of a launch, or tasks that the threads of a CPU share */
    int packed;               /* whether a tile holds rows of all query heads of a key head */
    int takes_lists, takes_order;
} attngen_choice;

/* The strides of a tensor whose last axis is contiguous, its rows right behind each other. */
static inline void attngen_contiguous(int rank, const int64_t *size, int64_t *stride)
{
    int64_t next = 1;
    for (int i = rank - 1; i >= 0; --i) {
        stride[i] = next;
        next *= size[i];
    }
}

#elif ATTNGEN_C_INTERFACE != 1
#error "the artefacts of this program were written by versions of attngen that do not agree"
#endif

/* ---- The artefact ---- */

typedef struct documents_library documents_library;

/* Opens the artefact in a directory, the one that holds this header. Kernels are loaded when they are first called.
 * Their files are not compared with the hashes of manifest.json: load directories that only you can write to. */
attngen_status documents_open(const char *directory, documents_library **out);

/* Closes the library: no call may be running, and contexts of GPUs that calls were made in must still be there.
 * Code for CPUs stays in the process. */
void documents_close(documents_library *library);

/* The text of the last failure of a call of this header in this thread. */
const char *documents_error(void);

/* ---- documents: kernel 0 of the form one_pass (all keys at once), whose rows are queries ----
 *
 * Writes O, LSE. Strides count elements and may be anything, 0 included, that kernels take.
 * Some of its kernels take lists of tiles, or an order of their rows of work: documents_choose tells
 * which kernel runs a call, and the tiles that they are made for.
 *
 * Kernels:
 *
 *     cpu-avx2/bf16-d64/one_pass-0
 *     sm_80/bf16-d64/one_pass-0
 *     gfx942/bf16-d64/one_pass-0
 *
 * Of these, on GPUs:
 *
 *     those of alignment `features` count on addresses of Q, K, V, O, LSE, doc that are multiples of 16
 *     bytes; on multiples of 16 elements as Q_stride[0], Q_stride[1], Q_stride[2], K_stride[0],
 *     K_stride[1], K_stride[2], V_stride[0], V_stride[1], V_stride[2], O_stride[0], O_stride[1],
 *     O_stride[2]; on 1 as Q_stride[3], K_stride[3], V_stride[3], O_stride[3], LSE_stride[2],
 *     doc_stride[1].
 * A call that is otherwise takes a kernel that counts on less, or is refused if there is none.
 */

typedef struct documents_args {
    attngen_device device; /* where the tensors lie */
    attngen_dtype dtype; /* of Q, K, V, O */
    int64_t n_b, n_h, n_kv; /* batch entries, heads of queries, heads of keys and values */
    int64_t n_q, n_k; /* queries, keys */
    int64_t head_dim, value_dim; /* features of queries and keys, features of values */
    const void *Q; /* [n_b, n_h, n_q, head_dim] */
    int64_t Q_stride[4]; /* in elements */
    const void *K; /* [n_b, n_kv, n_k, head_dim] */
    int64_t K_stride[4]; /* in elements */
    const void *V; /* [n_b, n_kv, n_k, value_dim] */
    int64_t V_stride[4]; /* in elements */
    void *O; /* [n_b, n_h, n_q, value_dim] */
    int64_t O_stride[4]; /* in elements */
    float *LSE; /* [n_b, n_h, n_q] */
    int64_t LSE_stride[3]; /* in elements */
    const int32_t *doc; /* captured; [n_b, n_k] */
    int64_t doc_size[2];
    int64_t doc_stride[2]; /* in elements */
    double scale; /* usually 1 / sqrt(head_dim) */
    /* tiles of keys of each row (b, h, tile of queries): partial_index[partial_ptr[row]] up to
     * partial_index[partial_ptr[row + 1]] need the mask, the full ones none; all NULL on a CPU: every tile
     * is visited */
    const int32_t *partial_ptr, *partial_index, *full_ptr, *full_index;
    int64_t list_b, list_h, list_q; /* rows of the lists: 1 or n_b, 1 or n_h, tiles of queries */
    /* rows of work (b * n_h + h) * tiles + tile as they are to be launched, those with the most work
     * first; NULL on a CPU: as they come */
    const int32_t *order;
    int threads; /* on a CPU; 0: as many as the kernel was tuned for, or as there are processors */
    void *stream; /* on a GPU, CUstream or hipStream_t; NULL is the default stream */
} documents_args;

/* Zeroes the arguments and gives parameters the values that the program gives them. */
void documents_init(documents_args *args);

/* Runs the kernel that suits the call, and writes every output. On a GPU the launch is asynchronous. Threads may call
 * it at once. */
attngen_status documents_run(documents_library *library, const documents_args *args);

/* Tells which kernel would run the call; the call needs no lists and no order yet. */
attngen_status documents_choose(documents_library *library, const documents_args *args,
                                 attngen_choice *choice);

/* Kernels to be linked with directly, without a launcher. They return 0, or 1 if their threads found no memory.
 *
 * pointers  Q, K, V, O, LSE, doc, partial_ptr, partial_index, full_ptr, full_index, order
 * ints      n_b, n_h, n_kv, n_q, n_k, threads, Q.stride[0], Q.stride[1], Q.stride[2], Q.stride[3],
 *           K.stride[0], K.stride[1], K.stride[2], K.stride[3], V.stride[0], V.stride[1], V.stride[2],
 *           V.stride[3], O.stride[0], O.stride[1], O.stride[2], O.stride[3], LSE.stride[0],
 *           LSE.stride[1], LSE.stride[2], doc.size[0], doc.size[1], doc.stride[0], doc.stride[1],
 *           list_b, list_h, list_q
 * reals     scale
 * Tiles, for lists and orders, are 128 queries x 96 keys; files are kernel.so in the folders named
 * above.
 */
int attngen_documents_cpu_avx2(void *const *pointers, const int64_t *ints, const double *reals);

#ifdef __cplusplus
}
#endif

#endif
