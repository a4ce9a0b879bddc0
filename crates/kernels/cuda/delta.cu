// The gated delta rule, token by token, with the state in registers.
//
// Columns of the state know nothing of each other, so a warp has some of them and all their rows: it waits for no other, and
// the sums over rows are shuffles, always in the same order. A step of one token reads each state once and writes it once,
// 16 bytes a lane and instruction. All 8 KiB of a warp are on their way at once, 96 KiB on a multiprocessor with its 12 warps;
// at 4.3 TB/s, half of it reads, some 16 KiB hide a latency of a microsecond.
//
// A token costs 4 instructions for each element of the state, 65536 a head of 128 x 128. Long sequences of bf16 and f16 go in
// chunks, on tensor cores (`delta_chunk.cu`); in f32 those would be slower than this, or coarser.
#include "delta.cuh"

// A thread's share of the state: 4 columns, and of every `4 * groups` rows 4 beside each other, this many times.
constexpr int DELTA_FOURS = 4;

template <class T, int groups, bool wide>
DEVICE void delta_columns(const DeltaArgs& args) {
    constexpr int across = 32 / groups; // lanes side by side
    const int lane = threadIdx.x % 32, group = lane / across, dk = args.dk, dv = args.dv, heads = args.heads;
    const int tiles = (dv + 4 * across - 1) / (4 * across);
    const int64_t job = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
    const int tile = int(job % tiles), head = int(job / tiles % heads);
    const int64_t number = job / tiles / heads;
    if (number > args.span_count) return;
    const int column = 4 * (tile * across + lane % across), columns = dv - column;
    T* out = static_cast<T*>(args.out) + int64_t(head) * dv + column;
    const int64_t out_token = int64_t(heads) * dv;

    // The tokens of no span before this one, and behind the last.
    Pack<int, 4> span = {{args.n, 0, 0, 0}}, before = {};
    if (number < args.span_count) span = reinterpret_cast<const Pack<int, 4>*>(args.spans)[number];
    if (number > 0) before = reinterpret_cast<const Pack<int, 4>*>(args.spans)[number - 1];
    const int first = span.x[0], len = span.x[1];
    const float zeros[4] = {};
    for (int token = before.x[0] + before.x[1] + group; token < first; token += groups)
        put_four<wide>(zeros, out + token * out_token, columns);
    if (len == 0 || len >= args.chunked) return;

    // Rows of the `b`th four.
    auto row = [&](int b) { return 4 * (b * groups + group); };
    float* state = args.state + (int64_t(span.x[3]) * heads + head) * dk * dv + column;
    float s[4 * DELTA_FOURS][4];
#pragma unroll
    for (int b = 0; b < DELTA_FOURS; b++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const bool there = span.x[2] != 0 && row(b) + i < dk;
            const Pack<float, 4> pack = four<wide>(state + int64_t(row(b) + i) * dv, there ? columns : 0);
#pragma unroll
            for (int c = 0; c < 4; c++) s[4 * b + i][c] = pack.x[c];
        }

    // Keys and queries of two tokens, which the warp's lanes bring together: [2][k, q][most].
    constexpr int most = 4 * DELTA_FOURS * groups, loads = (most + 127) / 128;
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
        const float* q = k + most;
        const float decay = expf(g_next), beta = beta_next;
        float seen[4] = {}, u[4], z[4] = {};
#pragma unroll
        for (int c = 0; c < 4; c++) u[c] = widen(v_next.x[c]);
        // The next token's values come while this one is worked on.
        if (t + 1 < len) fetch(first + t + 1);
#pragma unroll
        for (int b = 0; b < DELTA_FOURS; b++) {
            float key[4];
            load<4>(k + row(b), key);
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int c = 0; c < 4; c++) seen[c] = fmaf(key[i], s[4 * b + i][c], seen[c]);
        }
#pragma unroll
        for (int c = 0; c < 4; c++) {
#pragma unroll
            for (int i = across; i < 32; i *= 2) seen[c] += __shfl_xor_sync(ALL, seen[c], i);
            u[c] = beta * fmaf(-decay, seen[c], u[c]);
        }
#pragma unroll
        for (int b = 0; b < DELTA_FOURS; b++) {
            float key[4], query[4];
            load<4>(k + row(b), key);
            load<4>(q + row(b), query);
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int c = 0; c < 4; c++) {
                    float& at = s[4 * b + i][c];
                    at = fmaf(key[i], u[c], decay * at);
                    z[c] = fmaf(query[i], at, z[c]);
                }
        }
#pragma unroll
        for (int c = 0; c < 4; c++)
#pragma unroll
            for (int i = across; i < 32; i *= 2) z[c] += __shfl_xor_sync(ALL, z[c], i);
        if (group == 0) put_four<wide>(z, out + (first + t) * out_token, columns);
        // The other half of the room was read a token ago.
        if (t + 1 < len) keep(room + (t + 1) % 2 * 2 * most);
        __syncwarp();
    }
    // The addresses are worked out again: kept since the loads, they would take the registers of a third block.
    int stride = dv;
    asm volatile("" : "+r"(stride));
#pragma unroll
    for (int r = 0; r < 4 * DELTA_FOURS; r++) {
        const int at = row(r / 4) + r % 4;
        if (at < dk) put_four<wide>(s[r], state + int64_t(at) * stride, columns);
    }
}

template <class T, int groups>
DEVICE void delta_of(const DeltaArgs& args) {
    if (args.wide)
        delta_columns<T, groups, true>(args);
    else
        delta_columns<T, groups, false>(args);
}

// Keys of up to 32, 128 and 256 values.
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

// Launched with 128 threads; declared for 384, they get the registers that three such blocks have.
KERNEL_OF_TYPES(delta_32, 384, DeltaArgs, delta_32)
KERNEL_OF_TYPES(delta_128, 384, DeltaArgs, delta_128)
KERNEL_OF_TYPES(delta_256, 384, DeltaArgs, delta_256)
