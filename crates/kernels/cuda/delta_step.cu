// All of a delta net between its convolution and its output projection, where every sequence goes on by one token: the gates,
// the norms of keys and queries, the rule, and the gated norm with λ. Each is what its own kernel makes, to the bit.
#include "delta.cuh"
#include "gate.cuh"

struct DeltaStepArgs {
    const void* qkv;  // token `i` begins at `i * token`: queries and keys [key_heads, dk], values [heads, dv]
    const void* b;    // token `i` begins at `i * b_token`
    const void* a;
    const void* gate;
    const void* q_weight; // [dk], of the norms
    const void* k_weight;
    const float* decay;  // [heads]
    const float* bias;   // [heads]
    const float* weight; // [dv], of the norm at the end
    const float* lambda; // [n, heads], or null
    float* state;        // [slots, heads, dk, dv]
    const int* spans;    // [spans, 4]: first token, at most one token, start, slot
    void* out;           // [n, heads, dv]
    int64_t token, b_token, a_token, gate_token;
    int span_count, key_heads, heads, dk, dv;
    int wide; // widths, strides and addresses are whole fours
    float q_eps, k_eps, eps;
};

// A block for a head of a token, a warp for some columns of its state. Nothing but the end waits for other warps, so that each
// makes keys and queries for itself, while its state is on its way.
template <class T, int groups, bool wide>
DEVICE void delta_step_head(const DeltaStepArgs& args) {
    using Columns = DeltaColumns<groups, wide>;
    constexpr int most = Columns::MOST;
    const int token = blockIdx.x, head = blockIdx.y, dk = args.dk, dv = args.dv, heads = args.heads;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int64_t place = int64_t(token) * heads + head;
    T* out = static_cast<T*>(args.out) + place * dv;
    const int* span = span_of(args.spans, args.span_count, token);
    if (!span) {
        for (int i = threadIdx.x; i < dv; i += blockDim.x) out[i] = rounded<T>(0.0f);
        return;
    }
    const int column = Columns::column(warp), columns = dv - column;
    float* state = args.state + (int64_t(span[3]) * heads + head) * dk * dv + column;
    Columns mine;
    mine.read(state, span[2] != 0, dk, dv, columns);

    const int key_head = head / (heads / args.key_heads);
    const T* q = static_cast<const T*>(args.qkv) + token * args.token + key_head * dk;
    const T* k = q + args.key_heads * dk;
    const T* v = static_cast<const T*>(args.qkv) + token * args.token + 2 * args.key_heads * dk + head * dv + column;
    // [warps][k, q][most], and what the rule gives, [dv], as its own kernel would leave it.
    float* room = reinterpret_cast<float*>(shared_memory) + warp * 2 * most;
    T* made = reinterpret_cast<T*>(reinterpret_cast<float*>(shared_memory) + blockDim.x / 32 * 2 * most);
    auto normed = [&](const T* x, const void* weight, float eps, float* to) {
        const T* by = static_cast<const T*>(weight);
        const float factor = over_rms(x, dk, eps);
        for (int i = lane; i < most; i += 32)
            to[i] = i < dk ? widen(rounded<T>(widen(x[i]) * factor * widen(by[i]))) : 0.0f;
    };
    normed(k, args.k_weight, args.k_eps, room);
    normed(q, args.q_weight, args.q_eps, room + most);
    const float beta = delta_beta(widen(static_cast<const T*>(args.b)[token * args.b_token + head]));
    const float a = widen(static_cast<const T*>(args.a)[token * args.a_token + head]);
    const float decay = expf(delta_log_decay(a, args.decay[head], args.bias[head]));
    const Pack<T, 4> value = four<wide>(v, columns);
    float u[4], z[4] = {};
#pragma unroll
    for (int c = 0; c < 4; c++) u[c] = widen(value.x[c]);
    __syncwarp();
    mine.turn(room, room + most, decay, beta, u, z);
    if (Columns::group() == 0) put_four<wide>(z, made + column, columns);
    mine.write(state, dk, dv, columns);
    __syncthreads();
    if (warp != 0) return;
    const T* gate = static_cast<const T*>(args.gate) + token * args.gate_token + int64_t(head) * dv;
    const float lambda = args.lambda ? args.lambda[place] : 1.0f;
    gated_norm_head<T, wide>(made, gate, args.weight, out, dv, args.eps, lambda);
}

template <class T, int groups>
DEVICE void delta_step_of(const DeltaStepArgs& args) {
    if (args.wide)
        delta_step_head<T, groups, true>(args);
    else
        delta_step_head<T, groups, false>(args);
}

// Keys of up to 32, 128 and 256 values.
template <class T>
DEVICE void delta_step_32(const DeltaStepArgs& args) {
    delta_step_of<T, 2>(args);
}
template <class T>
DEVICE void delta_step_128(const DeltaStepArgs& args) {
    delta_step_of<T, 8>(args);
}
template <class T>
DEVICE void delta_step_256(const DeltaStepArgs& args) {
    delta_step_of<T, 16>(args);
}

// Launched with at most 256 threads; declared for 512, they get the registers that two such blocks have.
KERNEL_OF_TYPES(delta_step_32, 512, DeltaStepArgs, delta_step_32)
KERNEL_OF_TYPES(delta_step_128, 512, DeltaStepArgs, delta_step_128)
KERNEL_OF_TYPES(delta_step_256, 512, DeltaStepArgs, delta_step_256)
