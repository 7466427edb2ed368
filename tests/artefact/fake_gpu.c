/* A driver of GPUs that launches nothing: it writes down what it is asked for, a line a call.

   A "module" is text, the sizes of its kernel's parameters in bytes: "8 8 4 1". As a real kernel does, it alone says
   how many bytes a launch reads at each address. fake_fail makes the next call of a function return an error. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char written[1 << 16];
static size_t at;
static char failing[64];
static int failure;
static char modules[16][4096];
static int n_modules;
static void *current;

const char *fake_log(void) { return written; }
void fake_clear(void) { at = 0; written[0] = 0; n_modules = 0; current = NULL; failing[0] = 0; }
void fake_fail(const char *name, int code) { snprintf(failing, sizeof failing, "%s", name); failure = code; }

static int fails(const char *name) {
    if (strcmp(name, failing) != 0) return 0;
    failing[0] = 0;
    return failure;
}

#define SAY(...) (at += (size_t)snprintf(written + at, sizeof written - at, __VA_ARGS__))
#define FAILS(name) do { int code = fails(name); if (code) return code; } while (0)

static int load_module(const char *name, void **module, const char *data) {
    FAILS(name);
    snprintf(modules[n_modules], sizeof modules[0], "%s", data);
    *module = modules[n_modules++];
    SAY("load %d\n", n_modules);
    return 0;
}

static int get_function(const char *name, void **function, void *module, const char *entry) {
    FAILS(name);
    *function = module;
    SAY("get %s\n", entry);
    return 0;
}

static int launch(const char *name, void *function, const unsigned *n, void *stream, void **params) {
    FAILS(name);
    SAY("launch %u %u %u %u %u %u shared %u stream %zu params", n[0], n[1], n[2], n[3], n[4], n[5], n[6],
        (size_t)stream);
    char *rest = function;
    for (int i = 0;; i++) {
        char *end;
        long size = strtol(rest, &end, 10);
        if (end == rest) break;
        rest = end;
        SAY(" ");
        if ((uintptr_t)params[i] % (uintptr_t)size != 0) SAY("unaligned");
        for (long j = 0; j < size; j++) SAY("%02x", ((unsigned char *)params[i])[j]);
    }
    SAY("\n");
    return 0;
}

#define MODULES(load, get, start)                                                                       \
    int load(void **module, const char *data) { return load_module(#load, module, data); }              \
    int get(void **f, void *module, const char *entry) { return get_function(#get, f, module, entry); } \
    int start(void *f, unsigned a, unsigned b, unsigned c, unsigned d, unsigned e, unsigned g,          \
              unsigned shared, void *stream, void **params, void **extra) {                             \
        unsigned n[] = {a, b, c, d, e, g, shared};                                                      \
        (void)extra;                                                                                    \
        return launch(#start, f, n, stream, params);                                                    \
    }

MODULES(cuModuleLoadData, cuModuleGetFunction, cuLaunchKernel)
MODULES(hipModuleLoadData, hipModuleGetFunction, hipModuleLaunchKernel)

int cuInit(unsigned flags) { (void)flags; return fails("cuInit"); }
int cuCtxGetCurrent(void **context) { *context = current; return 0; }
int cuCtxSetCurrent(void *context) { current = context; SAY("enter %zu\n", (size_t)context); return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return fails("cuDeviceGet"); }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)(size_t)(device + 100); return 0; }
int cuFuncSetCacheConfig(void *f, int config) { (void)f; SAY("prefer %d\n", config); return 0; }
int cuFuncSetAttribute(void *f, int attribute, int value) {
    (void)f;
    FAILS("cuFuncSetAttribute");
    SAY("attribute %d = %d\n", attribute, value);
    return 0;
}

int cuGetErrorName(int code, const char **name) { *name = code == 999 ? NULL : "CUDA_ERROR_FAKE"; return 0; }
int cuGetErrorString(int code, const char **text) { (void)code; *text = "a fake error"; return 0; }
const char *hipGetErrorName(int code) { (void)code; return "hipErrorFake"; }
const char *hipGetErrorString(int code) { (void)code; return "a fake error"; }
