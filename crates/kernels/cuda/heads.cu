// Heads out of a fused projection: normalised, turned by their position, and put where they go; and the angles that they turn by.
#include "common.cuh"

// Some heads of each token, and what becomes of them.
struct HeadsPart {
    const void* x;      // token `i`, head `h` begins at `i * token + h * head`
    const void* weight; // [dim], or null: no norm
    void* out;          // [n, heads, dim], or [cache rows, heads, dim]
    int64_t token, head;
    int heads;
    int turned; // by the angles of their token
    int cached; // their place is that of the token in the cache
    float eps;
};

struct HeadsArgs {
    HeadsPart parts[3];
    const void* cos;  // [n, half], or null: nothing is turned
    const void* sin;
    const int* spans; // [spans, 4]: first token, tokens, start, cache row; or null
    int n, heads, dim, half, span_count; // `heads` of all parts
};

// The cache row of a token, -1 if no span has it.
DEVICE int64_t row_of(const HeadsArgs& args, int token) {
    const int* span = span_of(args.spans, args.span_count, token);
    return span ? int64_t(span[3]) + span[2] + token - span[0] : -1;
}

// A warp for a head of a token.
template <class T>
DEVICE void heads(const HeadsArgs& args) {
    const int64_t job = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
    const int lane = threadIdx.x % 32, dim = args.dim;
    if (job >= int64_t(args.n) * args.heads) return;
    const int token = int(job / args.heads);
    int head = int(job % args.heads), number = 0;
    while (head >= args.parts[number].heads) head -= args.parts[number++].heads;
    const HeadsPart& part = args.parts[number];
    const int64_t row = part.cached ? row_of(args, token) : token;
    if (row < 0) return;
    const int half = part.turned ? args.half : 0;
    const T* x = static_cast<const T*>(part.x) + token * part.token + head * part.head;
    T* out = static_cast<T*>(part.out) + (row * part.heads + head) * dim;
    const T* weight = static_cast<const T*>(part.weight);
    const float factor = weight ? over_rms(x, dim, part.eps) : 1.0f;
    auto normed = [&](int i) {
        // Rounded in between, as where norm and turning are operations of their own.
        return weight ? widen(rounded<T>(widen(x[i]) * factor * widen(weight[i]))) : widen(x[i]);
    };
    const T* cos = static_cast<const T*>(args.cos) + int64_t(token) * half;
    const T* sin = static_cast<const T*>(args.sin) + int64_t(token) * half;
    for (int i = lane; i < half; i += 32) {
        const float a = normed(i), b = normed(i + half), c = widen(cos[i]), s = widen(sin[i]);
        out[i] = rounded<T>(a * c - b * s);
        out[i + half] = rounded<T>(b * c + a * s);
    }
    for (int i = 2 * half + lane; i < dim; i += 32) out[i] = rounded<T>(normed(i));
}

KERNEL_OF_TYPES(heads, 128, HeadsArgs, heads)

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
