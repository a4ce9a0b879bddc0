// Statistics of rows over ranges of tokens: norms and means, summed token by token independently of what else is computed.
#include "common.cuh"

struct RangesArgs {
    const void* x;     // [n, heads, dim]
    const int* ranges; // [ranges, 4]: first token, tokens; the other two are unused
    float* norms;      // [ranges, heads]: the mean L2 norm, or null
    float* last_norms; // [ranges, heads]: the norm at the last token, or null as those are
    float* means;      // [ranges, heads, dim], or null
    int heads, dim;
};

// Norms that are buffered before they are summed.
constexpr int RANGES_NORMS = 128;

// One block per range, head and part of its columns.
template <class T>
DEVICE void over_ranges(const RangesArgs& args) {
    const int* range = args.ranges + 4 * int64_t(blockIdx.x);
    const int len = range[1], dim = args.dim;
    const int64_t place = int64_t(blockIdx.x) * args.heads + blockIdx.y, step = int64_t(args.heads) * dim;
    const T* x = static_cast<const T*>(args.x) + range[0] * step + int64_t(blockIdx.y) * dim;
    // As on the host, where statistics are collected during generation: in order from 0, times one over the number.
    const float share = float(1.0 / len);
    if (args.norms && blockIdx.z == 0) {
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
        float* room = reinterpret_cast<float*>(shared_memory);
        float sum = 0.0f, last = 0.0f;
        for (int begin = 0; begin < len; begin += RANGES_NORMS) {
            const int end = min(begin + RANGES_NORMS, len);
            for (int t = begin + warp; t < end; t += warps) {
                float squares = 0.0f;
                for (int i = lane; i < dim; i += 32) squares = fmaf(widen(x[t * step + i]), widen(x[t * step + i]), squares);
                squares = sum_lanes(squares);
                if (lane == 0) room[t - begin] = sqrtf(squares);
            }
            __syncthreads();
            if (threadIdx.x == 0)
                for (int t = begin; t < end; t++) sum += last = room[t - begin];
            __syncthreads();
        }
        if (threadIdx.x == 0) args.norms[place] = sum * share, args.last_norms[place] = last;
    }
    const int column = blockIdx.z * blockDim.x + threadIdx.x;
    if (!args.means || column >= dim) return;
    float sum = 0.0f;
#pragma unroll 8
    for (int t = 0; t < len; t++) sum += widen(x[t * step + column]);
    args.means[place * dim + column] = sum * share;
}

KERNEL_OF_TYPES(over_ranges, 128, RangesArgs, over_ranges)
