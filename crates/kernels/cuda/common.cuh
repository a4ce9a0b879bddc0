// Shared by all kernels: number types, vectors of them, reductions, and how a kernel is declared.
//
// The same files are compiled by nvcc for the GPU and, in tests, by the host's C++ compiler on top of
// `emulate.h` of the stand-in driver. So everything here is plain C++ plus the few CUDA built-ins that it provides.
#pragma once

#include <stdint.h>

#ifdef __CUDACC__
#define DEVICE __device__ __forceinline__
// Dynamic shared memory; the launch sets its size.
extern __shared__ __align__(16) unsigned char shared_memory[];
#else
#include "emulate.h"
#define DEVICE inline
#endif

// The upper half of a 32-bit float, and an IEEE half float: for storage only, arithmetic is in f32.
struct bf16 {
    uint16_t bits;
};
struct f16 {
    uint16_t bits;
};

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
DEVICE float widen(f16 x) { return __half2float(__ushort_as_half(x.bits)); }
DEVICE void narrow(float x, f16& out) { out.bits = __half_as_ushort(__float2half_rn(x)); }
DEVICE void narrow(float x, bf16& out) { out.bits = __bfloat16_as_ushort(__float2bfloat16_rn(x)); }
DEVICE float widen(bf16 x) { return __uint_as_float(uint32_t(x.bits) << 16); }
#else
DEVICE float widen(f16 x) { return emulate::from_half(x.bits); }
DEVICE void narrow(float x, f16& out) { out.bits = emulate::to_half(x); }
DEVICE void narrow(float x, bf16& out) { out.bits = emulate::to_bfloat(x); }
DEVICE float widen(bf16 x) { return emulate::from_bits(uint32_t(x.bits) << 16); }
#endif
DEVICE float widen(float x) { return x; }
DEVICE void narrow(float x, float& out) { out = x; }

template <class T>
DEVICE T rounded(float x) {
    T out;
    narrow(x, out);
    return out;
}

// Values moved by one instruction: 16 bytes of them where addresses and counts allow.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
    T x[N];
};

template <int N, class T>
DEVICE void load(const T* from, float (&out)[N]) {
    Pack<T, N> pack = *reinterpret_cast<const Pack<T, N>*>(from);
#pragma unroll
    for (int i = 0; i < N; i++) out[i] = widen(pack.x[i]);
}

template <int N, class T>
DEVICE void store(const float (&from)[N], T* to) {
    Pack<T, N> pack;
#pragma unroll
    for (int i = 0; i < N; i++) narrow(from[i], pack.x[i]);
    *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

// The values in four bytes. For two bf16 they are the word's halves as they are.
DEVICE void values_of(uint32_t word, const float*, float* out) { out[0] = __uint_as_float(word); }
DEVICE void values_of(uint32_t word, const bf16*, float* out) {
    out[0] = __uint_as_float(word << 16), out[1] = __uint_as_float(word & 0xffff0000u);
}
DEVICE void values_of(uint32_t word, const f16*, float* out) {
    out[0] = widen(f16{uint16_t(word)}), out[1] = widen(f16{uint16_t(word >> 16)});
}

// Values waiting in registers: 16-bit values are packed two per register, which separate variables would not be.
template <class T, int N>
struct Words {
    static constexpr int EACH = 4 / int(sizeof(T)), COUNT = N / EACH;
    uint32_t x[COUNT];

    DEVICE static Words at(const T* from) {
        const Pack<T, N> pack = *reinterpret_cast<const Pack<T, N>*>(from);
        Words words;
        memcpy(&words, &pack, sizeof(words));
        return words;
    }

    DEVICE static Words of(const float (&from)[N]) {
        Pack<T, N> pack;
        Words words;
#pragma unroll
        for (int i = 0; i < N; i++) narrow(from[i], pack.x[i]);
        memcpy(&words, &pack, sizeof(words));
        return words;
    }

    DEVICE void values(float (&out)[N]) const {
#pragma unroll
        for (int i = 0; i < COUNT; i++) values_of(x[i], static_cast<const T*>(nullptr), out + i * EACH);
    }
};

// Four values at `from`, of which `count` exist; the others are 0. With `wide`, either all exist or none do, and one instruction
// moves them.
template <bool wide, class T>
DEVICE Pack<T, 4> four(const T* from, int count) {
    Pack<T, 4> pack = {};
    if (wide) {
        if (count > 0) pack = *reinterpret_cast<const Pack<T, 4>*>(from);
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (i < count) pack.x[i] = from[i];
    }
    return pack;
}

template <bool wide, class T>
DEVICE void put_four(const float (&from)[4], T* to, int count) {
    if (wide) {
        if (count > 0) store<4>(from, to);
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (i < count) narrow(from[i], to[i]);
    }
}

DEVICE float silu(float x) { return x / (1.0f + expf(-x)); }

// The number of T values in 16 bytes.
template <class T>
constexpr int WIDE = 16 / int(sizeof(T));

constexpr unsigned ALL = 0xffffffffu;

// The sum over groups of `width` lanes, in every lane, always in the same order.
template <int width = 32, class T>
DEVICE T sum_lanes(T x) {
#pragma unroll
    for (int i = width / 2; i > 0; i /= 2) x += __shfl_xor_sync(ALL, x, i);
    return x;
}

template <int width = 32>
DEVICE float max_lanes(float x) {
#pragma unroll
    for (int i = width / 2; i > 0; i /= 2) x = fmaxf(x, __shfl_xor_sync(ALL, x, i));
    return x;
}

// One over the root of a mean square plus `eps`. NaN if the sum of squares is not finite: 0 would turn finite values into zeros,
// which would go unnoticed.
DEVICE float over_root(float mean, float eps) { return (1.0f + 0.0f * mean) / sqrtf(mean + eps); }

// The same for `dim` values, computed by a warp.
template <class T>
DEVICE float over_rms(const T* x, int dim, float eps) {
    float squares = 0.0f;
    for (int i = threadIdx.x % 32; i < dim; i += 32) squares += widen(x[i]) * widen(x[i]);
    return over_root(sum_lanes(squares) / dim, eps);
}

// The sum over a block of whole warps, in every thread. `room` holds one float per warp; the block is synchronised before and
// after.
DEVICE float sum_block(float x, float* room) {
    const int warps = blockDim.x / 32, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    x = sum_lanes(x);
    if (lane == 0) room[warp] = x;
    __syncthreads();
    x = 0.0f;
    for (int i = 0; i < warps; i++) x += room[i];
    __syncthreads();
    return x;
}

// The span that a token belongs to, or null. Spans are rows of first token, tokens, start and place, in ascending order.
DEVICE const int* span_of(const int* spans, int count, int token) {
    // The last span that does not begin after the token.
    int low = 0, high = count;
    while (low < high) {
        const int middle = (low + high) / 2;
        if (spans[4 * middle] <= token)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0) return nullptr;
    const int* span = spans + 4 * (low - 1);
    return token - span[0] < span[1] ? span : nullptr;
}

// Among `count` non-decreasing values, the index of the last that is at most `most`, or -1; computed by a warp, whose lanes
// test 32 values at once.
template <class F>
DEVICE int last_at_most(int most, int count, F value) {
    // Values before `low` are at most `most`, those from `high` on are not.
    int low = 0, high = count;
    while (low < high) {
        const int step = (high - low + 31) / 32, at = low + int(threadIdx.x % 32) * step;
        const int found = __popc(__ballot_sync(ALL, at < high && value(at) <= most));
        high = min(high, low + found * step);
        if (found > 0) low += (found - 1) * step + 1;
    }
    return low - 1;
}

// The spans where a warp looks first for that of a token, loaded before they are needed: one span per lane, around the token's own
// index, which is its span's index if each sequence advances by one token.
struct SpansAround {
    int begin;
    Pack<int, 4> span; // this lane's span

    DEVICE void look(const int* spans, int count, int token) {
        begin = min(max(token - 16, 0), max(count - 32, 0));
        const int mine = begin + threadIdx.x % 32;
        if (mine < count) span = reinterpret_cast<const Pack<int, 4>*>(spans)[mine];
    }

    // What `span_of` finds, in all lanes, which share one token; has no tokens if there is no such span.
    DEVICE Pack<int, 4> find(const int* spans, int count, int token) const {
        const bool mine = begin + int(threadIdx.x % 32) < count;
        const int found = __popc(__ballot_sync(ALL, mine && span.x[0] <= token));
        Pack<int, 4> out = {};
        if (found > 0 ? found < 32 || begin + 32 == count : begin == 0) {
#pragma unroll
            for (int i = 0; i < 4; i++) out.x[i] = __shfl_sync(ALL, span.x[i], max(found - 1, 0));
            if (found == 0) out.x[1] = 0;
        } else {
            const int last = last_at_most(token, count, [&](int i) { return spans[4 * i]; });
            if (last >= 0) out = reinterpret_cast<const Pack<int, 4>*>(spans)[last];
        }
        if (token - out.x[0] >= out.x[1]) out.x[1] = 0;
        return out;
    }
};

// Declares a kernel `NAME` that runs `BODY` on its arguments, a struct passed by value. The launch passes the size of its own
// struct, so that a mismatch with the kernel's cannot go unnoticed.
#ifdef __CUDACC__
#define KERNEL(NAME, THREADS, ARGS, ...) \
    extern "C" __global__ void __launch_bounds__(THREADS) NAME(const __grid_constant__ ARGS args) { __VA_ARGS__(args); }
#else
// The declaration only reserves the name, so that no other kernel can have it.
#define KERNEL(NAME, THREADS, ARGS, ...)                                                             \
    extern "C" void NAME(const ARGS args);                                                           \
    static const emulate::Kernel NAME##_kernel(#NAME, {THREADS, {sizeof(ARGS)}, [](const void* const* args) { \
        __VA_ARGS__(*static_cast<const ARGS*>(*args));                                                \
    }});
#endif

// The same for each activation type.
#define KERNEL_OF_TYPES(NAME, THREADS, ARGS, BODY)    \
    KERNEL(NAME##_f32, THREADS, ARGS, BODY<float>)    \
    KERNEL(NAME##_bf16, THREADS, ARGS, BODY<bf16>)    \
    KERNEL(NAME##_f16, THREADS, ARGS, BODY<f16>)
