// CUDA's execution model on a CPU, for tests: blocks run one after another, the threads of a block as fibers that take turns at
// barriers. It finds wrong arithmetic, wrong indices and wrong arguments, divergent barriers and, since threads run forwards or
// backwards between barriers, most races from a missing barrier. It is slow, which is acceptable.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

struct Dim3 {
    unsigned x, y, z;
};

extern thread_local Dim3 threadIdx, blockIdx, blockDim, gridDim;
extern thread_local unsigned char* shared_memory;

namespace emulate {

struct Launch {
    Dim3 grid, block;
    unsigned shared, backwards;
};

// A kernel: the most threads a block may have, the size of each parameter, and the function that each thread runs.
struct Entry {
    using Body = void (*)(const void* const* parameters);
    unsigned threads;
    std::vector<size_t> sizes;
    Body body;
};

// Enters a kernel into the table.
struct Kernel {
    Kernel(const char* name, Entry entry);
};

// The kernel with a given name, or null.
const Entry* find(const char* name);
// Runs a kernel: false if it does not support that many threads.
bool run(const Entry& kernel, const Launch& launch, const void* const* parameters);

// Wait until all threads of the block, or all lanes of the warp, are here.
void block_barrier();
void warp_barrier();
// Memory of the warp for its next exchange, 128 bytes per lane. It is reused by the exchange after the next; by then every lane
// has passed the barrier of the next.
unsigned char* warp_room();

// Copies sixteen bytes, which may arrive at once, or not before `copied`: at once in a forward launch, late in a backward one.
// Copies may be awaited in groups, in the order in which the groups end.
void copy_ahead(void* to, const void* from, bool there);
void copies_end();
void copied_but(unsigned late);
void copied();
// Ends the process if a 16-byte instruction has an unaligned address.
void aligned(const void* at);

inline unsigned lane() { return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32; }

inline float from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

inline uint32_t to_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

inline uint16_t to_bfloat(float x) {
    uint32_t bits = to_bits(x);
    if (x != x) return 0x7fff;
    return uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline float from_half(uint16_t h) {
    const int exponent = (h >> 10) & 31, mantissa = h & 1023;
    float x = exponent == 0    ? ldexpf(float(mantissa), -24)
              : exponent == 31 ? (mantissa ? NAN : INFINITY)
                               : ldexpf(float(mantissa + 1024), exponent - 25);
    return h & 0x8000 ? -x : x;
}

inline uint16_t to_half(float x) {
    const uint16_t sign = to_bits(x) >> 31 << 15;
    x = fabsf(x);
    if (x != x) return sign | 0x7fff;
    if (x >= 65520.0f) return sign | 0x7c00;
    int exponent;
    frexpf(x, &exponent); // x in [2^(exponent - 1), 2^exponent)
    const int unit = exponent - 11 < -24 ? -24 : exponent - 11;
    const float scaled = nearbyintf(ldexpf(x, -unit)); // to nearest, ties to even
    const float whole = ldexpf(scaled, unit);
    if (whole == 0) return sign;
    frexpf(whole, &exponent);
    if (exponent - 1 < -14) return sign | uint16_t(ldexpf(whole, 24));
    return sign | uint16_t((exponent + 14) << 10 | (int(ldexpf(whole, 11 - exponent)) & 1023));
}

template <class T>
T exchanged(T value, unsigned from) {
    static_assert(sizeof(T) <= 128, "a lane has 128 bytes");
    unsigned char* room = warp_room();
    memcpy(room + 128 * lane(), &value, sizeof(T));
    warp_barrier();
    memcpy(&value, room + 128 * (from % 32), sizeof(T));
    return value;
}

// `ldmatrix.x4` on 16-bit values.
inline void load_matrices(uint32_t (&out)[4], const void* row, bool transposed) {
    aligned(row);
    unsigned char* room = warp_room();
    memcpy(room + 128 * lane(), row, 16);
    warp_barrier();
    for (unsigned i = 0; i < 4; i++) {
        uint16_t pair[2];
        for (unsigned e = 0; e < 2; e++) {
            unsigned r = lane() / 4, c = lane() % 4 * 2 + e;
            if (transposed) r = c, c = lane() / 4;
            memcpy(&pair[e], room + 128 * (8 * i + r) + 2 * c, 2);
        }
        out[i] = pair[0] | uint32_t(pair[1]) << 16;
    }
}

// `mma.m16n8k16`: c += a b, each sum rounded once (a card rounds in between, in its own order).
template <class F>
void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, F widen) {
    const uint32_t registers[6] = {a[0], a[1], a[2], a[3], b0, b1};
    float mine[12];
    for (unsigned i = 0; i < 12; i++) mine[i] = widen(uint16_t(registers[i / 2] >> (i % 2 * 16)));
    unsigned char* room = warp_room();
    memcpy(room + 128 * lane(), mine, sizeof(mine));
    warp_barrier();
    // The value of a lane's fragment at (row or column of 8, k).
    auto value = [room](unsigned at, unsigned k, unsigned pair) {
        float x;
        memcpy(&x, room + 128 * (at * 4 + k % 8 / 2) + 4 * (2 * pair + k % 2), 4);
        return x;
    };
    for (unsigned i = 0; i < 4; i++) {
        double sum = c[i];
        for (unsigned k = 0; k < 16; k++)
            sum += double(value(lane() / 4, k, i / 2 + k / 8 * 2)) * value(lane() % 4 * 2 + i % 2, k, 4 + k / 8);
        c[i] = float(sum);
    }
}

} // namespace emulate

inline void __syncthreads() { emulate::block_barrier(); }
inline void __syncwarp(unsigned = ~0u) { emulate::warp_barrier(); }

template <class T>
T __shfl_xor_sync(unsigned, T value, int mask, int = 32) {
    return emulate::exchanged(value, emulate::lane() ^ unsigned(mask));
}

template <class T>
T __shfl_sync(unsigned, T value, int from) {
    return emulate::exchanged(value, unsigned(from));
}

template <class T>
T __shfl_up_sync(unsigned, T value, unsigned by) {
    const unsigned lane = emulate::lane();
    return emulate::exchanged(value, lane >= by ? lane - by : lane);
}

template <class T>
T __shfl_down_sync(unsigned, T value, unsigned by, int width = 32) {
    const unsigned lane = emulate::lane();
    return emulate::exchanged(value, lane % width + by < unsigned(width) ? lane + by : lane);
}

inline unsigned __ballot_sync(unsigned, bool predicate) {
    unsigned votes = 0;
    unsigned char* room = emulate::warp_room();
    room[128 * emulate::lane()] = predicate;
    emulate::warp_barrier();
    for (unsigned i = 0; i < 32; i++) votes |= unsigned(room[128 * i]) << i;
    return votes;
}

inline int __popc(unsigned x) { return __builtin_popcount(x); }

inline float __uint_as_float(uint32_t bits) { return emulate::from_bits(bits); }
inline uint32_t __float_as_uint(float x) { return emulate::to_bits(x); }

template <class T>
T min(T a, T b) {
    return b < a ? b : a;
}
template <class T>
T max(T a, T b) {
    return a < b ? b : a;
}
template <class T>
T atomicAdd(T* at, T value) {
    T old = *at;
    *at += value;
    return old;
}
