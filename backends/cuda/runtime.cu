/* runtime.cu: gpu.h by the CUDA runtime. */
#include "backends/cuda/gpu.h"

#include <cuda_runtime.h>
#include <stdio.h>

/* ------------------------------------------------------------------------------------- cards -- */

static int driver_version(int *version)
{
    return (int)cudaDriverGetVersion(version);
}

static int count(int *n)
{
    return (int)cudaGetDeviceCount(n);
}

static int attribute(int device, cudaDeviceAttr what, int *out)
{
    return (int)cudaDeviceGetAttribute(out, what, device);
}

static int capability(int device, int *major, int *minor)
{
    int error = attribute(device, cudaDevAttrComputeCapabilityMajor, major);
    return error ? error : attribute(device, cudaDevAttrComputeCapabilityMinor, minor);
}

static int describe(int device, struct cuda_card *out)
{
    cudaDeviceProp p;
    cudaError_t error = cudaGetDeviceProperties(&p, device);
    if (error != cudaSuccess)
        return (int)error;
    snprintf(out->name, sizeof out->name, "%.63s", p.name);
    out->major = p.major;
    out->minor = p.minor;
    out->n_sm = p.multiProcessorCount;
    out->shared_most = p.sharedMemPerBlockOptin;
    out->l2_bytes = (size_t)p.l2CacheSize;
    return 0;
}

static int use(int device)
{
    return (int)cudaSetDevice(device);
}

static int reset()
{
    return (int)cudaDeviceReset();
}

static int wait()
{
    return (int)cudaDeviceSynchronize();
}

static int memory(size_t *free_bytes, size_t *total_bytes)
{
    return (int)cudaMemGetInfo(free_bytes, total_bytes);
}

/* ------------------------------------------------------------------------------------ memory -- */

static int allocate(void **out, size_t bytes)
{
    return (int)cudaMalloc(out, bytes);
}

static int release(void *p)
{
    return (int)cudaFree(p);
}

static int host_allocate(void **out, size_t bytes)
{
    return (int)cudaHostAlloc(out, bytes, cudaHostAllocPortable);
}

static int host_release(void *p)
{
    return (int)cudaFreeHost(p);
}

static cudaMemcpyKind kind(enum cuda_direction direction)
{
    return direction == CUDA_UP     ? cudaMemcpyHostToDevice
           : direction == CUDA_DOWN ? cudaMemcpyDeviceToHost
                                    : cudaMemcpyDeviceToDevice;
}

static int copy(void *to, const void *from, size_t bytes, enum cuda_direction direction)
{
    return (int)cudaMemcpy(to, from, bytes, kind(direction));
}

static int copy_async(void *to, const void *from, size_t bytes, enum cuda_direction direction, void *stream)
{
    return (int)cudaMemcpyAsync(to, from, bytes, kind(direction), (cudaStream_t)stream);
}

static int copy_peer(void *to, int to_device, const void *from, int from_device, size_t bytes, void *stream)
{
    return (int)cudaMemcpyPeerAsync(to, to_device, from, from_device, bytes, (cudaStream_t)stream);
}

static int set_async(void *p, int byte, size_t bytes, void *stream)
{
    return (int)cudaMemsetAsync(p, byte, bytes, (cudaStream_t)stream);
}

static int can_reach(int device, int other, int *can)
{
    return (int)cudaDeviceCanAccessPeer(can, device, other);
}

static int reach(int other)
{
    return (int)cudaDeviceEnablePeerAccess(other, 0);
}

/* ----------------------------------------------------------------------- streams and events -- */

static int stream_new(void **out)
{
    return (int)cudaStreamCreateWithFlags((cudaStream_t *)out, cudaStreamNonBlocking);
}

static int stream_free(void *stream)
{
    return (int)cudaStreamDestroy((cudaStream_t)stream);
}

static int stream_wait(void *stream)
{
    return (int)cudaStreamSynchronize((cudaStream_t)stream);
}

static int stream_after(void *stream, void *event)
{
    return (int)cudaStreamWaitEvent((cudaStream_t)stream, (cudaEvent_t)event, 0);
}

static int event_new(void **out, bool timed)
{
    return (int)cudaEventCreateWithFlags((cudaEvent_t *)out, timed ? cudaEventDefault : cudaEventDisableTiming);
}

static int event_free(void *event)
{
    return (int)cudaEventDestroy((cudaEvent_t)event);
}

static int event_record(void *event, void *stream)
{
    return (int)cudaEventRecord((cudaEvent_t)event, (cudaStream_t)stream);
}

static int event_wait(void *event)
{
    return (int)cudaEventSynchronize((cudaEvent_t)event);
}

static int event_seconds(void *from, void *to, double *seconds)
{
    float ms = 0;
    cudaError_t error = cudaEventElapsedTime(&ms, (cudaEvent_t)from, (cudaEvent_t)to);
    *seconds = ms / 1000.0;
    return (int)error;
}

/* ------------------------------------------------------------------------------------ graphs -- */

/* Of this thread alone: other threads may allocate and wait meanwhile. */
static int capture_begin(void *stream)
{
    return (int)cudaStreamBeginCapture((cudaStream_t)stream, cudaStreamCaptureModeThreadLocal);
}

static int capture_end(void *stream, void **out)
{
    cudaGraph_t graph = NULL;
    cudaError_t error = cudaStreamEndCapture((cudaStream_t)stream, &graph);
    if (error == cudaSuccess)
        error = cudaGraphInstantiate((cudaGraphExec_t *)out, graph, 0);
    if (graph)
        cudaGraphDestroy(graph);
    return (int)error;
}

static int graph_launch(void *graph, void *stream)
{
    return (int)cudaGraphLaunch((cudaGraphExec_t)graph, (cudaStream_t)stream);
}

static int graph_free(void *graph)
{
    return (int)cudaGraphExecDestroy((cudaGraphExec_t)graph);
}

/* ------------------------------------------------------------------------------------ errors -- */

static int last_error()
{
    return (int)cudaGetLastError();
}

static const char *text(int error)
{
    return cudaGetErrorString((cudaError_t)error);
}

const struct cuda_gpu *geul_cuda_gpu()
{
    /* A driver serves what was built for older versions, too, so the one before the own version will do. */
    static const char *const blas[] = {CUDART_VERSION >= 13000 ? "libcublas.so.13" : "libcublas.so.12",
                                       CUDART_VERSION >= 13000 ? "libcublas.so.12" : NULL, NULL};
    static const struct cuda_gpu table = {
        CUDART_VERSION / 1000 * 1000, /* drivers of a major version serve all its minor ones */
        0.02,
        blas,
        driver_version,
        count,
        capability,
        describe,
        use,
        reset,
        wait,
        memory,
        allocate,
        release,
        host_allocate,
        host_release,
        copy,
        copy_async,
        copy_peer,
        set_async,
        can_reach,
        reach,
        stream_new,
        stream_free,
        stream_wait,
        stream_after,
        event_new,
        event_free,
        event_record,
        event_wait,
        event_seconds,
        capture_begin,
        capture_end,
        graph_launch,
        graph_free,
        last_error,
        text,
    };
    return &table;
}
