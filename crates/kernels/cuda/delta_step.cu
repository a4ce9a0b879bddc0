// A whole delta net between its convolution and its output projection, if every sequence advances by one token: the gates, the
// norms of keys and queries, the rule, and the gated norm with λ. Each gives the same bits as its own kernel.
#include "delta.cuh"
#include "gate.cuh"
#include "mma.cuh"

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
    int wide; // widths, strides and addresses are multiples of four values
    float q_eps, k_eps, eps;
};

// The span of a token; it has 0 tokens if there is none. If every sequence advances by one token, a token and its span mostly
// have the same index, and one load replaces a search: no state can be requested before the span is known.
DEVICE Pack<int, 4> delta_step_span(const int* spans, int count, int token) {
    const Pack<int, 4>* rows = reinterpret_cast<const Pack<int, 4>*>(spans);
    if (token < count) {
        const Pack<int, 4> span = rows[token];
        if (span.x[0] == token && span.x[1] > 0) return span;
    }
    const int* found = span_of(spans, count, token);
    return found ? *reinterpret_cast<const Pack<int, 4>*>(found) : Pack<int, 4>{};
}

// One block per head of a token, one warp for some columns of its state.
//
// The state waits in shared memory, not in registers: three blocks of 256 threads then fit on a multiprocessor, with 192 KiB in
// flight at once, and while one begins or ends the others keep the memory busy. A lane uses only what it copied itself, without
// a barrier. All other loads are issued right after the state's.
template <class T, int groups, bool wide>
DEVICE void delta_step_head(const DeltaStepArgs& args) {
    using Columns = DeltaColumns<groups, wide>;
    constexpr int most = Columns::MOST, rows = 4 * Columns::FOURS, each = (most + 31) / 32;
    const int dk = args.dk, dv = args.dv, heads = args.heads;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    const int token = blockIdx.x / heads, head = blockIdx.x % heads;
    T* out = static_cast<T*>(args.out) + int64_t(blockIdx.x) * dv;
    const Pack<int, 4> span = delta_step_span(args.spans, args.span_count, token);
    if (span.x[1] == 0) {
        for (int i = threadIdx.x; i < dv; i += blockDim.x) out[i] = rounded<T>(0.0f);
        return;
    }
    // The state, [warps][rows][lanes]; the key and the query, [k, q][most]; and the output of the rule, [dv], as its own kernel
    // would store it.
    Pack<float, 4>* held = reinterpret_cast<Pack<float, 4>*>(shared_memory) + warp * rows * 32 + lane;
    float* room = reinterpret_cast<float*>(shared_memory) + warps * rows * 128;
    T* made = reinterpret_cast<T*>(room + 2 * most);

    const int column = Columns::column(warp), columns = dv - column;
    float* state = args.state + (int64_t(span.x[3]) * heads + head) * dk * dv + column;
    // One by one if they are not multiples of four: all at once, they would take registers that nothing else needs.
#pragma unroll(wide ? rows : 1)
    for (int r = 0; r < rows; r++) {
        const int at = Columns::row(r / 4) + r % 4;
        const bool there = span.x[2] != 0 && at < dk && columns > 0;
        if (wide)
            copy_ahead(held + 32 * r, state + int64_t(at) * dv, there);
        else
            held[32 * r] = four<wide>(state + int64_t(at) * dv, there ? columns : 0);
    }
    const int key_head = head / (heads / args.key_heads);
    const T* q = static_cast<const T*>(args.qkv) + token * args.token + key_head * dk;
    const T* k = q + args.key_heads * dk;
    const T* v = static_cast<const T*>(args.qkv) + token * args.token + 2 * args.key_heads * dk + head * dv + column;
    const T* gates = static_cast<const T*>(args.gate) + token * args.gate_token + int64_t(head) * dv + column;
    const Pack<T, 4> value = four<wide>(v, columns), gate = four<wide>(gates, columns);
    const Pack<float, 4> weight = four<wide>(args.weight + column, columns);
    const float lambda = args.lambda ? args.lambda[blockIdx.x] : 1.0f;
    const float b = widen(static_cast<const T*>(args.b)[token * args.b_token + head]);
    const float a = widen(static_cast<const T*>(args.a)[token * args.a_token + head]);
    const float rate = args.decay[head], bias = args.bias[head];

    // One warp handles the key, another the query, as `over_rms` does.
#pragma unroll 1
    for (int which = warp; which < 2; which += warps) {
        const T* from = which == 0 ? k : q;
        const T* by = static_cast<const T*>(which == 0 ? args.k_weight : args.q_weight);
        float x[each], w[each], squares = 0.0f;
#pragma unroll
        for (int j = 0; j < each; j++) {
            const int i = lane + 32 * j;
            x[j] = i < dk ? widen(from[i]) : 0.0f;
            w[j] = i < dk ? widen(by[i]) : 0.0f;
        }
#pragma unroll
        for (int j = 0; j < each; j++) squares += x[j] * x[j];
        const float factor = over_root(sum_lanes(squares) / dk, which == 0 ? args.k_eps : args.q_eps);
#pragma unroll
        for (int j = 0; j < each; j++) room[which * most + lane + 32 * j] = widen(rounded<T>(x[j] * factor * w[j]));
    }
    const float beta = delta_beta(b), decay = expf(delta_log_decay(a, rate, bias));
    float u[4], z[4] = {};
#pragma unroll
    for (int c = 0; c < 4; c++) u[c] = widen(value.x[c]);
    __syncthreads();
    copied();
    auto at = [&](int r) { return held[32 * r]; };
    Columns::template recall<2>(room, decay, beta, u, at);
    Columns::template renew<2>(room, room + most, decay, u, z, at, [&](int r, const Pack<float, 4>& row) {
        const int to = Columns::row(r / 4) + r % 4;
        if (to < dk) put_four<wide>(row.x, state + int64_t(to) * dv, columns);
    });
    if (Columns::group() == 0) put_four<wide>(z, made + column, columns);
    __syncthreads();
    // Each warp sums all squares, in the same order, and writes its own columns.
    const float factor = gated_norm_factor<T, wide>(made, dv, args.eps);
    if (Columns::group() != 0) return;
    Pack<T, 4> own;
#pragma unroll
    for (int c = 0; c < 4; c++) narrow(z[c], own.x[c]);
    gated_norm_four(own, factor, weight, gate, lambda, z);
    put_four<wide>(z, out + column, columns);
}

template <class T, int groups>
DEVICE void delta_step_of(const DeltaStepArgs& args) {
    if (args.wide)
        delta_step_head<T, groups, true>(args);
    else
        delta_step_head<T, groups, false>(args);
}

// For keys of up to 32, 128 and 256 values.
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

// Launched with at most 256 threads but declared for 768, they get the registers that three such blocks share.
KERNEL_OF_TYPES(delta_step_32, 768, DeltaStepArgs, delta_step_32)
KERNEL_OF_TYPES(delta_step_128, 768, DeltaStepArgs, delta_step_128)
KERNEL_OF_TYPES(delta_step_256, 768, DeltaStepArgs, delta_step_256)
