// The gates of a delta net and of attention, and sums: operations on independent rows and values.
#include "gate.cuh"

struct DeltaGatesArgs {
    const void* b; // token `i` begins at `i * b_token`
    const void* a;
    const float* decay; // [heads]
    const float* bias;  // [heads]
    float* beta;        // [n, heads]
    float* g;           // [n, heads]
    int64_t b_token, a_token;
    int n, heads;
};

template <class T>
DEVICE void delta_gates(const DeltaGatesArgs& args) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= int64_t(args.n) * args.heads) return;
    const int64_t token = i / args.heads;
    const int head = int(i % args.heads);
    args.beta[i] = delta_beta(widen(static_cast<const T*>(args.b)[token * args.b_token + head]));
    const float a = widen(static_cast<const T*>(args.a)[token * args.a_token + head]);
    args.g[i] = delta_log_decay(a, args.decay[head], args.bias[head]);
}

KERNEL_OF_TYPES(delta_gates, 256, DeltaGatesArgs, delta_gates)

// Heads and their gates.
struct GatedArgs {
    const void* x; // token `i`, head `h` begins at `i * x_token + h * x_head`
    const void* gate;
    const float* weight; // [dim], of the norm
    const float* lambda; // [n, heads], or null
    void* out;           // [n, heads, dim]
    int64_t x_token, x_head, gate_token, gate_head;
    int n, heads, dim;
    int wide; // widths, strides and addresses are multiples of four values
    float eps;
};

// One warp per head of a token.
template <class T, bool wide>
DEVICE void gated_norm_head(const GatedArgs& args) {
    const int64_t job = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
    if (job >= int64_t(args.n) * args.heads) return;
    const int64_t token = job / args.heads, head = job % args.heads;
    const T* x = static_cast<const T*>(args.x) + token * args.x_token + head * args.x_head;
    const T* gate = static_cast<const T*>(args.gate) + token * args.gate_token + head * args.gate_head;
    T* out = static_cast<T*>(args.out) + job * args.dim;
    const float lambda = args.lambda ? args.lambda[job] : 1.0f;
    const float factor = gated_norm_factor<T, wide>(x, args.dim, args.eps);
    for (int i = 4 * (threadIdx.x % 32); i < args.dim; i += 128) {
        const int there = args.dim - i;
        float z[4];
        gated_norm_four(four<wide>(x + i, there), factor, four<wide>(args.weight + i, there), four<wide>(gate + i, there),
                        lambda, z);
        put_four<wide>(z, out + i, there);
    }
}

template <class T>
DEVICE void gated_norm(const GatedArgs& args) {
    if (args.wide)
        gated_norm_head<T, true>(args);
    else
        gated_norm_head<T, false>(args);
}

KERNEL_OF_TYPES(gated_norm, 128, GatedArgs, gated_norm)

// Each thread handles four values of a head.
template <class T, bool wide>
DEVICE void sigmoid_gate_four(const GatedArgs& args) {
    const int dim = args.dim, fours = (dim + 3) / 4;
    const int64_t job = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, row = job / fours;
    if (row >= int64_t(args.n) * args.heads) return;
    const int i = 4 * int(job % fours);
    const int64_t token = row / args.heads, head = row % args.heads;
    const Pack<T, 4> x =
        four<wide>(static_cast<const T*>(args.x) + token * args.x_token + head * args.x_head + i, dim - i);
    const Pack<T, 4> gate =
        four<wide>(static_cast<const T*>(args.gate) + token * args.gate_token + head * args.gate_head + i, dim - i);
    float y[4];
#pragma unroll
    for (int c = 0; c < 4; c++) {
        // Rounded in between, as if the two were separate operations.
        y[c] = widen(x.x[c]) * widen(rounded<T>(1.0f / (1.0f + expf(-widen(gate.x[c])))));
    }
    put_four<wide>(y, static_cast<T*>(args.out) + row * dim + i, dim - i);
}

template <class T>
DEVICE void sigmoid_gate(const GatedArgs& args) {
    if (args.wide)
        sigmoid_gate_four<T, true>(args);
    else
        sigmoid_gate_four<T, false>(args);
}

KERNEL_OF_TYPES(sigmoid_gate, 256, GatedArgs, sigmoid_gate)

struct AddArgs {
    const void* x; // [count]
    const void* y; // [count]
    void* out;     // [count]
    int64_t count;
    int wide; // addresses are multiples of four values
};

// Each thread handles four values.
template <class T, bool wide>
DEVICE void add_four(const AddArgs& args) {
    const int64_t i = 4 * (int64_t(blockIdx.x) * blockDim.x + threadIdx.x);
    if (i >= args.count) return;
    const int there = int(min(args.count - i, int64_t(4)));
    const Pack<T, 4> x = four<wide>(static_cast<const T*>(args.x) + i, there);
    const Pack<T, 4> y = four<wide>(static_cast<const T*>(args.y) + i, there);
    float sum[4];
#pragma unroll
    for (int c = 0; c < 4; c++) sum[c] = widen(x.x[c]) + widen(y.x[c]);
    put_four<wide>(sum, static_cast<T*>(args.out) + i, there);
}

template <class T>
DEVICE void add(const AddArgs& args) {
    if (args.wide)
        add_four<T, true>(args);
    else
        add_four<T, false>(args);
}

KERNEL_OF_TYPES(add, 256, AddArgs, add)
