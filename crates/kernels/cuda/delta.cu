// The gated delta rule, token by token, with the state in registers.
//
// A step of one token reads and writes each state once, 16 bytes per lane and instruction. All 8 KiB of a warp are in flight at
// once, 96 KiB on a multiprocessor with its 12 warps; at 4.3 TB/s, half of it reads, some 16 KiB hide a latency of a
// microsecond.
//
// A token costs 4 instructions per element of the state, 65536 per head of 128 x 128. Long sequences of bf16 and f16 go in
// chunks, on tensor cores (`delta_chunk.cu`); in f32, chunks would be slower than this, or less accurate.
#include "delta.cuh"

template <class T, int groups, bool wide>
DEVICE void delta_columns(const DeltaArgs& args) {
    using Columns = DeltaColumns<groups, wide>;
    const int lane = threadIdx.x % 32, group = Columns::group(), dk = args.dk, dv = args.dv, heads = args.heads;
    const int tiles = (dv + 4 * Columns::ACROSS - 1) / (4 * Columns::ACROSS);
    const int64_t job = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
    const int head = int(job / tiles % heads);
    const int64_t number = job / tiles / heads;
    if (number > args.span_count) return;
    const int column = Columns::column(int(job % tiles)), columns = dv - column;
    T* out = static_cast<T*>(args.out) + int64_t(head) * dv + column;
    const int64_t out_token = int64_t(heads) * dv;

    // Also zeroes the tokens of no span before this one, or after the last one.
    Pack<int, 4> span = {{args.n, 0, 0, 0}}, before = {};
    if (number < args.span_count) span = reinterpret_cast<const Pack<int, 4>*>(args.spans)[number];
    if (number > 0) before = reinterpret_cast<const Pack<int, 4>*>(args.spans)[number - 1];
    const int first = span.x[0], len = span.x[1];
    const float zeros[4] = {};
    for (int token = before.x[0] + before.x[1] + group; token < first; token += groups)
        put_four<wide>(zeros, out + token * out_token, columns);
    if (len == 0 || len >= args.chunked) return;

    float* state = args.state + (int64_t(span.x[3]) * heads + head) * dk * dv + column;
    Columns mine;
    mine.read(state, span.x[2] != 0, dk, dv, columns);

    // Keys and queries of two tokens, loaded jointly by the warp's lanes: [2][k, q][most].
    constexpr int most = Columns::MOST, loads = (most + 127) / 128;
    float* room = reinterpret_cast<float*>(shared_memory) + threadIdx.x / 32 * 4 * most;
    const int key_head = head / (heads / args.key_heads);
    Pack<T, 4> k_next[loads], q_next[loads], v_next;
    float g_next, beta_next;
    auto fetch = [&](int token) {
        const int64_t key = (int64_t(token) * args.key_heads + key_head) * dk;
#pragma unroll
        for (int j = 0; j < loads; j++) {
            const int at = 4 * lane + 128 * j;
            k_next[j] = four<wide>(static_cast<const T*>(args.k) + key + at, dk - at);
            q_next[j] = four<wide>(static_cast<const T*>(args.q) + key + at, dk - at);
        }
        v_next = four<wide>(static_cast<const T*>(args.v) + token * args.token + head * args.head + column, columns);
        g_next = args.g[int64_t(token) * heads + head];
        beta_next = args.beta[int64_t(token) * heads + head];
    };
    auto keep = [&](float* to) {
#pragma unroll
        for (int j = 0; j < loads; j++) {
            const int at = 4 * lane + 128 * j;
            if (at >= most) continue;
            Pack<float, 4> k, q;
#pragma unroll
            for (int i = 0; i < 4; i++) k.x[i] = widen(k_next[j].x[i]), q.x[i] = widen(q_next[j].x[i]);
            *reinterpret_cast<Pack<float, 4>*>(to + at) = k;
            *reinterpret_cast<Pack<float, 4>*>(to + most + at) = q;
        }
    };
    fetch(first);
    keep(room);
    __syncwarp();
    for (int t = 0; t < len; t++) {
        const float* k = room + t % 2 * 2 * most;
        const float decay = expf(g_next), beta = beta_next;
        float u[4], z[4] = {};
#pragma unroll
        for (int c = 0; c < 4; c++) u[c] = widen(v_next.x[c]);
        // The next token's values load while this one is processed.
        if (t + 1 < len) fetch(first + t + 1);
        mine.turn(k, k + most, decay, beta, u, z);
        if (group == 0) put_four<wide>(z, out + (first + t) * out_token, columns);
        // The other half of `room` was last read for the previous token.
        if (t + 1 < len) keep(room + (t + 1) % 2 * 2 * most);
        __syncwarp();
    }
    mine.write(state, dk, dv, columns);
}

template <class T, int groups>
DEVICE void delta_of(const DeltaArgs& args) {
    if (args.wide)
        delta_columns<T, groups, true>(args);
    else
        delta_columns<T, groups, false>(args);
}

// For keys of up to 32, 128 and 256 values.
template <class T>
DEVICE void delta_32(const DeltaArgs& args) {
    delta_of<T, 2>(args);
}
template <class T>
DEVICE void delta_128(const DeltaArgs& args) {
    delta_of<T, 8>(args);
}
template <class T>
DEVICE void delta_256(const DeltaArgs& args) {
    delta_of<T, 16>(args);
}

// Launched with 128 threads but declared for 384, they get the registers that three such blocks share.
KERNEL_OF_TYPES(delta_32, 384, DeltaArgs, delta_32)
KERNEL_OF_TYPES(delta_128, 384, DeltaArgs, delta_128)
KERNEL_OF_TYPES(delta_256, 384, DeltaArgs, delta_256)
