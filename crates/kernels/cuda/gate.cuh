// The gates of a delta net and the norm at its end, used by their own kernels and within a step of the whole net.
#pragma once

#include "common.cuh"

// How much of a value is written.
DEVICE float delta_beta(float b) { return 1.0f / (1.0f + expf(-b)); }

// The logarithm of the share of the state that is kept.
DEVICE float delta_log_decay(float a, float decay, float bias) {
    const float x = a + bias;
    return decay * (fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x))));
}

// The norm's factor for a head of `dim` values, in every lane of a warp.
template <class T, bool wide>
DEVICE float gated_norm_factor(const T* x, int dim, float eps) {
    float squares = 0.0f;
    for (int i = 4 * (threadIdx.x % 32); i < dim; i += 128) {
        const Pack<T, 4> a = four<wide>(x + i, dim - i);
#pragma unroll
        for (int c = 0; c < 4; c++) squares = fmaf(widen(a.x[c]), widen(a.x[c]), squares);
    }
    return over_root(sum_lanes(squares) / dim, eps);
}

// Four values of a head: normalised, times their weights and the silu of their gates, and finally times λ, because the norm would
// cancel a factor applied before it.
template <class T>
DEVICE void gated_norm_four(const Pack<T, 4>& x, float factor, const Pack<float, 4>& weight, const Pack<T, 4>& gate,
                            float lambda, float (&z)[4]) {
#pragma unroll
    for (int c = 0; c < 4; c++) z[c] = widen(x.x[c]) * factor * weight.x[c] * silu(widen(gate.x[c])) * lambda;
}
