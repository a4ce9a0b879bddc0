// The gates of a delta net and the norm at its end: both as kernels of their own and within a step of the whole net.
#pragma once

#include "common.cuh"

// How much of a value is written.
DEVICE float delta_beta(float b) { return 1.0f / (1.0f + expf(-b)); }

// The logarithm of what is kept of the state.
DEVICE float delta_log_decay(float a, float decay, float bias) {
    const float x = a + bias;
    return decay * (fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x))));
}

// A head of `dim` values by a warp: normalised, by its weight and the silu of its gate, and by λ, which comes last, for a factor
// before the norm would be divided out again.
template <class T, bool wide>
DEVICE void gated_norm_head(const T* x, const T* gate, const float* weight, T* out, int dim, float eps, float lambda) {
    const int lane = threadIdx.x % 32;
    float squares = 0.0f;
    for (int i = 4 * lane; i < dim; i += 128) {
        const Pack<T, 4> a = four<wide>(x + i, dim - i);
#pragma unroll
        for (int c = 0; c < 4; c++) squares = fmaf(widen(a.x[c]), widen(a.x[c]), squares);
    }
    const float factor = 1.0f / sqrtf(sum_lanes(squares) / dim + eps);
    for (int i = 4 * lane; i < dim; i += 128) {
        const Pack<T, 4> a = four<wide>(x + i, dim - i), by = four<wide>(gate + i, dim - i);
        const Pack<float, 4> w = four<wide>(weight + i, dim - i);
        float z[4];
#pragma unroll
        for (int c = 0; c < 4; c++) z[c] = widen(a.x[c]) * factor * w.x[c] * silu(widen(by.x[c])) * lambda;
        put_four<wide>(z, out + i, dim - i);
    }
}
