// Gated activations, and soft-capped logits: one value in, one value out.
#include "common.cuh"

struct GateMulArgs {
    const void* gate; // rows of `width`, `gate_step` values apart
    const void* up;   // the same, `up_step` apart
    void* out;        // [rows, width]
    int64_t rows;
    int64_t gate_step, up_step;
    int width;
    int gelu; // else silu
    int wide; // addresses, steps and width are multiples of whole packs
};

// The tanh form (transformers `gelu_pytorch_tanh`).
DEVICE float gelu(float x) {
    const float inner = 0.797884560802865355879892f * (x + 0.044715f * x * x * x);
    return 0.5f * x * (1.0f + tanhf(inner));
}

// Each thread handles one pack in several rows.
template <class T, int N>
DEVICE void gate_mul_by(const GateMulArgs& args) {
    const int column = (blockIdx.x * blockDim.x + threadIdx.x) * N;
    if (column >= args.width) return;
    for (int64_t row = blockIdx.y; row < args.rows; row += gridDim.y) {
        float gate[N], up[N];
        load<N>(static_cast<const T*>(args.gate) + row * args.gate_step + column, gate);
        load<N>(static_cast<const T*>(args.up) + row * args.up_step + column, up);
#pragma unroll
        for (int k = 0; k < N; k++) {
            // Rounded in between, as if the two were separate operations.
            const float active = args.gelu ? gelu(gate[k]) : silu(gate[k]);
            gate[k] = widen(rounded<T>(active)) * up[k];
        }
        store<N>(gate, static_cast<T*>(args.out) + row * args.width + column);
    }
}

template <class T>
DEVICE void gate_mul(const GateMulArgs& args) {
    if (args.wide)
        gate_mul_by<T, WIDE<T>>(args);
    else
        gate_mul_by<T, 1>(args);
}

KERNEL_OF_TYPES(gate_mul, 128, GateMulArgs, gate_mul)

struct SoftcapArgs {
    const float* x; // [count]
    float* out;     // [count]
    int64_t count;
    float cap;
    int wide; // addresses are multiples of four values
};

// Each thread handles four values.
template <bool wide>
DEVICE void softcap_four(const SoftcapArgs& args) {
    const int64_t i = 4 * (int64_t(blockIdx.x) * blockDim.x + threadIdx.x);
    if (i >= args.count) return;
    const int there = int(min(args.count - i, int64_t(4)));
    // At the end of a count that is not a multiple of four, four values must not be moved at once.
    const Pack<float, 4> x = there == 4 ? four<wide>(args.x + i, 4) : four<false>(args.x + i, there);
    float capped[4];
    // tanh would make a plausible logit of an infinite one: its product with 0 is NaN.
#pragma unroll
    for (int c = 0; c < 4; c++) capped[c] = args.cap * tanhf(x.x[c] / args.cap) + 0.0f * x.x[c];
    if (there == 4)
        put_four<wide>(capped, args.out + i, 4);
    else
        put_four<false>(capped, args.out + i, there);
}

DEVICE void softcap_fours(const SoftcapArgs& args) {
    if (args.wide)
        softcap_four<true>(args);
    else
        softcap_four<false>(args);
}

KERNEL(softcap, 256, SoftcapArgs, softcap_fours)
