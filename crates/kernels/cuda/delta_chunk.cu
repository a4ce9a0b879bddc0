// The gated delta rule on long sequences, 64 tokens at a time, on tensor cores.
//
// With c the running sum of g since the chunk began, and S the state before it (arXiv 2412.06464):
//
//     u_i = beta_i (v_i - e^c_i S' k_i) - sum over j < i of A_ij u_j,   A_ij = beta_i (k_i k_j) e^(c_i - c_j)
//     z_i = e^c_i S' q_i + sum over j <= i of P_ij u_j,                 P_ij = (q_i k_j) e^(c_i - c_j)
//     S  <- e^c_end S + sum over j of e^(c_end - c_j) k_j u_j'
//
// The system for u is solved 16 tokens at a time: blocks below the diagonal are subtracted directly, those on it are inverted
// row by row in f32. All products are transposed: a warp has 16 columns of S, v, u and z as rows of its fragments, so that the
// output of one product is the next one's input in registers, and warps share only keys, queries, A and P.
//
// Keys, queries and values have the type T; any other operand enters a product as two values of T, its rounding and the remainder.
// So the chunked and the token-by-token form agree nearly as well as in f32, and their states can replace each other, as long as
// everything is in the type's range. A state or u beyond f16's 65504 becomes NaN here, and so does what a g of -inf gives, and a
// NaN also reaches earlier tokens of its 16. None of it goes unnoticed, because NaN logits are an error.
#include "delta.cuh"
#include "mma.cuh"

constexpr int CHUNK = 64, CHUNK_KEY = 128;
// Columns of the state per block: 16 for each of 4 warps.
constexpr int CHUNK_COLUMNS = 64;

// Rows are padded by 16 bytes, so that the 8 rows of a matrix are in different banks.
template <class T>
struct ChunkRoom {
    T k[CHUNK][CHUNK_KEY + 8];
    T q[CHUNK][CHUNK_KEY + 8];
    T v[CHUNK][CHUNK_COLUMNS + 8]; // later z
    T a[2][CHUNK][CHUNK + 8];      // -A below the diagonal blocks, the inverses of 1 + A in them; and the remainders
    T p[2][CHUNK][CHUNK + 8];      // P, and the remainders
    float diagonal[CHUNK / 16][16][17];
    float sum[2][CHUNK]; // c, and the remainders: differences of long sums would cancel
    float since[CHUNK];  // e^c
    float to_end[CHUNK]; // e^(c_end - c)
    float beta[CHUNK];
};

// Rows of a product's left operand, as a sum of two values of the type.
template <class T>
struct Halves {
    uint32_t high[4], low[4];

    // From the output of products: 8 columns each.
    DEVICE Halves(const float (&left)[4], const float (&right)[4]) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float* x = (i < 2 ? left : right) + i % 2 * 2;
            high[i] = paired(x[0], x[1], T());
            low[i] = paired(x[0] - of(high[i], 0), x[1] - of(high[i], 1), T());
        }
    }

    // One of the two values in a register.
    static DEVICE float of(uint32_t both, int which) { return widen(T{uint16_t(both >> (16 * which))}); }

    // c += this times the columns b, which have the type.
    DEVICE void times(float (&c)[4], uint32_t b0, uint32_t b1) const {
        multiply(c, high, b0, b1, T());
        multiply(c, low, b0, b1, T());
    }

    // The same if the columns are two values as well.
    DEVICE void times(float (&c)[4], uint32_t b0, uint32_t b1, uint32_t low0, uint32_t low1) const {
        times(c, b0, b1);
        multiply(c, high, low0, low1, T());
    }
};

// Writes two adjacent values, and their remainders.
template <class T, int WIDTH>
DEVICE void chunk_put(T (&to)[2][CHUNK][WIDTH], int row, int column, float x, float y) {
    const Pack<T, 2> high = {{rounded<T>(x), rounded<T>(y)}};
    *reinterpret_cast<Pack<T, 2>*>(&to[0][row][column]) = high;
    *reinterpret_cast<Pack<T, 2>*>(&to[1][row][column]) = {
        {rounded<T>(x - widen(high.x[0])), rounded<T>(y - widen(high.x[1]))}};
}

// Where a lane finds its row of the 16 x 16 block at `row`, `column`: for the left operand, or for columns of the right operand
// that are stored as rows.
template <class T, int WIDTH>
DEVICE const T* chunk_left(const T (&from)[CHUNK][WIDTH], int row, int column) {
    const int lane = threadIdx.x % 32;
    return &from[row + lane / 8 % 2 * 8 + lane % 8][column + lane / 16 * 8];
}

// For the right operand, or the other way round when transposed.
template <class T, int WIDTH>
DEVICE const T* chunk_right(const T (&from)[CHUNK][WIDTH], int row, int column) {
    const int lane = threadIdx.x % 32;
    return &from[row + lane / 16 * 8 + lane % 8][column + lane / 8 % 2 * 8];
}

// Multiplies what `left` has for the tokens of block `column` by A or P, for the tokens of block `row`: 8 tokens to each output.
template <class T, int WIDTH>
DEVICE void chunk_times(const Halves<T>& left, const T (&by)[2][CHUNK][WIDTH], int row, int column, float (&first)[4],
                        float (&second)[4]) {
    uint32_t right[4], low[4];
    load_matrices(right, chunk_right(by[0], 16 * row, 16 * column));
    load_matrices(low, chunk_right(by[1], 16 * row, 16 * column));
    left.times(first, right[0], right[1], low[0], low[1]);
    left.times(second, right[2], right[3], low[2], low[3]);
}

// The decays and betas of a chunk's tokens, computed by one warp. After the last token nothing decays and nothing is written.
template <class T>
DEVICE void chunk_decays(ChunkRoom<T>& room, const float* g, const float* beta, int step, int there) {
    const int lane = threadIdx.x % 32;
    double own[2], until = 0.0;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int token = 2 * lane + i;
        until = own[i] = until + (token < there ? g[int64_t(token) * step] : 0.0f);
        room.beta[token] = token < there ? beta[int64_t(token) * step] : 0.0f;
    }
#pragma unroll
    for (int i = 1; i < 32; i *= 2) {
        const double before = __shfl_up_sync(ALL, until, i);
        if (lane >= i) until += before;
    }
    const double end = __shfl_sync(ALL, until, 31), before = until - own[1];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int token = 2 * lane + i;
        const double c = before + own[i];
        room.sum[0][token] = float(c);
        room.sum[1][token] = float(c - float(c));
        room.since[token] = expf(float(c));
        room.to_end[token] = expf(float(end - c));
    }
}

// Keys (or queries) of block `row` times keys of block `column`, for tokens that come earlier or at the same time.
template <class T>
DEVICE void chunk_pairs(const ChunkRoom<T>& room, bool queries, int row, int column, float (&out)[2][4]) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int t = 0; t < 2; t++)
#pragma unroll
        for (int e = 0; e < 4; e++) out[t][e] = 0.0f;
#pragma unroll
    for (int d = 0; d < CHUNK_KEY; d += 16) {
        uint32_t left[4], right[4];
        load_matrices(left, chunk_left(queries ? room.q : room.k, 16 * row, d));
        load_matrices(right, chunk_right(room.k, 16 * column, d));
        multiply(out[0], left, right[0], right[1], T());
        multiply(out[1], left, right[2], right[3], T());
    }
#pragma unroll
    for (int t = 0; t < 2; t++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int i = 16 * row + lane / 4 + e / 2 * 8, j = 16 * column + 8 * t + lane % 4 * 2 + e % 2;
            const bool seen = queries ? j <= i : j < i;
            const float since = (room.sum[0][i] - room.sum[0][j]) + (room.sum[1][i] - room.sum[1][j]);
            out[t][e] = seen ? out[t][e] * (queries ? 1.0f : room.beta[i]) * expf(since) : 0.0f;
        }
}

// The inverse of a diagonal block of 1 + A, in its place.
template <class T>
DEVICE void chunk_inverse(ChunkRoom<T>& room, int block) {
    const int lane = threadIdx.x % 32, row = lane / 4, column = lane % 4 * 2;
    float own[2][4];
    chunk_pairs(room, false, block, block, own);
#pragma unroll
    for (int t = 0; t < 2; t++)
#pragma unroll
        for (int e = 0; e < 4; e++) room.diagonal[block][row + e / 2 * 8][8 * t + column + e % 2] = own[t][e];
    __syncwarp();
    // One lane per column.
    float x[16];
#pragma unroll
    for (int i = 0; i < 16; i++) {
        x[i] = i == lane ? 1.0f : 0.0f;
#pragma unroll
        for (int j = 0; j < i; j++) x[i] = fmaf(-room.diagonal[block][i][j], x[j], x[i]);
    }
    if (lane < 16) {
#pragma unroll
        for (int i = 0; i < 16; i++) {
            const T high = rounded<T>(x[i]);
            room.a[0][16 * block + i][16 * block + lane] = high;
            room.a[1][16 * block + i][16 * block + lane] = rounded<T>(x[i] - widen(high));
        }
    }
}

// One block per span, head and 64 columns of its state.
template <class T>
DEVICE void delta_chunk(const DeltaArgs& args) {
    ChunkRoom<T>& room = *reinterpret_cast<ChunkRoom<T>*>(shared_memory);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, heads = args.heads, dv = args.dv;
    const int tiles = dv / CHUNK_COLUMNS, tile = blockIdx.x % tiles, head = blockIdx.x / tiles % heads;
    const int* span = args.spans + 4 * int64_t(blockIdx.x / tiles / heads);
    const int len = span[1];
    if (len < args.chunked) return;
    const int64_t first = span[0], key_step = int64_t(args.key_heads) * CHUNK_KEY;
    const int64_t key = first * key_step + head / (heads / args.key_heads) * CHUNK_KEY;
    const T* keys = static_cast<const T*>(args.k) + key;
    const T* queries = static_cast<const T*>(args.q) + key;
    const T* values = static_cast<const T*>(args.v) + first * args.token + head * args.head + tile * CHUNK_COLUMNS;
    const float* g = args.g + first * heads + head;
    const float* beta = args.beta + first * heads + head;
    T* out = static_cast<T*>(args.out) + (first * heads + head) * dv + tile * CHUNK_COLUMNS + 16 * warp;
    // The lane's columns of the state are this one and the one 8 further on, its rows two of every 8.
    float* state = args.state + (int64_t(span[3]) * heads + head) * CHUNK_KEY * dv + tile * CHUNK_COLUMNS + 16 * warp +
                   lane / 4 + int64_t(lane % 4) * 2 * dv;
    float s[CHUNK_KEY / 8][4];
#pragma unroll
    for (int n = 0; n < CHUNK_KEY / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) s[n][e] = span[2] ? state[int64_t(8 * n + e % 2) * dv + e / 2 * 8] : 0.0f;

    for (int begin = 0; begin < len; begin += CHUNK) {
        const int there = min(CHUNK, len - begin);
        for (int i = threadIdx.x; i < CHUNK * CHUNK_KEY / 8; i += blockDim.x) {
            const int token = i / (CHUNK_KEY / 8), at = i % (CHUNK_KEY / 8) * 8;
            const int64_t from = (begin + min(token, there - 1)) * key_step + at;
            copy_ahead(&room.k[token][at], keys + from, token < there);
            copy_ahead(&room.q[token][at], queries + from, token < there);
        }
        for (int i = threadIdx.x; i < CHUNK * CHUNK_COLUMNS / 8; i += blockDim.x) {
            const int token = i / (CHUNK_COLUMNS / 8), at = i % (CHUNK_COLUMNS / 8) * 8;
            copy_ahead(&room.v[token][at], values + (begin + min(token, there - 1)) * args.token + at, token < there);
        }
        if (warp == 0) chunk_decays(room, g + int64_t(begin) * heads, beta + int64_t(begin) * heads, heads, there);
        copied();
        __syncthreads();

        // Each warp computes a diagonal block, and 4 of the 16 others of A and P.
        chunk_inverse(room, warp);
        for (int n = warp; n < 16; n += 4) {
            const bool below = n < 6;
            const int row = below ? 0x333221 >> 4 * n & 15 : int(0x3333222110 >> 4 * (n - 6) & 15);
            const int column = below ? 0x210100 >> 4 * n & 15 : int(0x3210210100 >> 4 * (n - 6) & 15);
            float pairs[2][4];
            chunk_pairs(room, !below, row, column, pairs);
#pragma unroll
            for (int t = 0; t < 2; t++)
#pragma unroll
                for (int e = 0; e < 4; e += 2) {
                    const int i = 16 * row + lane / 4 + e / 2 * 8, j = 16 * column + 8 * t + lane % 4 * 2;
                    if (below)
                        chunk_put(room.a, i, j, -pairs[t][e], -pairs[t][e + 1]);
                    else
                        chunk_put(room.p, i, j, pairs[t][e], pairs[t][e + 1]);
                }
        }
        __syncthreads();

        // The product of the state with each key and query: 8 tokens a fragment.
        float u[CHUNK / 8][4], z[CHUNK / 8][4];
#pragma unroll
        for (int t = 0; t < CHUNK / 8; t++)
#pragma unroll
            for (int e = 0; e < 4; e++) u[t][e] = z[t][e] = 0.0f;
#pragma unroll
        for (int d = 0; d < CHUNK_KEY / 16; d++) {
            const Halves<T> left(s[2 * d], s[2 * d + 1]);
#pragma unroll
            for (int b = 0; b < CHUNK / 16; b++) {
                uint32_t right[4];
                load_matrices(right, chunk_right(room.k, 16 * b, 16 * d));
                left.times(u[2 * b], right[0], right[1]);
                left.times(u[2 * b + 1], right[2], right[3]);
                load_matrices(right, chunk_right(room.q, 16 * b, 16 * d));
                left.times(z[2 * b], right[0], right[1]);
                left.times(z[2 * b + 1], right[2], right[3]);
            }
        }
#pragma unroll
        for (int b = 0; b < CHUNK / 16; b++) {
            uint32_t v[4];
            load_matrices_transposed(v, chunk_right(room.v, 16 * b, 16 * warp));
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const int t = 2 * b + i / 4, e = i % 4, token = 8 * t + lane % 4 * 2 + e % 2;
                const float value = Halves<T>::of(v[i / 2], i % 2);
                u[t][e] = room.beta[token] * fmaf(-room.since[token], u[t][e], value);
                z[t][e] *= room.since[token];
            }
        }
        // Forward, 16 tokens at a time: subtract what earlier ones have written, then apply the inverse of their own block.
#pragma unroll
        for (int b = 0; b < CHUNK / 16; b++) {
#pragma unroll
            for (int c = 0; c < b; c++) {
                const Halves<T> left(u[2 * c], u[2 * c + 1]);
                chunk_times(left, room.a, b, c, u[2 * b], u[2 * b + 1]);
            }
            const Halves<T> left(u[2 * b], u[2 * b + 1]);
            float solved[2][4] = {};
            chunk_times(left, room.a, b, b, solved[0], solved[1]);
#pragma unroll
            for (int i = 0; i < 8; i++) u[2 * b + i / 4][i % 4] = solved[i / 4][i % 4];
        }
        // What was written, as read by the same and later tokens, and as added to the state.
#pragma unroll
        for (int n = 0; n < CHUNK_KEY / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) s[n][e] *= room.since[CHUNK - 1];
#pragma unroll
        for (int c = 0; c < CHUNK / 16; c++) {
            {
                const Halves<T> left(u[2 * c], u[2 * c + 1]);
#pragma unroll
                for (int b = c; b < CHUNK / 16; b++) chunk_times(left, room.p, b, c, z[2 * b], z[2 * b + 1]);
            }
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const int t = 2 * c + i / 4;
                u[t][i % 4] *= room.to_end[8 * t + lane % 4 * 2 + i % 2];
            }
            const Halves<T> left(u[2 * c], u[2 * c + 1]);
#pragma unroll
            for (int d = 0; d < CHUNK_KEY / 16; d++) {
                uint32_t right[4];
                load_matrices_transposed(right, chunk_left(room.k, 16 * c, 16 * d));
                left.times(s[2 * d], right[0], right[1]);
                left.times(s[2 * d + 1], right[2], right[3]);
            }
        }
        // Through shared memory, so that a token's columns are written together: this is the warp's own part, which no other warp
        // reads and which its lanes have finished reading.
#pragma unroll
        for (int t = 0; t < CHUNK / 8; t++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                narrow(z[t][e], room.v[8 * t + lane % 4 * 2 + e % 2][16 * warp + lane / 4 + e / 2 * 8]);
        __syncwarp();
#pragma unroll
        for (int i = 0; i < CHUNK / 16; i++) {
            const int token = 16 * i + lane / 2, at = lane % 2 * 8;
            const Pack<T, 8> pack = *reinterpret_cast<const Pack<T, 8>*>(&room.v[token][16 * warp + at]);
            if (token < there)
                *reinterpret_cast<Pack<T, 8>*>(out + int64_t(begin + token) * heads * dv + at) = pack;
        }
        // The next chunk is loaded where this one is read.
        __syncthreads();
    }
#pragma unroll
    for (int n = 0; n < CHUNK_KEY / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) state[int64_t(8 * n + e % 2) * dv + e / 2 * 8] = s[n][e];
}

KERNEL(delta_chunk_bf16, 128, DeltaArgs, delta_chunk<bf16>)
KERNEL(delta_chunk_f16, 128, DeltaArgs, delta_chunk<f16>)
