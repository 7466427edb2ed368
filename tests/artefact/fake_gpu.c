/* A driver of GPUs that launches nothing: it writes down what it is asked for, a line a call.

   A "module" is text, the sizes of its kernel's parameters in bytes: "8 8 4 1". As a real kernel does, it alone says
   how many bytes a launch reads at each address. fake_fail makes the next call of a function return an error. */

#include <pthread.h>
#include <stdarg.h>
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
static __thread void *current; /* each thread has its own */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

const char *fake_log(void) { return written; }
void fake_clear(void) { at = 0; written[0] = 0; n_modules = 0; current = NULL; failing[0] = 0; }
void fake_fail(const char *name, int code) { snprintf(failing, sizeof failing, "%s", name); failure = code; }

static int fails(const char *name) {
    if (strcmp(name, failing) != 0) return 0;
    failing[0] = 0;
    return failure;
}

/* One line, whole, whichever threads speak at once. */
static void say(const char *format, ...) {
    va_list words;
    va_start(words, format);
    pthread_mutex_lock(&lock);
    at += (size_t)vsnprintf(written + at, sizeof written - at, format, words);
    pthread_mutex_unlock(&lock);
    va_end(words);
}

#define FAILS(name) do { int code = fails(name); if (code) return code; } while (0)

static int load_module(const char *name, void **module, const char *data) {
    FAILS(name);
    snprintf(modules[n_modules], sizeof modules[0], "%s", data);
    *module = modules[n_modules++];
    say("load %d\n", n_modules);
    return 0;
}

static int get_function(const char *name, void **function, void *module, const char *entry) {
    FAILS(name);
    *function = module;
    say("get %s\n", entry);
    return 0;
}

static int launch(const char *name, void *function, const unsigned *n, void *stream, void **params) {
    FAILS(name);
    char line[8192], *rest = function;
    size_t end_of = 0;
#define ADD(...) (end_of += (size_t)snprintf(line + end_of, sizeof line - end_of, __VA_ARGS__))
    for (int i = 0;; i++) {
        char *end;
        long size = strtol(rest, &end, 10);
        if (end == rest) break;
        rest = end;
        ADD(" ");
        if ((uintptr_t)params[i] % (uintptr_t)size != 0) ADD("unaligned");
        for (long j = 0; j < size; j++) ADD("%02x", ((unsigned char *)params[i])[j]);
    }
    say("launch %u %u %u %u %u %u shared %u stream %zu params%s\n", n[0], n[1], n[2], n[3], n[4], n[5], n[6],
        (size_t)stream, end_of ? line : "");
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
int cuCtxSetCurrent(void *context) { current = context; say("enter %zu\n", (size_t)context); return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return fails("cuDeviceGet"); }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)(size_t)(device + 100); return 0; }
int cuFuncSetCacheConfig(void *f, int config) { (void)f; say("prefer %d\n", config); return 0; }
int cuFuncSetAttribute(void *f, int attribute, int value) {
    (void)f;
    FAILS("cuFuncSetAttribute");
    say("attribute %d = %d\n", attribute, value);
    return 0;
}

int cuGetErrorName(int code, const char **name) { *name = code == 999 ? NULL : "CUDA_ERROR_FAKE"; return 0; }
int cuGetErrorString(int code, const char **text) { (void)code; *text = "a fake error"; return 0; }
const char *hipGetErrorName(int code) { (void)code; return "hipErrorFake"; }
const char *hipGetErrorString(int code) { (void)code; return "a fake error"; }
