/* causal.c: loads and launches the kernels of causal. See causal.h.
 *
 * Written by attngen 0.1; compile it with your program:
 *     cc -std=c99 -c causal.c
 */
#define _POSIX_C_SOURCE 200809L

#include "causal.h"

#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef ATTNGEN_WITH_CUDA
#include <cuda.h>
#endif

#ifdef ATTNGEN_WITH_HIP
#ifndef __HIP_PLATFORM_AMD__
#define __HIP_PLATFORM_AMD__ 1
#endif
#include <hip/hip_runtime_api.h>
#endif

/* ---- A call: everything a kernel may take, by number ---- */

enum { ptr_partial_ptr, ptr_partial_index, ptr_full_ptr, ptr_full_index, ptr_order, ptr_common };

enum {
    int_n_b, int_n_h, int_n_kv, int_n_q, int_n_k, int_group, int_head_dim, int_value_dim, int_dtype,
    int_threads, int_list_b, int_list_h, int_list_q, int_list_stride_b, int_list_stride_h,
    int_common
};

enum { MOST_POINTERS = 10, MOST_INTS = 34, MOST_REALS = 1, MOST_PARAMS = 30 };

/* axis[i] is the number of elements along the axis whose stride is ints[i]; -1 where nothing tells it. */
typedef struct call {
    attngen_device device;
    void *stream;
    const void *pointers[MOST_POINTERS];
    int64_t ints[MOST_INTS];
    int64_t axis[MOST_INTS];
    double reals[MOST_REALS];
} call;

typedef struct short_list { const short *at; size_t n; } short_list;

/* A number of the call that must be `value`; `weight` says how far off a kernel is whose number is another. */
typedef struct fixed { short at; short weight; int64_t value; } fixed;
typedef struct fixed_real { short at; double value; } fixed_real;

/* How a parameter of a kernel for GPUs is passed. */
enum { AS_POINTER, AS_INT64, AS_INT32, AS_FLOAT, AS_BOOL };
typedef struct param { short how; short at; } param;

/* Tiles of queries and of keys of one head, and programs of a launch. */
typedef struct counts { int64_t tiles, key_tiles, programs; } counts;

/* One kernel. Lists of numbers name what they say of a call's pointers and ints.
 *
 * aligned      pointers that are multiples of 16 bytes;  whole   strides that are multiples of 16 elements
 * ones         strides that are 1;                       narrow  strides that 32 bits hold
 * positive     parameters that are 1 or more
 * scale_sign   1 for scales above zero, -1 for others, 0 for any
 * packed       rows of a tile that holds those of all heads of a key head; 0 for one that holds rows of one head
 * whole_planes whether no plane of the grid may lack keys
 */
typedef struct variant {
    const char *name, *file, *symbol, *arch, *needs;
    attngen_device device;
    int capability;
    struct { const fixed *at; size_t n; } fixed;
    struct { const fixed_real *at; size_t n; } fixed_reals;
    short_list positive, aligned, whole, ones, narrow;
    int scale_sign, packed, whole_planes;
    int block_q, block_k, takes_lists, takes_order;
    int64_t max_keys;
    void (*grid)(const call *c, int64_t multiprocessors, counts *n);
    short_list pointers, ints, reals;
    struct { const param *at; size_t n; } params;
    int threads, shared, scratch;
} variant;

/* A tensor of a family: where its address, its first stride and, if it is captured, its first size are (else -1);
 * `keys` says whether a tile reads rows of it for its keys. */
typedef struct tensor { short pointer, stride, size, rank, keys; } tensor;

/* An axis of a captured tensor that has at least, or exactly, as many elements as a number of the call says. */
typedef struct bound { short size, extent, exact; } bound;

/* The kernels of one step. `scale` is the place of the scale, -1 where there is none; `swapped` says that the kernels
 * count keys as rows, so that their n_q is the call's n_k. */
typedef struct family {
    const char *name;
    const variant *variants;
    size_t n_variants;
    const tensor *tensors;
    size_t n_tensors;
    const bound *bounds;
    size_t n_bounds;
    short_list params, grid_axes;
    short n_reals, scale, swapped;
    const char *const *pointer_names, *const *int_names, *const *real_names;
} family;

#define ALL_OF(list) {list, sizeof list / sizeof *list}

enum { ALIGNED = 16 };  /* bytes of an address, elements of a stride */
static const int64_t MAX_POSITION = INT64_C(1) << 27;

static const char *const common_names[int_common] = {
    "n_b", "n_h", "n_kv", "n_q", "n_k", "group", "head_dim", "value_dim", "dtype", "threads", "list_b",
    "list_h", "list_q", "list_stride_b", "list_stride_h",
};

static const char *int_name(const family *f, int at)
{
    if (f->swapped && (at == int_n_q || at == int_n_k)) at = at == int_n_q ? int_n_k : int_n_q;
    return at < int_common ? common_names[at] : f->int_names[at - int_common];
}

/* The text of the last failure of this thread. */
static __thread char failure[1024];

#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
static attngen_status fail(attngen_status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(failure, sizeof failure, format, args);
    va_end(args);
    return status;
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static const char *dtype_name(int64_t dtype)
{
    static const char *const names[] = {
        "no dtype", "float32", "bfloat16", "float16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool"
    };
    return dtype >= 0 && dtype < (int64_t)(sizeof names / sizeof *names) ? names[dtype] : "an unknown dtype";
}

/* Puts a tensor into a call: its address, its strides, and how many elements each axis has. */
static void put(call *c, int pointer, const void *data, int stride, const int64_t *strides, int rank,
                const int64_t *sizes)
{
    c->pointers[pointer] = data;
    for (int i = 0; i < rank; ++i) {
        c->ints[stride + i] = strides[i];
        c->axis[stride + i] = sizes[i];
    }
}

/* ---- What holds of every call, whichever kernel runs it ---- */

static attngen_status check_tensor(const family *f, const call *c, const tensor *t)
{
    int64_t elements = 1;
    for (int i = 0; i < t->rank; ++i) {
        const int64_t along = c->axis[t->stride + i];
        if (t->size >= 0 && along < 0)
            return fail(ATTNGEN_INVALID, "%s: %s has %lld elements", f->name, int_name(f, t->size + i),
                        (long long)along);
        elements = elements == 0 || along == 0 ? 0 : 1;
    }
    const char *name = f->pointer_names[t->pointer - ptr_common];
    if (t->size >= 0 && elements == 0 && c->ints[int_n_q] > 0 && c->ints[int_n_k] > 0)
        return fail(ATTNGEN_INVALID, "%s: tensor %s has no elements", f->name, name);
    if (elements > 0 && c->pointers[t->pointer] == NULL)
        return fail(ATTNGEN_INVALID, "%s: the address of %s is NULL", f->name, name);
    return ATTNGEN_OK;
}

static attngen_status check_extents(const family *f, const call *c)
{
    static const short extents[] = {int_n_b, int_n_h, int_n_kv, int_n_q, int_n_k};
    for (size_t i = 0; i < sizeof extents / sizeof *extents; ++i) {
        const int64_t n = c->ints[extents[i]];
        if (n < 0 || n > INT32_MAX)
            return fail(ATTNGEN_INVALID, "%s: %s is %lld", f->name, int_name(f, extents[i]), (long long)n);
    }
    const int64_t n_h = c->ints[int_n_h], n_kv = c->ints[int_n_kv];
    if (n_h > 0 && (n_kv == 0 || n_h % n_kv != 0))
        return fail(ATTNGEN_INVALID, "%s: n_h = %lld is not a multiple of n_kv = %lld", f->name, (long long)n_h,
                    (long long)n_kv);
    if (c->ints[int_n_q] > MAX_POSITION || c->ints[int_n_k] > MAX_POSITION)
        return fail(ATTNGEN_INVALID, "%s: at most %lld tokens are supported", f->name, (long long)MAX_POSITION);
    return ATTNGEN_OK;
}

/* A grid has at least a token along each axis, and no more tokens than there are keys. */
static attngen_status check_grid(const family *f, const call *c)
{
    int64_t tokens = f->grid_axes.n > 0 ? 1 : 0;
    for (size_t i = 0; i < f->grid_axes.n; ++i) {
        const int64_t along = c->ints[f->grid_axes.at[i]];
        if (along < 1)
            return fail(ATTNGEN_INVALID, "%s: %s is %lld", f->name, int_name(f, f->grid_axes.at[i]), (long long)along);
        tokens = tokens > MAX_POSITION || along > MAX_POSITION ? MAX_POSITION + 1 : tokens * along;
    }
    const int64_t most = c->ints[int_n_k];
    if (most > 0 && tokens > most)
        return fail(ATTNGEN_INVALID, "%s: the grid has more tokens than the %lld keys", f->name, (long long)most);
    return ATTNGEN_OK;
}

/* What holds of every call, whichever kernel runs it. */
static attngen_status check_call(const family *f, const call *c)
{
    attngen_status status = check_extents(f, c);
    if (status == ATTNGEN_OK) status = check_grid(f, c);
    if (status != ATTNGEN_OK) return status;
    for (size_t i = 0; i < f->params.n; ++i) {
        const int64_t n = c->ints[f->params.at[i]];
        if (n < INT32_MIN || n > INT32_MAX)
            return fail(ATTNGEN_INVALID, "%s: %s = %lld does not fit 32 bits", f->name, int_name(f, f->params.at[i]),
                        (long long)n);
    }
    for (int i = 0; i < f->n_reals; ++i)
        if (!isfinite(c->reals[i])) return fail(ATTNGEN_INVALID, "%s: %s is not finite", f->name, f->real_names[i]);
    if (c->ints[int_n_b] == 0 || c->ints[int_n_h] == 0 || c->ints[int_n_q] == 0) return ATTNGEN_OK;
    for (size_t i = 0; i < f->n_tensors; ++i)
        if ((status = check_tensor(f, c, &f->tensors[i])) != ATTNGEN_OK) return status;
    for (size_t i = 0; i < f->n_bounds; ++i) {
        const bound *b = &f->bounds[i];
        const int64_t size = c->ints[b->size], extent = c->ints[b->extent];
        if (size < extent || (b->exact && size != extent))
            return fail(ATTNGEN_INVALID, "%s: %s has %lld elements, %s is %lld", f->name, int_name(f, b->size),
                        (long long)size, int_name(f, b->extent), (long long)extent);
    }
    return ATTNGEN_OK;
}

/* ---- Choosing the kernel of a call: what stands against each ---- */

/* Where a call runs. `features` are the instruction sets of a processor, each between spaces. */
typedef struct device {
    attngen_device kind;
    char arch[64];
    int capability;
    int64_t multiprocessors, shared;
    const char *features;
} device;

/* What stands between a kernel and a call: how much, and the first things in words. */
typedef struct obstacles {
    int weight;
    size_t used;
    char text[512];
} obstacles;

#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
static void add(obstacles *o, int weight, const char *format, ...)
{
    va_list args;
    o->weight += weight;
    if (o->used >= sizeof o->text - 1) return;
    if (o->used > 0) {
        const int n = snprintf(o->text + o->used, sizeof o->text - o->used, "; ");
        o->used += n > 0 ? (size_t)n : 0;
        if (o->used >= sizeof o->text - 1) return;
    }
    va_start(args, format);
    const int n = vsnprintf(o->text + o->used, sizeof o->text - o->used, format, args);
    va_end(args);
    o->used += n > 0 ? (size_t)n : 0;
}

/* Whether a list of words, each between spaces, holds one of `length` characters. */
static int has_word(const char *words, const char *word, size_t length)
{
    for (const char *at = words; (at = strstr(at, word)) != NULL; ++at)
        if (at > words && at[-1] == ' ' && at[length] == ' ') return 1;
    return 0;
}

static void add_machine(obstacles *o, const variant *v, const device *d)
{
    if (v->device != d->kind) {
        add(o, 8, "is for %s, not %s", v->arch, d->arch);
        return;
    }
    switch (d->kind) {
    case ATTNGEN_CPU:
        for (const char *at = v->needs; at != NULL && *at != '\0';) {
            const size_t length = strcspn(at, " ");
            char word[64];
            snprintf(word, sizeof word, "%.*s", (int)length, at);
            if (!has_word(d->features, word, strlen(word))) add(o, 8, "needs %s, which this processor lacks", word);
            at += length + (at[length] == ' ');
        }
        break;
    case ATTNGEN_CUDA:
        /* code for sm_80 to sm_89 uses nothing that a later minor number lacks; any other is of one device alone */
        if (v->capability != d->capability &&
            !(v->capability / 10 == 8 && d->capability / 10 == 8 && v->capability < d->capability))
            add(o, 8, "is for %s, not %s", v->arch, d->arch);
        break;
    case ATTNGEN_HIP:
        if (strcmp(v->arch, d->arch) != 0) add(o, 8, "is for %s, not %s", v->arch, d->arch);
        break;
    }
    if (v->shared > d->shared && d->kind != ATTNGEN_CPU)
        add(o, 1, "takes %d bytes of shared memory, and a thread block gets %lld", v->shared, (long long)d->shared);
    if (v->scratch > 0) add(o, 1, "works in memory of the device, which this launcher does not allocate");
}

static void add_numbers(obstacles *o, const family *f, const variant *v, const call *c)
{
    for (size_t i = 0; i < v->fixed.n; ++i) {
        const fixed *x = &v->fixed.at[i];
        const int64_t given = c->ints[x->at];
        if (given == x->value) continue;
        if (strncmp(int_name(f, x->at), "dtype", 5) == 0)
            add(o, x->weight, "has %s %s, not %s", int_name(f, x->at), dtype_name(x->value), dtype_name(given));
        else
            add(o, x->weight, "has %s %lld, not %lld", int_name(f, x->at), (long long)x->value, (long long)given);
    }
    for (size_t i = 0; i < v->fixed_reals.n; ++i) {
        const fixed_real *x = &v->fixed_reals.at[i];
        if (c->reals[x->at] != x->value)
            add(o, 1, "has %s %.17g, not %.17g", f->real_names[x->at], x->value, c->reals[x->at]);
    }
    if (f->scale >= 0 && v->scale_sign != 0 && (c->reals[f->scale] > 0) != (v->scale_sign > 0))
        add(o, 1, "is for %s scales, not %g", v->scale_sign > 0 ? "positive" : "negative", c->reals[f->scale]);
    if (v->whole_planes) {
        int64_t plane = 1;
        for (size_t i = 1; i < f->grid_axes.n; ++i) plane *= c->ints[f->grid_axes.at[i]];
        if (c->ints[int_n_k] % plane != 0)
            add(o, 1, "counts on whole planes of %lld keys, and there are %lld", (long long)plane,
                (long long)c->ints[int_n_k]);
    }
    if (c->ints[int_n_k] > v->max_keys)
        add(o, 1, "takes at most %lld keys, not %lld", (long long)v->max_keys, (long long)c->ints[int_n_k]);
}

/* Rows of a tile that holds those of all query heads of a key head; 0 where heads or queries ask for none. */
static int64_t few_rows(int64_t n_q, int64_t group)
{
    if (group < 2 || n_q > 128) return 0;
    int64_t rows = 16;
    while (rows < n_q * group && rows < 256) rows *= 2;
    return rows;
}

static void add_addresses(obstacles *o, const family *f, const variant *v, const call *c)
{
    for (size_t i = 0; i < v->aligned.n; ++i) {
        const int at = v->aligned.at[i];
        if ((uintptr_t)c->pointers[at] % ALIGNED != 0)
            add(o, 1, "counts on an address of %s that is a multiple of %d bytes",
                f->pointer_names[at - ptr_common], ALIGNED);
    }
    for (size_t i = 0; i < v->ones.n; ++i) {
        const int at = v->ones.at[i];
        if (c->ints[at] != 1 && c->axis[at] != 1) add(o, 1, "counts on 1 as %s", int_name(f, at));
    }
    for (size_t i = 0; i < v->whole.n; ++i) {
        const int at = v->whole.at[i];
        if (c->ints[at] % ALIGNED != 0 && c->axis[at] != 1)
            add(o, 1, "counts on a multiple of %d as %s", ALIGNED, int_name(f, at));
    }
    for (size_t i = 0; i < v->narrow.n; ++i) {
        const int at = v->narrow.at[i];
        if ((c->ints[at] < INT32_MIN || c->ints[at] > INT32_MAX) && c->axis[at] != 1)
            add(o, 1, "passes %s in 32 bits", int_name(f, at));
    }
}

/* A kernel for GPUs counts the elements between two keys of a tile in 32 bits. */
static void add_distances(obstacles *o, const family *f, const variant *v, const call *c)
{
    if (v->device == ATTNGEN_CPU) return;
    for (size_t i = 0; i < f->n_tensors; ++i) {
        const tensor *t = &f->tensors[i];
        if (!t->keys) continue;
        const int last = t->stride + t->rank - 1;
        const int64_t along = c->axis[last] > 0 ? c->axis[last] : 0;
        if ((double)v->block_k * (double)c->ints[last - 1] + (double)along * (double)c->ints[last] > INT32_MAX)
            add(o, 1, "counts on rows of %s that lie closer together", f->pointer_names[t->pointer - ptr_common]);
    }
}

static void differ(obstacles *o, const family *f, const variant *v, const call *c, const device *d)
{
    o->weight = 0;
    o->used = 0;
    o->text[0] = '\0';
    add_machine(o, v, d);
    add_numbers(o, f, v, c);
    add_addresses(o, f, v, c);
    add_distances(o, f, v, c);
    const int64_t group = c->ints[int_group];
    if (v->packed != 0 && v->packed != few_rows(c->ints[int_n_q], group))
        add(o, 1, "holds %d rows of all heads in a tile, which %lld queries of %lld heads do not fill", v->packed,
            (long long)c->ints[int_n_q], (long long)group);
    if (v->packed != 0 && c->ints[int_n_q] * group > MAX_POSITION) add(o, 1, "numbers fewer rows");
}

/* The first kernel that suits; variants come in the order of preference. */
static attngen_status choose(const family *f, const call *c, const device *d, const variant **chosen)
{
    obstacles o;
    const variant *near = NULL;
    int least = 0;
    for (size_t i = 0; i < f->n_variants; ++i) {
        const variant *v = &f->variants[i];
        differ(&o, f, v, c, d);
        if (o.weight == 0) {
            *chosen = v;
            for (size_t j = 0; j < v->positive.n; ++j)
                if (c->ints[v->positive.at[j]] < 1)
                    return fail(ATTNGEN_INVALID, "%s: %s is %lld, but the mask divides by it: it must be 1 or more",
                                f->name, int_name(f, v->positive.at[j]), (long long)c->ints[v->positive.at[j]]);
            return ATTNGEN_OK;
        }
        if (near == NULL || o.weight < least) near = v, least = o.weight;
    }
    if (near == NULL) return fail(ATTNGEN_NO_VARIANT, "%s has no kernels", f->name);
    differ(&o, f, near, c, d);
    return fail(ATTNGEN_NO_VARIANT, "%s: no kernel suits this call; the nearest, %s, %s", f->name, near->name, o.text);
}

/* Tiles of a launch, and whether the call's lists and order are as they must be. */
static attngen_status plan(const family *f, const variant *v, const call *c, const device *d, counts *n)
{
    v->grid(c, d->multiprocessors, n);
    if (n->programs > INT32_MAX)
        return fail(ATTNGEN_INVALID, "%s: a launch of %lld programs is too large", f->name, (long long)n->programs);
    const int given = (c->pointers[ptr_partial_ptr] != NULL) + (c->pointers[ptr_partial_index] != NULL) +
                      (c->pointers[ptr_full_ptr] != NULL) + (c->pointers[ptr_full_index] != NULL);
    if (!v->takes_lists || given == 0) return ATTNGEN_OK;
    if (given != 4) return fail(ATTNGEN_INVALID, "%s: only %d of the four lists are given", f->name, given);
    const int64_t b = c->ints[int_list_b], h = c->ints[int_list_h], q = c->ints[int_list_q];
    if (q != n->tiles || (b != 1 && b != c->ints[int_n_b]) || (h != 1 && h != c->ints[int_n_h]))
        return fail(ATTNGEN_INVALID, "%s: lists of %lld x %lld x %lld rows do not fit %lld x %lld x %lld", f->name,
                    (long long)b, (long long)h, (long long)q, (long long)c->ints[int_n_b], (long long)c->ints[int_n_h],
                    (long long)n->tiles);
    return ATTNGEN_OK;
}

static void tell(attngen_choice *choice, const variant *v, const counts *n)
{
    choice->kernel = v->name;
    choice->block_q = v->block_q;
    choice->block_k = v->block_k;
    choice->tiles = n->tiles;
    choice->key_tiles = n->key_tiles;
    choice->programs = n->programs;
    choice->packed = v->packed != 0;
    choice->takes_lists = v->takes_lists;
    choice->takes_order = v->takes_order;
}

/* ---- Kernels for CPUs: functions of shared objects ---- */

typedef int cpu_entry(void *const *pointers, const int64_t *ints, const double *reals);

/* The lists and the order that a call does not bring. */
typedef struct stand_ins { int32_t *lists, *order; } stand_ins;

/* Lists in which every key tile is one that needs the mask: right for every mask, and as slow as visiting all. */
static attngen_status make_lists(const family *f, call *c, const counts *n, stand_ins *m)
{
    const int64_t tiles = n->tiles, key_tiles = n->key_tiles;
    if (key_tiles > 0 && tiles > INT32_MAX / key_tiles)
        return fail(ATTNGEN_INVALID, "%s: so many tiles need lists, and the call brings none", f->name);
    const size_t rows = (size_t)tiles + 1, entries = (size_t)(tiles * key_tiles);
    m->lists = calloc(2 * rows + entries + 1, sizeof *m->lists);
    if (m->lists == NULL) return fail(ATTNGEN_NO_MEMORY, "%s: no memory for lists", f->name);
    int32_t *partial_ptr = m->lists, *full_ptr = partial_ptr + rows, *index = full_ptr + rows;
    for (size_t row = 0; row < rows; ++row) partial_ptr[row] = (int32_t)((int64_t)row * key_tiles);
    for (size_t i = 0; i < entries; ++i) index[i] = (int32_t)((int64_t)i % key_tiles);
    c->pointers[ptr_partial_ptr] = partial_ptr;
    c->pointers[ptr_partial_index] = index;
    c->pointers[ptr_full_ptr] = full_ptr;
    c->pointers[ptr_full_index] = index + entries;
    c->ints[int_list_b] = c->ints[int_list_h] = 1;
    c->ints[int_list_q] = tiles;
    return ATTNGEN_OK;
}

/* Rows of work as they come. */
static attngen_status make_order(const family *f, call *c, int64_t programs, stand_ins *m)
{
    m->order = malloc((size_t)(programs > 0 ? programs : 1) * sizeof *m->order);
    if (m->order == NULL) return fail(ATTNGEN_NO_MEMORY, "%s: no memory for an order", f->name);
    for (int64_t i = 0; i < programs; ++i) m->order[i] = (int32_t)i;
    c->pointers[ptr_order] = m->order;
    return ATTNGEN_OK;
}

static attngen_status enter_cpu_kernel(const family *f, const variant *v, cpu_entry *entry, const call *c)
{
    void *pointers[MOST_POINTERS];
    int64_t ints[MOST_INTS];
    double reals[MOST_REALS];
    for (size_t i = 0; i < v->pointers.n; ++i) pointers[i] = (void *)c->pointers[v->pointers.at[i]];
    for (size_t i = 0; i < v->ints.n; ++i) ints[i] = c->ints[v->ints.at[i]];
    for (size_t i = 0; i < v->reals.n; ++i) reals[i] = c->reals[v->reals.at[i]];
    if (entry(pointers, ints, reals) != 0)
        return fail(ATTNGEN_NO_MEMORY, "%s: threads of %s found no memory to work in", f->name, v->name);
    return ATTNGEN_OK;
}

static attngen_status launch_on_cpu(const family *f, const variant *v, cpu_entry *entry, call *c, const counts *n)
{
    stand_ins m = {NULL, NULL};
    attngen_status status = ATTNGEN_OK;
    if (c->ints[int_threads] <= 0) c->ints[int_threads] = v->threads;
    if (c->ints[int_threads] <= 0) c->ints[int_threads] = sysconf(_SC_NPROCESSORS_ONLN);
    if (c->ints[int_threads] <= 0) c->ints[int_threads] = 1;
    if (v->takes_lists && c->pointers[ptr_partial_ptr] == NULL) status = make_lists(f, c, n, &m);
    if (status == ATTNGEN_OK && v->takes_order && c->pointers[ptr_order] == NULL)
        status = make_order(f, c, n->programs, &m);
    if (status == ATTNGEN_OK) status = enter_cpu_kernel(f, v, entry, c);
    free(m.lists);
    free(m.order);
    return status;
}

/* ---- Kernels for GPUs: what both drivers share ---- */

#if defined(ATTNGEN_WITH_CUDA) || defined(ATTNGEN_WITH_HIP)
#define WITH_GPU 1

enum { UNASKED_SHARED = 48 << 10 };  /* bytes of shared memory that a thread block takes without asking */

typedef union slot { const void *pointer; int64_t int64; int32_t int32; float real; int8_t flag; } slot;

/* The parameters of a launch, and last the two pointers of the compiler's own: memory to work in, and a profiler's. */
typedef struct parameters {
    slot slots[MOST_PARAMS + 2];
    void *addresses[MOST_PARAMS + 2];
} parameters;

static void fill(parameters *p, const variant *v, const call *c)
{
    for (size_t i = 0; i < v->params.n; ++i) {
        const param x = v->params.at[i];
        slot *s = &p->slots[i];
        p->addresses[i] = s;
        if (x.how == AS_POINTER) {
            s->pointer = c->pointers[x.at];
            continue;
        }
        if (x.how == AS_FLOAT) {
            s->real = (float)c->reals[x.at];
            continue;
        }
        const int64_t n = c->axis[x.at] == 1 ? 0 : c->ints[x.at];  /* no stride of a single element matters */
        switch (x.how) {
        case AS_INT64: s->int64 = n; break;
        case AS_INT32: s->int32 = (int32_t)n; break;
        default: s->flag = n != 0; break;
        }
    }
    for (size_t i = v->params.n; i < v->params.n + 2; ++i) {
        p->slots[i].pointer = NULL;
        p->addresses[i] = &p->slots[i];
    }
}

static attngen_status check_brought(const family *f, const variant *v, const call *c)
{
    if (v->takes_lists && c->pointers[ptr_partial_ptr] == NULL)
        return fail(ATTNGEN_INVALID, "%s: %s visits tiles that lists name, and the call brings none", f->name, v->name);
    if (v->takes_order && c->pointers[ptr_order] == NULL)
        return fail(ATTNGEN_INVALID, "%s: %s launches its rows of work in an order, and the call brings none",
                    f->name, v->name);
    return ATTNGEN_OK;
}

/* The bytes of a file, to be freed; NULL, with the text of the failure, where it cannot be read. */
static void *read_binary(const char *path)
{
    FILE *file = fopen(path, "rb");
    char *data = NULL;
    long length = -1;
    if (file != NULL && fseek(file, 0, SEEK_END) == 0) length = ftell(file);
    if (length >= 0 && fseek(file, 0, SEEK_SET) == 0) data = calloc((size_t)length + 1, 1);
    if (data != NULL && fread(data, 1, (size_t)length, file) != (size_t)length) {
        free(data);
        data = NULL;
    }
    if (file != NULL) fclose(file);
    if (data == NULL) fail(ATTNGEN_NOT_LOADED, "%s cannot be read", path);
    return data;
}

#endif  /* GPUs */

/* ---- The driver of NVIDIA's GPUs, found when it is first needed ---- */

#ifdef ATTNGEN_WITH_CUDA

typedef struct cuda_driver {
    CUresult(CUDAAPI *init)(unsigned int);
    CUresult(CUDAAPI *error_name)(CUresult, const char **);
    CUresult(CUDAAPI *error_string)(CUresult, const char **);
    CUresult(CUDAAPI *current)(CUcontext *);
    CUresult(CUDAAPI *push)(CUcontext);
    CUresult(CUDAAPI *pop)(CUcontext *);
    CUresult(CUDAAPI *context_device)(CUdevice *);
    CUresult(CUDAAPI *get_device)(CUdevice *, int);
    CUresult(CUDAAPI *retain)(CUcontext *, CUdevice);
    CUresult(CUDAAPI *release)(CUdevice);
    CUresult(CUDAAPI *attribute)(int *, CUdevice_attribute, CUdevice);
    CUresult(CUDAAPI *load)(CUmodule *, const void *);
    CUresult(CUDAAPI *unload)(CUmodule);
    CUresult(CUDAAPI *get_function)(CUfunction *, CUmodule, const char *);
    CUresult(CUDAAPI *set_attribute)(CUfunction, CUfunction_attribute, int);
    CUresult(CUDAAPI *set_cache)(CUfunction, CUfunc_cache);
    CUresult(CUDAAPI *launch)(CUfunction, unsigned int, unsigned int, unsigned int, unsigned int, unsigned int,
                              unsigned int, unsigned int, CUstream, void **, void **);
} cuda_driver;

/* The driver's functions have versions, which cuda.h puts behind their names. */
#define NAME_OF_(symbol) #symbol
#define NAME_OF(symbol) NAME_OF_(symbol)

static attngen_status open_cuda(cuda_driver *driver)
{
    const struct wanted { void *function; const char *name; } wanted[] = {
        {&driver->init, NAME_OF(cuInit)},
        {&driver->error_name, NAME_OF(cuGetErrorName)},
        {&driver->error_string, NAME_OF(cuGetErrorString)},
        {&driver->current, NAME_OF(cuCtxGetCurrent)},
        {&driver->push, NAME_OF(cuCtxPushCurrent)},
        {&driver->pop, NAME_OF(cuCtxPopCurrent)},
        {&driver->context_device, NAME_OF(cuCtxGetDevice)},
        {&driver->get_device, NAME_OF(cuDeviceGet)},
        {&driver->retain, NAME_OF(cuDevicePrimaryCtxRetain)},
        {&driver->release, NAME_OF(cuDevicePrimaryCtxRelease)},
        {&driver->attribute, NAME_OF(cuDeviceGetAttribute)},
        {&driver->load, NAME_OF(cuModuleLoadData)},
        {&driver->unload, NAME_OF(cuModuleUnload)},
        {&driver->get_function, NAME_OF(cuModuleGetFunction)},
        {&driver->set_attribute, NAME_OF(cuFuncSetAttribute)},
        {&driver->set_cache, NAME_OF(cuFuncSetCacheConfig)},
        {&driver->launch, NAME_OF(cuLaunchKernel)},
    };
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);  /* stays: the process may use it elsewhere */
    if (library == NULL) return fail(ATTNGEN_NO_DEVICE, "there is no CUDA driver: %s", dlerror());
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; ++i) {
        void *found = dlsym(library, wanted[i].name);
        if (found == NULL) return fail(ATTNGEN_NO_DEVICE, "the CUDA driver has no %s", wanted[i].name);
        memcpy(wanted[i].function, &found, sizeof found);
    }
    return ATTNGEN_OK;
}

static attngen_status cuda_failed(const cuda_driver *driver, attngen_status status, const char *what, CUresult code)
{
    const char *name = NULL, *text = NULL;
    driver->error_name(code, &name);
    driver->error_string(code, &text);
    if (code == CUDA_ERROR_OUT_OF_MEMORY) status = ATTNGEN_NO_MEMORY;
    return fail(status, "the CUDA driver could not %s: %s (%d), %s", what, name ? name : "error", (int)code,
                text ? text : "unknown");
}

/* What the device of the current context is. */
static attngen_status find_cuda_device(const cuda_driver *driver, device *d)
{
    CUdevice at;
    int major = 0, minor = 0, multiprocessors = 0, shared = 0;
    CUresult code = driver->context_device(&at);
    if (code == CUDA_SUCCESS) code = driver->attribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, at);
    if (code == CUDA_SUCCESS) code = driver->attribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, at);
    if (code == CUDA_SUCCESS) code = driver->attribute(&multiprocessors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, at);
    if (code == CUDA_SUCCESS)
        code = driver->attribute(&shared, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, at);
    if (code != CUDA_SUCCESS) return cuda_failed(driver, ATTNGEN_NO_DEVICE, "describe its device", code);
    d->kind = ATTNGEN_CUDA;
    d->capability = 10 * major + minor;
    d->multiprocessors = multiprocessors;
    d->shared = shared;
    snprintf(d->arch, sizeof d->arch, "sm_%d", d->capability);
    return ATTNGEN_OK;
}

static attngen_status load_on_cuda(const cuda_driver *driver, const variant *v, const void *data, CUmodule *module,
                                   CUfunction *function)
{
    CUresult code = driver->load(module, data);
    if (code != CUDA_SUCCESS) return cuda_failed(driver, ATTNGEN_NOT_LOADED, "load a kernel", code);
    code = driver->get_function(function, *module, v->symbol);
    if (code == CUDA_SUCCESS && v->shared > UNASKED_SHARED) {
        code = driver->set_cache(*function, CU_FUNC_CACHE_PREFER_SHARED);
        if (code == CUDA_SUCCESS)
            code = driver->set_attribute(*function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, v->shared);
    }
    if (code == CUDA_SUCCESS) return ATTNGEN_OK;
    driver->unload(*module);
    return cuda_failed(driver, ATTNGEN_NOT_LOADED, "prepare a kernel", code);
}

static attngen_status launch_on_cuda(const cuda_driver *driver, const family *f, const variant *v, CUfunction function,
                                     const call *c, int64_t programs)
{
    parameters p;
    attngen_status status = check_brought(f, v, c);
    if (status != ATTNGEN_OK) return status;
    fill(&p, v, c);
    const CUresult code = driver->launch(function, (unsigned int)programs, 1, 1, (unsigned int)v->threads, 1, 1,
                                         (unsigned int)v->shared, (CUstream)c->stream, p.addresses, NULL);
    return code == CUDA_SUCCESS ? ATTNGEN_OK : cuda_failed(driver, ATTNGEN_NOT_LAUNCHED, "launch a kernel", code);
}

#endif  /* ATTNGEN_WITH_CUDA */

/* ---- The driver of AMD's GPUs, found when it is first needed ---- */

#ifdef ATTNGEN_WITH_HIP

typedef struct hip_driver {
    const char *(*error_name)(hipError_t);
    hipError_t (*current)(int *);
    hipError_t (*properties)(hipDeviceProp_t *, int);
    hipError_t (*load)(hipModule_t *, const void *);
    hipError_t (*unload)(hipModule_t);
    hipError_t (*get_function)(hipFunction_t *, hipModule_t, const char *);
    hipError_t (*launch)(hipFunction_t, unsigned int, unsigned int, unsigned int, unsigned int, unsigned int,
                         unsigned int, unsigned int, hipStream_t, void **, void **);
} hip_driver;

#define HIP_NAME_OF_(symbol) #symbol
#define HIP_NAME_OF(symbol) HIP_NAME_OF_(symbol)

static attngen_status open_hip(hip_driver *driver)
{
    const struct wanted { void *function; const char *name; } wanted[] = {
        {&driver->error_name, "hipGetErrorName"},
        {&driver->current, "hipGetDevice"},
        {&driver->properties, HIP_NAME_OF(hipGetDeviceProperties)},  /* its name has the version of what it fills */
        {&driver->load, "hipModuleLoadData"},
        {&driver->unload, "hipModuleUnload"},
        {&driver->get_function, "hipModuleGetFunction"},
        {&driver->launch, "hipModuleLaunchKernel"},
    };
    void *library = dlopen("libamdhip64.so", RTLD_NOW | RTLD_LOCAL);  /* stays: the process may use it elsewhere */
    if (library == NULL) return fail(ATTNGEN_NO_DEVICE, "there is no HIP driver: %s", dlerror());
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; ++i) {
        void *found = dlsym(library, wanted[i].name);
        if (found == NULL) return fail(ATTNGEN_NO_DEVICE, "the HIP driver has no %s", wanted[i].name);
        memcpy(wanted[i].function, &found, sizeof found);
    }
    return ATTNGEN_OK;
}

static attngen_status hip_failed(const hip_driver *driver, attngen_status status, const char *what, hipError_t code)
{
    const char *name = driver->error_name(code);
    if (code == hipErrorOutOfMemory) status = ATTNGEN_NO_MEMORY;
    return fail(status, "the HIP driver could not %s: %s (%d)", what, name ? name : "error", (int)code);
}

/* What the current device of this thread is. */
static attngen_status find_hip_device(const hip_driver *driver, device *d, int *ordinal)
{
    hipDeviceProp_t properties;
    hipError_t code = driver->current(ordinal);
    if (code == hipSuccess) code = driver->properties(&properties, *ordinal);
    if (code != hipSuccess) return hip_failed(driver, ATTNGEN_NO_DEVICE, "describe its device", code);
    d->kind = ATTNGEN_HIP;
    d->multiprocessors = properties.multiProcessorCount;
    d->shared = (int64_t)properties.sharedMemPerBlock;
    snprintf(d->arch, sizeof d->arch, "%.*s", (int)strcspn(properties.gcnArchName, ":"), properties.gcnArchName);
    return ATTNGEN_OK;
}

static attngen_status load_on_hip(const hip_driver *driver, const variant *v, const void *data, hipModule_t *module,
                                  hipFunction_t *function)
{
    hipError_t code = driver->load(module, data);
    if (code != hipSuccess) return hip_failed(driver, ATTNGEN_NOT_LOADED, "load a kernel", code);
    code = driver->get_function(function, *module, v->symbol);
    if (code == hipSuccess) return ATTNGEN_OK;
    (void)driver->unload(*module);
    return hip_failed(driver, ATTNGEN_NOT_LOADED, "prepare a kernel", code);
}

static attngen_status launch_on_hip(const hip_driver *driver, const family *f, const variant *v, hipFunction_t function,
                                    const call *c, int64_t programs)
{
    parameters p;
    attngen_status status = check_brought(f, v, c);
    if (status != ATTNGEN_OK) return status;
    fill(&p, v, c);
    const hipError_t code = driver->launch(function, (unsigned int)programs, 1, 1, (unsigned int)v->threads, 1, 1,
                                           (unsigned int)v->shared, (hipStream_t)c->stream, p.addresses, NULL);
    return code == hipSuccess ? ATTNGEN_OK : hip_failed(driver, ATTNGEN_NOT_LAUNCHED, "launch a kernel", code);
}

#endif  /* ATTNGEN_WITH_HIP */

/* ---- The library: kernels that were loaded, each once for each context or device ---- */

typedef struct loaded {
    struct loaded *next;
    const variant *variant;
    uintptr_t where;  /* a context of CUDA, a device of HIP, 0 for a CPU */
    void *module;
    union {
        void *function;
        cpu_entry *entry;
    } code;
} loaded;

struct causal_library {
    char *directory;
    char *features;
    pthread_mutex_t lock;  /* of all that follows */
    loaded *first;
#ifdef ATTNGEN_WITH_CUDA
    cuda_driver cuda;
    int has_cuda, retained;
    CUdevice retained_device;
    CUcontext primary;
#endif
#ifdef ATTNGEN_WITH_HIP
    hip_driver hip;
    int has_hip;
#endif
};

typedef struct causal_library library;

/* The instruction sets of this machine as Linux calls them, each between spaces; none where nothing tells them. */
static char *read_features(void)
{
    char *line = NULL, *found = NULL;
    size_t room = 0;
    FILE *file = fopen("/proc/cpuinfo", "r");
    while (file != NULL && found == NULL && getline(&line, &room, file) > 0) {
        char *colon = strchr(line, ':');
        if (colon == NULL || (strncmp(line, "flags", 5) != 0 && strncmp(line, "Features", 8) != 0)) continue;
        line[strcspn(line, "\n")] = ' ';
        found = strdup(colon + 1);
    }
    if (file != NULL) fclose(file);
    free(line);
    return found != NULL ? found : strdup("");
}

attngen_status causal_open(const char *directory, causal_library **out)
{
    if (out == NULL || directory == NULL) return fail(ATTNGEN_INVALID, "causal_open: an argument is NULL");
    *out = NULL;
    library *made = calloc(1, sizeof *made);
    if (made == NULL) return fail(ATTNGEN_NO_MEMORY, "causal_open: no memory");
    made->directory = strdup(*directory != '\0' ? directory : ".");
    made->features = read_features();
    if (made->directory == NULL || made->features == NULL || pthread_mutex_init(&made->lock, NULL) != 0) {
        free(made->directory);
        free(made->features);
        free(made);
        return fail(ATTNGEN_NO_MEMORY, "causal_open: no memory");
    }
    *out = made;
    return ATTNGEN_OK;
}

const char *causal_error(void)
{
    return failure;
}

static void unload(library *lib, loaded *l)
{
    (void)lib;
    switch (l->variant->device) {
    case ATTNGEN_CPU:
        dlclose(l->module);
        break;
#ifdef ATTNGEN_WITH_CUDA
    case ATTNGEN_CUDA:
        if (lib->cuda.push((CUcontext)l->where) == CUDA_SUCCESS) {
            CUcontext popped;
            lib->cuda.unload((CUmodule)l->module);
            lib->cuda.pop(&popped);
        }
        break;
#endif
#ifdef ATTNGEN_WITH_HIP
    case ATTNGEN_HIP:
        (void)lib->hip.unload((hipModule_t)l->module);
        break;
#endif
    default:
        break;
    }
}

void causal_close(causal_library *lib)
{
    if (lib == NULL) return;
    for (loaded *l = lib->first, *next; l != NULL; l = next) {
        next = l->next;
        unload(lib, l);
        free(l);
    }
#ifdef ATTNGEN_WITH_CUDA
    if (lib->retained) lib->cuda.release(lib->retained_device);
#endif
    pthread_mutex_destroy(&lib->lock);
    free(lib->directory);
    free(lib->features);
    free(lib);
}

/* ---- Loading a kernel when it is first called ---- */

/* The kernel as it was loaded here, or NULL; the caller holds the lock. */
static loaded *find_loaded(const library *lib, const variant *v, uintptr_t where)
{
    for (loaded *l = lib->first; l != NULL; l = l->next)
        if (l->variant == v && l->where == where) return l;
    return NULL;
}

static char *path_of(const library *lib, const variant *v)
{
    const size_t size = strlen(lib->directory) + strlen(v->file) + 2;
    char *path = malloc(size);
    if (path == NULL)
        fail(ATTNGEN_NO_MEMORY, "no memory for the path of %s", v->file);
    else
        snprintf(path, size, "%s/%s", lib->directory, v->file);
    return path;
}

static attngen_status load_for_cpu(const library *lib, loaded *l)
{
    char *path = path_of(lib, l->variant);
    if (path == NULL) return ATTNGEN_NO_MEMORY;
    /* it stays in the process when it is closed: threads of OpenMP wait in a library that would go with it */
    l->module = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    free(path);
    if (l->module == NULL) return fail(ATTNGEN_NOT_LOADED, "%s", dlerror());
    void *found = dlsym(l->module, l->variant->symbol);
    if (found == NULL) {
        dlclose(l->module);
        return fail(ATTNGEN_NOT_LOADED, "%s has no function %s", l->variant->file, l->variant->symbol);
    }
    memcpy(&l->code.entry, &found, sizeof found);
    return ATTNGEN_OK;
}

#ifdef ATTNGEN_WITH_CUDA
static attngen_status load_for_cuda(const library *lib, loaded *l)
{
    CUmodule module;
    CUfunction function;
    char *path = path_of(lib, l->variant);
    if (path == NULL) return ATTNGEN_NO_MEMORY;
    void *data = read_binary(path);
    free(path);
    if (data == NULL) return ATTNGEN_NOT_LOADED;
    const attngen_status status = load_on_cuda(&lib->cuda, l->variant, data, &module, &function);
    free(data);
    if (status != ATTNGEN_OK) return status;
    l->module = module;
    l->code.function = function;
    return ATTNGEN_OK;
}
#endif

#ifdef ATTNGEN_WITH_HIP
static attngen_status load_for_hip(const library *lib, loaded *l)
{
    hipModule_t module;
    hipFunction_t function;
    char *path = path_of(lib, l->variant);
    if (path == NULL) return ATTNGEN_NO_MEMORY;
    void *data = read_binary(path);
    free(path);
    if (data == NULL) return ATTNGEN_NOT_LOADED;
    const attngen_status status = load_on_hip(&lib->hip, l->variant, data, &module, &function);
    free(data);
    if (status != ATTNGEN_OK) return status;
    l->module = module;
    l->code.function = function;
    return ATTNGEN_OK;
}
#endif

/* The loaded kernel; the first call of a kernel loads it. What was loaded stays until the library is closed. */
static attngen_status load(library *lib, const variant *v, uintptr_t where, const loaded **out)
{
    attngen_status status = ATTNGEN_OK;
    pthread_mutex_lock(&lib->lock);
    loaded *l = find_loaded(lib, v, where);
    if (l == NULL) {
        l = calloc(1, sizeof *l);
        if (l == NULL) {
            status = fail(ATTNGEN_NO_MEMORY, "no memory for %s", v->name);
        } else {
            l->variant = v;
            l->where = where;
            switch (v->device) {
            case ATTNGEN_CPU: status = load_for_cpu(lib, l); break;
#ifdef ATTNGEN_WITH_CUDA
            case ATTNGEN_CUDA: status = load_for_cuda(lib, l); break;
#endif
#ifdef ATTNGEN_WITH_HIP
            case ATTNGEN_HIP: status = load_for_hip(lib, l); break;
#endif
            default: status = fail(ATTNGEN_NO_DEVICE, "%s cannot be loaded by this launcher", v->name); break;
            }
            if (status == ATTNGEN_OK) {
                l->next = lib->first;
                lib->first = l;
            } else {
                free(l);
                l = NULL;
            }
        }
    }
    pthread_mutex_unlock(&lib->lock);
    *out = l;
    return status;
}

/* ---- A call, from its device to its launch ---- */

#ifdef ATTNGEN_WITH_CUDA

/* See to it that this thread has a context: its own or else, `pushed` while the call takes, that of device 0. */
static attngen_status enter_cuda(library *lib, CUcontext *context, int *pushed)
{
    attngen_status status = ATTNGEN_OK;
    *pushed = 0;
    pthread_mutex_lock(&lib->lock);
    if (!lib->has_cuda) {
        status = open_cuda(&lib->cuda);
        if (status == ATTNGEN_OK) {
            const CUresult code = lib->cuda.init(0);
            if (code != CUDA_SUCCESS) status = cuda_failed(&lib->cuda, ATTNGEN_NO_DEVICE, "start", code);
        }
        lib->has_cuda = status == ATTNGEN_OK;
    }
    CUresult code = CUDA_SUCCESS;
    if (status == ATTNGEN_OK) code = lib->cuda.current(context);
    if (status == ATTNGEN_OK && code == CUDA_SUCCESS && *context == NULL) {
        if (!lib->retained) {
            code = lib->cuda.get_device(&lib->retained_device, 0);
            if (code == CUDA_SUCCESS) code = lib->cuda.retain(&lib->primary, lib->retained_device);
            lib->retained = code == CUDA_SUCCESS;
        }
        *context = lib->primary;
        if (code == CUDA_SUCCESS) code = lib->cuda.push(*context);
        *pushed = code == CUDA_SUCCESS;
    }
    if (status == ATTNGEN_OK && code != CUDA_SUCCESS)
        status = cuda_failed(&lib->cuda, ATTNGEN_NO_DEVICE, "enter a context", code);
    pthread_mutex_unlock(&lib->lock);
    return status;
}

static attngen_status run_on_cuda(library *lib, const family *f, call *c, attngen_choice *choice)
{
    CUcontext context = NULL, popped;
    int pushed;
    device d = {ATTNGEN_CUDA, "", 0, 0, 0, ""};
    const variant *v = NULL;
    counts n = {0, 0, 0};
    attngen_status status = enter_cuda(lib, &context, &pushed);
    if (status != ATTNGEN_OK) return status;
    status = find_cuda_device(&lib->cuda, &d);
    if (status == ATTNGEN_OK) status = choose(f, c, &d, &v);
    if (status == ATTNGEN_OK) status = plan(f, v, c, &d, &n);
    if (status == ATTNGEN_OK && choice != NULL) {
        tell(choice, v, &n);
    } else if (status == ATTNGEN_OK && n.programs > 0) {
        const loaded *l;
        status = load(lib, v, (uintptr_t)context, &l);
        if (status == ATTNGEN_OK) status = launch_on_cuda(&lib->cuda, f, v, (CUfunction)l->code.function, c, n.programs);
    }
    if (pushed) lib->cuda.pop(&popped);
    return status;
}

#endif  /* ATTNGEN_WITH_CUDA */

#ifdef ATTNGEN_WITH_HIP

static attngen_status enter_hip(library *lib)
{
    pthread_mutex_lock(&lib->lock);
    const attngen_status status = lib->has_hip ? ATTNGEN_OK : open_hip(&lib->hip);
    lib->has_hip = status == ATTNGEN_OK;
    pthread_mutex_unlock(&lib->lock);
    return status;
}

static attngen_status run_on_hip(library *lib, const family *f, call *c, attngen_choice *choice)
{
    int ordinal = 0;
    device d = {ATTNGEN_HIP, "", 0, 0, 0, ""};
    const variant *v = NULL;
    counts n = {0, 0, 0};
    attngen_status status = enter_hip(lib);
    if (status == ATTNGEN_OK) status = find_hip_device(&lib->hip, &d, &ordinal);
    if (status == ATTNGEN_OK) status = choose(f, c, &d, &v);
    if (status == ATTNGEN_OK) status = plan(f, v, c, &d, &n);
    if (status != ATTNGEN_OK) return status;
    if (choice != NULL) {
        tell(choice, v, &n);
    } else if (n.programs > 0) {
        const loaded *l;
        status = load(lib, v, (uintptr_t)ordinal + 1, &l);
        if (status == ATTNGEN_OK) status = launch_on_hip(&lib->hip, f, v, (hipFunction_t)l->code.function, c, n.programs);
    }
    return status;
}

#endif  /* ATTNGEN_WITH_HIP */

static attngen_status run_on_cpu(library *lib, const family *f, call *c, attngen_choice *choice)
{
    const device d = {ATTNGEN_CPU, "this processor", 0, 1, 0, lib->features};
    const variant *v = NULL;
    const loaded *l;
    counts n = {0, 0, 0};
    attngen_status status = choose(f, c, &d, &v);
    if (status == ATTNGEN_OK) status = plan(f, v, c, &d, &n);
    if (status != ATTNGEN_OK) return status;
    if (choice != NULL) {
        tell(choice, v, &n);
        return ATTNGEN_OK;
    }
    if (n.programs == 0) return ATTNGEN_OK;
    status = load(lib, v, 0, &l);
    return status == ATTNGEN_OK ? launch_on_cpu(f, v, l->code.entry, c, &n) : status;
}

/* Runs a call, or tells in `choice` what would run it. */
static attngen_status run_call(library *lib, const family *f, call *c, attngen_choice *choice)
{
    const attngen_status status = check_call(f, c);
    if (status != ATTNGEN_OK) return status;
    if (choice == NULL && (c->ints[int_n_b] == 0 || c->ints[int_n_h] == 0 || c->ints[int_n_q] == 0)) return ATTNGEN_OK;
    switch (c->device) {
    case ATTNGEN_CPU:
        return run_on_cpu(lib, f, c, choice);
    case ATTNGEN_CUDA:
#ifdef ATTNGEN_WITH_CUDA
        return run_on_cuda(lib, f, c, choice);
#else
        return fail(ATTNGEN_NO_DEVICE, "%s: causal.c was compiled without ATTNGEN_WITH_CUDA", f->name);
#endif
    case ATTNGEN_HIP:
#ifdef ATTNGEN_WITH_HIP
        return run_on_hip(lib, f, c, choice);
#else
        return fail(ATTNGEN_NO_DEVICE, "%s: causal.c was compiled without ATTNGEN_WITH_HIP", f->name);
#endif
    }
    return fail(ATTNGEN_INVALID, "%s: %d is no device", f->name, (int)c->device);
}

/* ---- causal: kernel 0 of the form one_pass (all keys at once), whose rows are queries ---- */

enum {
    ptr_causal_Q = ptr_common, ptr_causal_K, ptr_causal_V, ptr_causal_O, ptr_causal_LSE,
};

enum {
    int_causal_Q_stride_0 = int_common, int_causal_Q_stride_1, int_causal_Q_stride_2,
    int_causal_Q_stride_3, int_causal_K_stride_0, int_causal_K_stride_1, int_causal_K_stride_2,
    int_causal_K_stride_3, int_causal_V_stride_0, int_causal_V_stride_1, int_causal_V_stride_2,
    int_causal_V_stride_3, int_causal_O_stride_0, int_causal_O_stride_1, int_causal_O_stride_2,
    int_causal_O_stride_3, int_causal_LSE_stride_0, int_causal_LSE_stride_1, int_causal_LSE_stride_2,
};

enum { real_causal_scale, };

static const char *const causal_pointer_names[] = {
    "Q", "K", "V", "O", "LSE",
};

static const char *const causal_int_names[] = {
    "stride 0 of Q", "stride 1 of Q", "stride 2 of Q", "stride 3 of Q", "stride 0 of K",
    "stride 1 of K", "stride 2 of K", "stride 3 of K", "stride 0 of V", "stride 1 of V",
    "stride 2 of V", "stride 3 of V", "stride 0 of O", "stride 1 of O", "stride 2 of O",
    "stride 3 of O", "stride 0 of LSE", "stride 1 of LSE", "stride 2 of LSE",
};

static const char *const causal_real_names[] = {
    "scale",
};

static const fixed causal_fixed_0[] = {
    {int_dtype, 4, ATTNGEN_BFLOAT16}, {int_head_dim, 2, 64}, {int_value_dim, 2, 64},
};

static const short causal_pointers_1[] = {
    ptr_causal_Q, ptr_causal_K, ptr_causal_V, ptr_causal_O, ptr_causal_LSE,
};

static const short causal_ints_2[] = {
    int_n_b, int_n_h, int_n_kv, int_n_q, int_n_k, int_threads, int_causal_Q_stride_0,
    int_causal_Q_stride_1, int_causal_Q_stride_2, int_causal_Q_stride_3, int_causal_K_stride_0,
    int_causal_K_stride_1, int_causal_K_stride_2, int_causal_K_stride_3, int_causal_V_stride_0,
    int_causal_V_stride_1, int_causal_V_stride_2, int_causal_V_stride_3, int_causal_O_stride_0,
    int_causal_O_stride_1, int_causal_O_stride_2, int_causal_O_stride_3, int_causal_LSE_stride_0,
    int_causal_LSE_stride_1, int_causal_LSE_stride_2,
};

static const short causal_reals_3[] = {
    real_causal_scale,
};

static const short causal_whole_4[] = {
    int_causal_Q_stride_0, int_causal_Q_stride_1, int_causal_Q_stride_2, int_causal_K_stride_0,
    int_causal_K_stride_1, int_causal_K_stride_2, int_causal_V_stride_0, int_causal_V_stride_1,
    int_causal_V_stride_2, int_causal_O_stride_0, int_causal_O_stride_1, int_causal_O_stride_2,
};

static const short causal_ones_5[] = {
    int_causal_Q_stride_3, int_causal_K_stride_3, int_causal_V_stride_3, int_causal_O_stride_3,
    int_causal_LSE_stride_2,
};

static const short causal_narrow_6[] = {
    int_causal_Q_stride_2, int_causal_K_stride_2, int_causal_V_stride_2, int_causal_O_stride_2,
    int_causal_LSE_stride_1,
};

static const param causal_params_7[] = {
    {AS_POINTER, ptr_causal_Q}, {AS_INT64, int_causal_Q_stride_0}, {AS_INT64,
    int_causal_Q_stride_1}, {AS_INT32, int_causal_Q_stride_2}, {AS_POINTER, ptr_causal_K},
    {AS_INT64, int_causal_K_stride_0}, {AS_INT64, int_causal_K_stride_1}, {AS_INT32,
    int_causal_K_stride_2}, {AS_POINTER, ptr_causal_V}, {AS_INT64, int_causal_V_stride_0},
    {AS_INT64, int_causal_V_stride_1}, {AS_INT32, int_causal_V_stride_2}, {AS_POINTER,
    ptr_causal_O}, {AS_INT64, int_causal_O_stride_0}, {AS_INT64, int_causal_O_stride_1}, {AS_INT32,
    int_causal_O_stride_2}, {AS_POINTER, ptr_causal_LSE}, {AS_INT64, int_causal_LSE_stride_0},
    {AS_INT32, int_causal_LSE_stride_1}, {AS_INT32, int_n_b}, {AS_INT32, int_n_h}, {AS_INT32,
    int_n_q}, {AS_INT32, int_n_k}, {AS_INT32, int_group}, {AS_FLOAT, real_causal_scale},
};

static const tensor causal_tensors[] = {
    {ptr_causal_Q, int_causal_Q_stride_0, -1, 4, 0},
    {ptr_causal_K, int_causal_K_stride_0, -1, 4, 1},
    {ptr_causal_V, int_causal_V_stride_0, -1, 4, 1},
    {ptr_causal_O, int_causal_O_stride_0, -1, 4, 0},
    {ptr_causal_LSE, int_causal_LSE_stride_0, -1, 3, 0},
};

static void causal_grid_0(const call *c, int64_t multiprocessors, counts *n)
{
    const int64_t n_b = c->ints[int_n_b];
    const int64_t n_h = c->ints[int_n_h];
    const int64_t n_k = c->ints[int_n_k];
    const int64_t n_q = c->ints[int_n_q];
    (void)multiprocessors;
    n->tiles = ceil_div(n_q, 128);
    n->key_tiles = ceil_div(n_k, 96);
    n->programs = n_b * n_h * ceil_div(n_q, 128);
}

static void causal_grid_1(const call *c, int64_t multiprocessors, counts *n)
{
    const int64_t n_b = c->ints[int_n_b];
    const int64_t n_h = c->ints[int_n_h];
    const int64_t n_k = c->ints[int_n_k];
    const int64_t n_q = c->ints[int_n_q];
    (void)multiprocessors;
    n->tiles = ceil_div(n_q, 128);
    n->key_tiles = ceil_div(n_k, 64);
    n->programs = n_b * n_h * ceil_div(n_q, 128);
}

static const variant causal_variants[] = {
    {
        .name = "cpu-avx2/bf16-d64/one_pass-0",
        .file = "cpu-avx2/bf16-d64/one_pass-0/kernel.bin",
        .symbol = "attngen_causal_cpu_avx2",
        .device = ATTNGEN_CPU,
        .arch = "cpu-avx2",
        .needs = "avx2 fma",
        .fixed = ALL_OF(causal_fixed_0),
        .scale_sign = 1,
        .block_q = 128,
        .block_k = 96,
        .grid = causal_grid_0,
        .pointers = ALL_OF(causal_pointers_1),
        .ints = ALL_OF(causal_ints_2),
        .reals = ALL_OF(causal_reals_3),
        .max_keys = 134217728,
    },
    {
        .name = "sm_80/bf16-d64/one_pass-0",
        .file = "sm_80/bf16-d64/one_pass-0/kernel.bin",
        .symbol = "attngen_causal_sm_80",
        .device = ATTNGEN_CUDA,
        .arch = "sm_80",
        .capability = 80,
        .fixed = ALL_OF(causal_fixed_0),
        .scale_sign = 1,
        .block_q = 128,
        .block_k = 64,
        .grid = causal_grid_1,
        .aligned = ALL_OF(causal_pointers_1),
        .whole = ALL_OF(causal_whole_4),
        .ones = ALL_OF(causal_ones_5),
        .narrow = ALL_OF(causal_narrow_6),
        .params = ALL_OF(causal_params_7),
        .max_keys = 134217728,
        .threads = 128,
        .shared = 73728,
    },
    {
        .name = "gfx942/bf16-d64/one_pass-0",
        .file = "gfx942/bf16-d64/one_pass-0/kernel.bin",
        .symbol = "attngen_causal_gfx942",
        .device = ATTNGEN_HIP,
        .arch = "gfx942",
        .fixed = ALL_OF(causal_fixed_0),
        .scale_sign = 1,
        .block_q = 128,
        .block_k = 64,
        .grid = causal_grid_1,
        .aligned = ALL_OF(causal_pointers_1),
        .whole = ALL_OF(causal_whole_4),
        .ones = ALL_OF(causal_ones_5),
        .narrow = ALL_OF(causal_narrow_6),
        .params = ALL_OF(causal_params_7),
        .max_keys = 134217728,
        .threads = 128,
        .shared = 73728,
    },
};

static const family causal_family = {
    .name = "causal",
    .variants = causal_variants,
    .n_variants = 3,
    .tensors = causal_tensors,
    .n_tensors = 5,
    .n_reals = 1,
    .scale = real_causal_scale,
    .pointer_names = causal_pointer_names,
    .int_names = causal_int_names,
    .real_names = causal_real_names,
};

static void causal_read(const causal_args *args, call *c)
{
    memset(c, 0, sizeof *c);
    for (int i = 0; i < MOST_INTS; ++i) c->axis[i] = -1;
    c->device = args->device;
    c->ints[int_dtype] = (int64_t)args->dtype;
    c->ints[int_n_b] = args->n_b;
    c->ints[int_n_h] = args->n_h;
    c->ints[int_n_kv] = args->n_kv;
    c->ints[int_n_q] = args->n_q;
    c->ints[int_n_k] = args->n_k;
    c->ints[int_group] = args->n_kv > 0 ? args->n_h / args->n_kv : 0;
    c->ints[int_head_dim] = args->head_dim;
    c->ints[int_value_dim] = args->value_dim;
    put(c, ptr_causal_Q, args->Q, int_causal_Q_stride_0, args->Q_stride, 4,
        (const int64_t[]){args->n_b, args->n_h, args->n_q, args->head_dim});
    put(c, ptr_causal_K, args->K, int_causal_K_stride_0, args->K_stride, 4,
        (const int64_t[]){args->n_b, args->n_kv, args->n_k, args->head_dim});
    put(c, ptr_causal_V, args->V, int_causal_V_stride_0, args->V_stride, 4,
        (const int64_t[]){args->n_b, args->n_kv, args->n_k, args->value_dim});
    put(c, ptr_causal_O, args->O, int_causal_O_stride_0, args->O_stride, 4,
        (const int64_t[]){args->n_b, args->n_h, args->n_q, args->value_dim});
    put(c, ptr_causal_LSE, args->LSE, int_causal_LSE_stride_0, args->LSE_stride, 3,
        (const int64_t[]){args->n_b, args->n_h, args->n_q});
    c->reals[real_causal_scale] = args->scale;
    c->ints[int_threads] = args->threads;
    c->stream = args->stream;
}

void causal_init(causal_args *args)
{
    memset(args, 0, sizeof *args);
}

static attngen_status causal_call(causal_library *lib, const causal_args *args,
                                   attngen_choice *choice)
{
    call c;
    if (lib == NULL || args == NULL) return fail(ATTNGEN_INVALID, "causal: an argument is NULL");
    causal_read(args, &c);
    return run_call(lib, &causal_family, &c, choice);
}

attngen_status causal_run(causal_library *lib, const causal_args *args)
{
    return causal_call(lib, args, NULL);
}

attngen_status causal_choose(causal_library *lib, const causal_args *args,
                                 attngen_choice *choice)
{
    if (choice == NULL) return fail(ATTNGEN_INVALID, "causal_choose: an argument is NULL");
    return causal_call(lib, args, choice);
}
