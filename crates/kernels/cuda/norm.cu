// RMS norms, alone and after a residual addition.
#include "common.cuh"

struct NormArgs {
    const void* x;      // [rows, width]
    const void* y;      // [rows, width], what joins x; or null
    const void* before; // [width], a norm of y before it joins; or null
    const void* weight; // [width], the norm of the sum; or null
    void* sum;          // [rows, width], scale (x + y); unused where y is null
    void* out;          // [rows, width]; unused where weight is null
    int width;
    float eps;
    float before_eps;
    float scale;
    int wide; // all rows may be read and written in packs of 16 bytes
};

template <class T, int N>
DEVICE float squares_of(const T* x, int width) {
    float squares = 0.0f;
    for (int i = threadIdx.x * N; i < width; i += blockDim.x * N) {
        float a[N];
        load<N>(x + i, a);
#pragma unroll
        for (int k = 0; k < N; k++) squares += a[k] * a[k];
    }
    return squares;
}

// The factor that gives the values of a row a mean square of 1.
DEVICE float factor_of(float squares, int width, float eps) {
    return over_root(sum_block(squares, reinterpret_cast<float*>(shared_memory)) / width, eps);
}

// One block per row. Every named value is rounded to T, as if each step were a separate operation.
template <class T, int N>
DEVICE void norm_row(const NormArgs& args) {
    const int width = args.width;
    const size_t at = size_t(blockIdx.x) * width;
    const T* x = static_cast<const T*>(args.x) + at;
    const T* before = static_cast<const T*>(args.before);
    const T* weight = static_cast<const T*>(args.weight);
    T* sum = static_cast<T*>(args.sum) + at;
    float squares = 0.0f;
    if (args.y) {
        const T* y = static_cast<const T*>(args.y) + at;
        const float factor = before ? factor_of(squares_of<T, N>(y, width), width, args.before_eps) : 1.0f;
        for (int i = threadIdx.x * N; i < width; i += blockDim.x * N) {
            float a[N], b[N];
            load<N>(x + i, a);
            load<N>(y + i, b);
            if (before) {
                float w[N];
                load<N>(before + i, w);
#pragma unroll
                for (int k = 0; k < N; k++) b[k] = widen(rounded<T>(b[k] * factor * w[k]));
            }
#pragma unroll
            for (int k = 0; k < N; k++) {
                a[k] = widen(rounded<T>(a[k] + b[k]));
                if (args.scale != 1.0f) a[k] = widen(rounded<T>(a[k] * args.scale));
                squares += a[k] * a[k];
            }
            store<N>(a, sum + i);
        }
        if (!weight) return;
        x = sum; // each thread rereads only what it has written itself
    } else {
        squares = squares_of<T, N>(x, width);
    }
    const float factor = factor_of(squares, width, args.eps);
    T* out = static_cast<T*>(args.out) + at;
    for (int i = threadIdx.x * N; i < width; i += blockDim.x * N) {
        float a[N], w[N];
        load<N>(x + i, a);
        load<N>(weight + i, w);
#pragma unroll
        for (int k = 0; k < N; k++) a[k] = a[k] * factor * w[k];
        store<N>(a, out + i);
    }
}

// The same for rows of at most PACKS packs per thread, which it keeps in registers: all loads are in flight at once.
template <class T, int N, int PACKS>
DEVICE void norm_kept(const NormArgs& args) {
    const int width = args.width;
    const size_t at = size_t(blockIdx.x) * width;
    const T* before = static_cast<const T*>(args.before);
    const T* weight = static_cast<const T*>(args.weight);
    float a[PACKS][N] = {}, b[PACKS][N] = {}, by[PACKS][N], to[PACKS][N];
    auto each = [&](auto body) {
#pragma unroll
        for (int p = 0; p < PACKS; p++) {
            const int i = (p * blockDim.x + threadIdx.x) * N;
            if (i < width) body(p, i);
        }
    };
    each([&](int p, int i) {
        load<N>(static_cast<const T*>(args.x) + at + i, a[p]);
        if (args.y) load<N>(static_cast<const T*>(args.y) + at + i, b[p]);
        if (before) load<N>(before + i, by[p]);
        if (weight) load<N>(weight + i, to[p]);
    });
    auto squares_kept = [&](const float(&x)[PACKS][N]) {
        float squares = 0.0f;
#pragma unroll
        for (int p = 0; p < PACKS; p++)
#pragma unroll
            for (int k = 0; k < N; k++) squares += x[p][k] * x[p][k];
        return squares;
    };
    if (args.y) {
        const float factor = before ? factor_of(squares_kept(b), width, args.before_eps) : 1.0f;
        each([&](int p, int i) {
#pragma unroll
            for (int k = 0; k < N; k++) {
                if (before) b[p][k] = widen(rounded<T>(b[p][k] * factor * by[p][k]));
                a[p][k] = widen(rounded<T>(a[p][k] + b[p][k]));
                if (args.scale != 1.0f) a[p][k] = widen(rounded<T>(a[p][k] * args.scale));
            }
            store<N>(a[p], static_cast<T*>(args.sum) + at + i);
        });
        if (!weight) return;
    }
    const float factor = factor_of(squares_kept(a), width, args.eps);
    each([&](int p, int i) {
#pragma unroll
        for (int k = 0; k < N; k++) a[p][k] = a[p][k] * factor * to[p][k];
        store<N>(a[p], static_cast<T*>(args.out) + at + i);
    });
}

template <class T>
DEVICE void norm(const NormArgs& args) {
    constexpr int N = WIDE<T>;
    if (!args.wide)
        norm_row<T, 1>(args);
    else if (args.width <= N * int(blockDim.x))
        norm_kept<T, N, 1>(args);
    else if (args.width <= 2 * N * int(blockDim.x))
        norm_kept<T, N, 2>(args);
    else
        norm_row<T, N>(args);
}

KERNEL_OF_TYPES(norm, 256, NormArgs, norm)
