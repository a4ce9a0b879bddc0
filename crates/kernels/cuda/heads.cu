// Heads out of a fused projection: normalised, turned by their position, and put where they go.
#include "common.cuh"

struct HeadsArgs {
    const void* x;      // token `i`, head `h` begins at `i * token + h * head`
    const void* weight; // [dim], or null: no norm
    const void* cos;    // [n, half], or null: no turning
    const void* sin;
    const int* spans;   // [spans, 4]: first token, tokens, start, cache row; or null
    void* out;          // [n, heads, dim], or [cache rows, heads, dim]
    int64_t token, head;
    int n, heads, dim, half, span_count;
    float eps;
};

// The cache row of a token, -1 if no span has it.
DEVICE int64_t row_of(const HeadsArgs& args, int token) {
    if (!args.spans) return token;
    const int* span = span_of(args.spans, args.span_count, token);
    return span ? int64_t(span[3]) + span[2] + token - span[0] : -1;
}

// A warp for a head of a token.
template <class T>
DEVICE void heads(const HeadsArgs& args) {
    const int64_t job = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
    const int lane = threadIdx.x % 32, dim = args.dim, half = args.half;
    if (job >= int64_t(args.n) * args.heads) return;
    const int token = int(job / args.heads), head = int(job % args.heads);
    const int64_t row = row_of(args, token);
    if (row < 0) return;
    const T* x = static_cast<const T*>(args.x) + token * args.token + head * args.head;
    T* out = static_cast<T*>(args.out) + (row * args.heads + head) * dim;
    const T* weight = static_cast<const T*>(args.weight);
    float factor = 1.0f;
    if (weight) {
        float squares = 0.0f;
        for (int i = lane; i < dim; i += 32) squares += widen(x[i]) * widen(x[i]);
        factor = 1.0f / sqrtf(sum_lanes(squares) / dim + args.eps);
    }
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
