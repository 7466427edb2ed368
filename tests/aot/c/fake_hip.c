/* libamdhip64.so of a machine without a GPU; modules are as those of fake_cuda.c. */
#include <hip/hip_runtime_api.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *hipGetErrorName(hipError_t code) { (void)code; return "hipErrorFake"; }
hipError_t hipGetDevice(int *device) { *device = 0; return hipSuccess; }

hipError_t hipGetDeviceProperties(hipDeviceProp_t *properties, int device)
{
    (void)device;
    memset(properties, 0, sizeof *properties);
    snprintf(properties->gcnArchName, sizeof properties->gcnArchName, "%s:sramecc+:xnack-", getenv("FAKE_ARCH"));
    properties->multiProcessorCount = 3;
    properties->sharedMemPerBlock = 64 << 10;
    return hipSuccess;
}

hipError_t hipModuleLoadData(hipModule_t *module, const void *data)
{
    *module = (hipModule_t)(void *)strdup(data);
    printf("load\n");
    return hipSuccess;
}

hipError_t hipModuleUnload(hipModule_t module) { free((void *)module); printf("unload\n"); return hipSuccess; }

hipError_t hipModuleGetFunction(hipFunction_t *function, hipModule_t module, const char *name)
{
    *function = (hipFunction_t)(void *)module;
    printf("function %s\n", name);
    return hipSuccess;
}

hipError_t hipModuleLaunchKernel(hipFunction_t function, unsigned x, unsigned y, unsigned z, unsigned tx, unsigned ty,
                                 unsigned tz, unsigned shared, hipStream_t stream, void **params, void **extra)
{
    (void)extra;
    if (getenv("FAKE_FAIL") != NULL) return hipErrorInvalidValue;
    printf("launch %u %u %u x %u %u %u shared %u stream %zu:", x, y, z, tx, ty, tz, shared, (size_t)(void *)stream);
    char *rest = (char *)(void *)function, *end;
    for (int i = 0;; ++i, rest = end) {
        const long size = strtol(rest, &end, 10);
        if (end == rest) break;
        int64_t value = 0;
        memcpy(&value, params[i], (size_t)size);
        printf(" %ld:%llx", size, (unsigned long long)value);
    }
    printf("\n");
    return hipSuccess;
}
