/* libcuda.so.1 of a machine without a GPU: it says what FAKE_CAPABILITY asks, and prints what it is told to do.

   A module is text: for each parameter of its kernel the bytes that a launch reads. FAKE_FAIL names a function that
   fails. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *current;

static int fails(const char *name)
{
    const char *failing = getenv("FAKE_FAIL");
    return failing != NULL && strcmp(failing, name) == 0 ? 999 : 0;
}

int cuInit(unsigned flags) { (void)flags; return fails("cuInit"); }
int cuGetErrorName(int code, const char **name) { (void)code; *name = "CUDA_ERROR_FAKE"; return 0; }
int cuGetErrorString(int code, const char **text) { (void)code; *text = "a fake error"; return 0; }
int cuCtxGetCurrent(void **context) { *context = current; return 0; }
int cuCtxPushCurrent_v2(void *context) { current = context; printf("push %zu\n", (size_t)context); return 0; }
int cuCtxPopCurrent_v2(void **context) { *context = current; current = NULL; printf("pop\n"); return 0; }
int cuCtxGetDevice(int *device) { *device = 0; return fails("cuCtxGetDevice"); }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)(size_t)(device + 100); printf("retain\n"); return 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { (void)device; printf("release\n"); return 0; }

int cuDeviceGetAttribute(int *value, int attribute, int device)
{
    const int capability = atoi(getenv("FAKE_CAPABILITY"));
    (void)device;
    switch (attribute) {
    case 75: *value = capability / 10; return 0;
    case 76: *value = capability % 10; return 0;
    case 16: *value = 3; return 0;
    case 97: *value = getenv("FAKE_SHARED") ? atoi(getenv("FAKE_SHARED")) : 227 << 10; return 0;
    default: return 1;
    }
}

int cuModuleLoadData(void **module, const void *data)
{
    if (fails("cuModuleLoadData")) return 209;
    *module = strdup(data);
    printf("load\n");
    return 0;
}

int cuModuleUnload(void *module) { free(module); printf("unload\n"); return 0; }

int cuModuleGetFunction(void **function, void *module, const char *name)
{
    *function = module;
    printf("function %s\n", name);
    return fails("cuModuleGetFunction");
}

int cuFuncSetCacheConfig(void *function, int config) { (void)function; printf("cache %d\n", config); return 0; }

int cuFuncSetAttribute(void *function, int attribute, int value)
{
    (void)function;
    printf("attribute %d %d\n", attribute, value);
    return 0;
}

int cuLaunchKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned tx, unsigned ty, unsigned tz,
                   unsigned shared, void *stream, void **params, void **extra)
{
    (void)extra;
    if (fails("cuLaunchKernel")) return 719;
    printf("launch %u %u %u x %u %u %u shared %u stream %zu:", x, y, z, tx, ty, tz, shared, (size_t)stream);
    char *rest = function, *end;
    for (int i = 0;; ++i, rest = end) {
        const long size = strtol(rest, &end, 10);
        if (end == rest) break;
        int64_t value = 0;
        memcpy(&value, params[i], (size_t)size);
        printf(" %ld:%llx", size, (unsigned long long)value);
    }
    printf("\n");
    return 0;
}
