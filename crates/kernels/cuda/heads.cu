// Heads of a fused projection: normalised, rotated by position, and written to their destination; and the rotary angles.
#include "common.cuh"

// Some heads of each token, and what is done to them.
struct HeadsPart {
    const void* x;      // token `i`, head `h` begins at `i * token + h * head`
    const void* weight; // [dim], or null: no norm
    void* out;          // [n, heads, dim], or [cache rows, heads, dim]
    int64_t token, head;
    int heads;
    int turned; // rotated by the angles of their token
    int cached; // written to the token's row in the cache
    float eps;
};

struct HeadsArgs {
    HeadsPart parts[3];
    const void* cos;  // [n, half], or null: nothing is rotated
    const void* sin;
    const int* spans; // [spans, 4]: first token, tokens, start, cache row; or null
    int heads, dim, half, span_count; // `heads` of all parts
};

// The cache row of a token, -1 if no span has it; computed by a warp.
DEVICE int64_t row_of(const HeadsArgs& args, int token, const SpansAround& around) {
    const Pack<int, 4> span = around.find(args.spans, args.span_count, token);
    return span.x[1] > 0 ? int64_t(span.x[3]) + span.x[2] + token - span.x[0] : -1;
}

// A value rotated with its partner. For the first of the two, the caller negates the sine.
DEVICE float turned(float own, float other, float cos, float sin) { return fmaf(own, cos, other * sin); }

// Any heads: a row of blocks per token, a warp per head.
template <class T>
DEVICE void heads(const HeadsArgs& args) {
    const int token = blockIdx.x, lane = threadIdx.x % 32, dim = args.dim;
    int head = blockIdx.y * (blockDim.x / 32) + threadIdx.x / 32, number = 0;
    if (head >= args.heads) return;
    while (head >= args.parts[number].heads) head -= args.parts[number++].heads;
    const HeadsPart& part = args.parts[number];
    int64_t row = token;
    if (part.cached) {
        SpansAround around = {};
        around.look(args.spans, args.span_count, token);
        row = row_of(args, token, around);
    }
    if (row < 0) return;
    const int half = part.turned ? args.half : 0;
    const T* x = static_cast<const T*>(part.x) + token * part.token + head * part.head;
    T* out = static_cast<T*>(part.out) + (row * part.heads + head) * dim;
    const T* weight = static_cast<const T*>(part.weight);
    const float factor = weight ? over_rms(x, dim, part.eps) : 1.0f;
    auto normed = [&](int i) {
        // Rounded in between, as if norm and rotation were separate operations.
        return weight ? widen(rounded<T>(widen(x[i]) * factor * widen(weight[i]))) : widen(x[i]);
    };
    const T* cos = static_cast<const T*>(args.cos) + int64_t(token) * half;
    const T* sin = static_cast<const T*>(args.sin) + int64_t(token) * half;
    for (int i = lane; i < half; i += 32) {
        const float a = normed(i), b = normed(i + half), c = widen(cos[i]), s = widen(sin[i]);
        out[i] = rounded<T>(turned(a, b, c, -s));
        out[i + half] = rounded<T>(turned(b, a, c, s));
    }
    for (int i = 2 * half + lane; i < dim; i += 32) out[i] = rounded<T>(normed(i));
}

KERNEL_OF_TYPES(heads, 128, HeadsArgs, heads)

// Rotates the first `apart` rows of a head with those `apart` further on; does nothing if there are not enough rows.
template <class T, int apart, int rows, int each>
DEVICE void turn_rows(float (&v)[rows][each], const Words<T, each> (&cos)[rows / 2], const Words<T, each> (&sin)[rows / 2]) {
    if constexpr (2 * apart <= rows) {
#pragma unroll
        for (int k = 0; k < apart; k++) {
            float c[each], s[each];
            cos[k].values(c), sin[k].values(s);
#pragma unroll
            for (int e = 0; e < each; e++) {
                const float a = v[k][e], b = v[k + apart][e];
                v[k][e] = turned(a, b, c[e], -s[e]);
                v[k + apart][e] = turned(b, a, c[e], s[e]);
            }
        }
    }
}

// Heads of `rows` times 32 values: a row of blocks per token, whose warps take turns. A lane has one word of each 32 values, so that
// it sums the same values as lanes of `over_rms`, to the bit, and has both values of each rotated pair; together the lanes still
// read whole lines. A warp takes as many heads of a part as fit its lanes, and issues all the loads they need before it waits
// for any of them.
template <class T, int rows>
DEVICE void heads_in_rows(const HeadsArgs& args) {
    constexpr int each = 4 / sizeof(T), lanes = 32 / each, dim = 32 * rows;
    using Word = Words<T, each>;
    const int token = blockIdx.x, lane = threadIdx.x % lanes, half = args.half / 32, warps = blockDim.x / 32;
    bool found = false;
    int64_t row = -1;
    int turn = blockIdx.y * warps + threadIdx.x / 32;
#pragma unroll 1
    for (int i = 0; i < 3; i++) {
        const HeadsPart part = args.parts[i];
        const int turns = (part.heads + each - 1) / each;
        for (; turn < turns; turn += gridDim.y * warps) {
            const int head = turn * each + threadIdx.x % 32 / lanes;
            const bool there = head < part.heads;
            Word x[rows] = {}, weight[rows] = {}, cos[rows / 2] = {}, sin[rows / 2] = {};
            if (there) {
                const T* from = static_cast<const T*>(part.x) + token * part.token + head * part.head + lane * each;
#pragma unroll
                for (int k = 0; k < rows; k++) x[k] = Word::at(from + 32 * k);
            }
            if (part.weight) {
                const T* from = static_cast<const T*>(part.weight) + lane * each;
#pragma unroll
                for (int k = 0; k < rows; k++) weight[k] = Word::at(from + 32 * k);
            }
            if (part.turned) {
                const int64_t at = int64_t(token) * args.half + lane * each;
#pragma unroll
                for (int k = 0; k < rows / 2; k++) {
                    if (k >= half) continue;
                    cos[k] = Word::at(static_cast<const T*>(args.cos) + at + 32 * k);
                    sin[k] = Word::at(static_cast<const T*>(args.sin) + at + 32 * k);
                }
            }
            SpansAround around = {};
            const bool search = part.cached && !found;
            if (search) around.look(args.spans, args.span_count, token);
            float v[rows][each];
#pragma unroll
            for (int k = 0; k < rows; k++) x[k].values(v[k]);
            if (part.weight) {
                float sum[each] = {};
#pragma unroll
                for (int e = 0; e < each; e++) {
#pragma unroll
                    for (int k = 0; k < rows; k++) sum[e] += v[k][e] * v[k][e];
                    sum[e] = sum_lanes<lanes>(sum[e]);
                }
                const float squares = each == 2 ? sum[0] + sum[each - 1] : sum[0];
                const float factor = over_root(squares / dim, part.eps);
#pragma unroll
                for (int k = 0; k < rows; k++) {
                    float w[each];
                    weight[k].values(w);
#pragma unroll
                    for (int e = 0; e < each; e++) v[k][e] = v[k][e] * factor * w[e];
                    Word::of(v[k]).values(v[k]);
                }
            }
            if (part.turned) {
                if (half == 1) turn_rows<T, 1>(v, cos, sin);
                if (half == 2) turn_rows<T, 2>(v, cos, sin);
                if (half == 4) turn_rows<T, 4>(v, cos, sin);
                if (half == 8) turn_rows<T, 8>(v, cos, sin);
            }
            if (search) row = row_of(args, token, around), found = true;
            const int64_t to = part.cached ? row : token;
            if (!there || to < 0) continue;
            T* out = static_cast<T*>(part.out) + (to * part.heads + head) * dim + lane * each;
#pragma unroll
            for (int k = 0; k < rows; k++) store<each>(v[k], out + 32 * k);
        }
        turn -= turns;
    }
}

template <class T>
DEVICE void heads_64(const HeadsArgs& args) {
    heads_in_rows<T, 2>(args);
}
template <class T>
DEVICE void heads_128(const HeadsArgs& args) {
    heads_in_rows<T, 4>(args);
}
template <class T>
DEVICE void heads_256(const HeadsArgs& args) {
    heads_in_rows<T, 8>(args);
}
template <class T>
DEVICE void heads_512(const HeadsArgs& args) {
    heads_in_rows<T, 16>(args);
}

KERNEL_OF_TYPES(heads_64, 128, HeadsArgs, heads_64)
KERNEL_OF_TYPES(heads_128, 128, HeadsArgs, heads_128)
KERNEL_OF_TYPES(heads_256, 128, HeadsArgs, heads_256)
KERNEL_OF_TYPES(heads_512, 128, HeadsArgs, heads_512)

struct AnglesArgs {
    const uint32_t* positions; // [n]
    const float* frequencies;  // [half]
    void* cos;                 // [n, half]
    void* sin;                 // [n, half]
    int n, half;
};

template <class T>
DEVICE void angles(const AnglesArgs& args) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= int64_t(args.n) * args.half) return;
    const float angle = float(args.positions[i / args.half]) * args.frequencies[i % args.half];
    static_cast<T*>(args.cos)[i] = rounded<T>(cosf(angle));
    static_cast<T*>(args.sin)[i] = rounded<T>(sinf(angle));
}

KERNEL_OF_TYPES(angles, 256, AnglesArgs, angles)
