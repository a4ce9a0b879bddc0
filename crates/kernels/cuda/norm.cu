// RMS norms, alone and behind a residual sum.
#include "common.cuh"

struct NormArgs {
    const void* x;      // [rows, width]
    const void* y;      // [rows, width], added first; or null
    const void* weight; // [width]
    void* sum;          // [rows, width], x + y; unused where y is null
    void* out;          // [rows, width]
    int width;
    float eps;
};

// A block for a row. The sum is rounded to T before it is normalised, as the residual stream is kept.
template <class T, int N>
DEVICE void norm_row(const NormArgs& args) {
    const int width = args.width;
    const size_t at = size_t(blockIdx.x) * width;
    const T* x = static_cast<const T*>(args.x) + at;
    const T* y = static_cast<const T*>(args.y);
    const T* weight = static_cast<const T*>(args.weight);
    T* out = static_cast<T*>(args.out) + at;
    float squares = 0.0f;
    for (int i = threadIdx.x * N; i < width; i += blockDim.x * N) {
        float a[N];
        load<N>(x + i, a);
        if (y) {
            float b[N];
            load<N>(y + at + i, b);
#pragma unroll
            for (int k = 0; k < N; k++) a[k] = widen(rounded<T>(a[k] + b[k]));
            store<N>(a, static_cast<T*>(args.sum) + at + i);
        }
#pragma unroll
        for (int k = 0; k < N; k++) squares += a[k] * a[k];
    }
    squares = sum_block(squares, reinterpret_cast<float*>(shared_memory));
    const float factor = 1.0f / sqrtf(squares / width + args.eps);
    // Each thread reads again what it has written itself.
    const T* from = y ? static_cast<const T*>(args.sum) + at : x;
    for (int i = threadIdx.x * N; i < width; i += blockDim.x * N) {
        float a[N], w[N];
        load<N>(from + i, a);
        load<N>(weight + i, w);
#pragma unroll
        for (int k = 0; k < N; k++) a[k] = a[k] * factor * w[k];
        store<N>(a, out + i);
    }
}

template <class T>
DEVICE void norm(const NormArgs& args) {
    if (args.width % WIDE<T> == 0)
        norm_row<T, WIDE<T>>(args);
    else
        norm_row<T, 1>(args);
}

KERNEL_OF_TYPES(norm, 256, NormArgs, norm)
