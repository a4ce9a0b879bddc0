// Causal attention of packed sequences against their caches.
#include "mma.cuh"

// Keys that one block of the decode forms reads, counted from the first that its query sees: fixed, so that a token's bits do
// not depend on its batch.
constexpr int ATTEND_SPLIT = 512;

// Where no key was seen yet. Finite, so that a score of -inf is 0 behind it and not inf - inf.
constexpr float ATTEND_NONE = -3e38f;

constexpr float LOG2_E = 1.4426950408889634f;

DEVICE float power_of_two(float x) {
#ifdef __CUDACC__
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return exp2f(x);
#endif
}

// Of the decode forms: one query at a time. What differs between spans is in their table alone.
struct AttendArgs {
    const void* q;       // [n, heads, dim]
    const void* k;       // [cache rows, kv, dim]
    const void* v;       // [cache rows, kv, dim]
    const int* spans;    // [spans, 4]: first token, tokens, start, cache row
    const float* lambda; // [n, heads], or null
    void* out;           // [n, heads, dim]
    float* sums;         // [jobs, heads, splits, dim]; null where no query has more than one split
    float* tops;         // [jobs, heads, splits, 2]: the largest score and the sum of weights
    int heads, kv, dim;
    int window;     // 0: none
    int splits;     // of the longest
    int span_count;
    int first;      // the first job of this launch
    int each;       // a job is a token; else a span, and spans of more than one token are not served
    int stripes;    // warps that share the keys of the same heads, where there are no tensor cores for the type
    float scale;
};

// A query: its token, and the keys from `from` to before `to`, whose position 0 lies in row `cache`.
struct AttendJob {
    int64_t token, cache;
    int from, to;
};

DEVICE bool attend_job(const AttendArgs& args, AttendJob& job) {
    const int index = args.first + blockIdx.x;
    const int* span = args.each ? span_of(args.spans, args.span_count, index) : args.spans + 4 * int64_t(index);
    if (!span || (!args.each && span[1] != 1)) return false;
    const int behind = args.each ? index - span[0] : 0;
    job.token = span[0] + behind;
    job.cache = span[3];
    job.to = span[2] + behind + 1;
    job.from = args.window && job.to > args.window ? job.to - args.window : 0;
    return true;
}

// A lane's share of a key or value as it was read, 16 bytes at a time; small rows leave lanes for more keys.
template <class T, int DIM>
struct AttendRow {
    static constexpr int LANES = DIM / WIDE<T> < 32 ? DIM / WIDE<T> : 32;
    static constexpr int PACKS = DIM / (WIDE<T> * LANES);
    static constexpr int VALUES = PACKS * WIDE<T>;
    // Keys that a lane has in flight, and as many values.
    static constexpr int AHEAD = 4 / PACKS;
    Pack<T, WIDE<T>> packs[PACKS];

    DEVICE void read(const T* row, int part, int) {
#pragma unroll
        for (int p = 0; p < PACKS; p++)
            packs[p] = reinterpret_cast<const Pack<T, WIDE<T>>*>(row)[p * LANES + part];
    }

    DEVICE void get(float (&x)[VALUES]) const {
#pragma unroll
        for (int i = 0; i < VALUES; i++) x[i] = widen(packs[i / WIDE<T>].x[i % WIDE<T>]);
    }

    static DEVICE void put(const float (&x)[VALUES], float* row, int part, int) {
#pragma unroll
        for (int i = 0; i < VALUES; i += 4) {
            const float four[4] = {x[i], x[i + 1], x[i + 2], x[i + 3]};
            store<4>(four, row + (i / WIDE<T> * LANES + part) * WIDE<T> + i % WIDE<T>);
        }
    }
};

// The same for any size up to 512: value by value.
template <class T>
struct AttendRow<T, 0> {
    static constexpr int LANES = 32, VALUES = 16, AHEAD = 1;
    T values[VALUES];

    DEVICE void read(const T* row, int part, int dim) {
#pragma unroll
        for (int i = 0; i < VALUES; i++) values[i] = 32 * i + part < dim ? row[32 * i + part] : rounded<T>(0.0f);
    }

    DEVICE void get(float (&x)[VALUES]) const {
#pragma unroll
        for (int i = 0; i < VALUES; i++) x[i] = widen(values[i]);
    }

    static DEVICE void put(const float (&x)[VALUES], float* row, int part, int dim) {
#pragma unroll
        for (int i = 0; i < VALUES; i++)
            if (32 * i + part < dim) row[32 * i + part] = x[i];
    }
};

// A block for a query, a key/value head and a split of the keys. A warp works for HEADS query heads on every `stripes`th
// step of keys; where a group has more heads, other warps of the block read the same keys at the same time, from the L1.
template <class T, int DIM, int HEADS>
DEVICE void attend_one(const AttendArgs& args) {
    using Row = AttendRow<T, DIM>;
    constexpr int LANES = Row::LANES, VALUES = Row::VALUES, AHEAD = Row::AHEAD, KEYS = 32 / LANES;
    AttendJob job;
    if (!attend_job(args, job)) return;
    const int begin = job.from + int(blockIdx.z) * ATTEND_SPLIT;
    if (begin >= job.to) return;
    const int end = min(begin + ATTEND_SPLIT, job.to);
    const int dim = DIM ? DIM : args.dim;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, part = lane % LANES;
    const int stripes = args.stripes, slots = blockDim.x / 32 / stripes;
    const int group = args.heads / args.kv, chunks = (group + HEADS - 1) / HEADS;
    const int64_t step = int64_t(args.kv) * dim;
    const int64_t origin = job.cache * step + int64_t(blockIdx.y) * dim;
    const T* keys = static_cast<const T*>(args.k) + origin;
    const T* values = static_cast<const T*>(args.v) + origin;
    const int64_t head0 = job.token * args.heads + int64_t(blockIdx.y) * group;
    // Of each warp: a vector, the largest score and the sum of weights for each of its heads.
    float* vectors = reinterpret_cast<float*>(shared_memory);
    float* tops = vectors + blockDim.x / 32 * HEADS * dim;
    for (int pass = 0; pass < chunks; pass += slots) {
        const int chunk = pass + warp / stripes;
        if (chunk < chunks) {
            float q[HEADS][VALUES], mixed[HEADS][VALUES], top[HEADS], sum[HEADS];
#pragma unroll
            for (int h = 0; h < HEADS; h++) {
                Row row;
                row.read(static_cast<const T*>(args.q) + (head0 + min(chunk * HEADS + h, group - 1)) * dim, part, dim);
                row.get(q[h]);
                top[h] = ATTEND_NONE;
                sum[h] = 0.0f;
#pragma unroll
                for (int i = 0; i < VALUES; i++) q[h][i] *= args.scale * LOG2_E, mixed[h][i] = 0.0f;
            }
            const int stride = stripes * KEYS;
            for (int i = begin + warp % stripes * KEYS; i < end; i += stride * AHEAD) {
                Row key[AHEAD], value[AHEAD];
                const int mine = i + lane / LANES;
#pragma unroll
                for (int u = 0; u < AHEAD; u++)
                    key[u].read(keys + min(mine + u * stride, end - 1) * step, part, dim);
#pragma unroll
                for (int u = 0; u < AHEAD; u++)
                    value[u].read(values + min(mine + u * stride, end - 1) * step, part, dim);
                float score[AHEAD][HEADS];
#pragma unroll
                for (int u = 0; u < AHEAD; u++) {
                    float x[VALUES];
                    key[u].get(x);
#pragma unroll
                    for (int h = 0; h < HEADS; h++) {
                        float dot = 0.0f;
#pragma unroll
                        for (int c = 0; c < VALUES; c++) dot += q[h][c] * x[c];
                        dot = sum_lanes<LANES>(dot);
                        score[u][h] = mine + u * stride < end ? dot : -INFINITY;
                    }
                }
#pragma unroll
                for (int h = 0; h < HEADS; h++) {
                    float most = top[h];
#pragma unroll
                    for (int u = 0; u < AHEAD; u++) most = fmaxf(most, score[u][h]);
                    const float keep = power_of_two(top[h] - most);
                    top[h] = most;
                    sum[h] *= keep;
#pragma unroll
                    for (int c = 0; c < VALUES; c++) mixed[h][c] *= keep;
#pragma unroll
                    for (int u = 0; u < AHEAD; u++) sum[h] += score[u][h] = power_of_two(score[u][h] - most);
                }
#pragma unroll
                for (int u = 0; u < AHEAD; u++) {
                    float x[VALUES];
                    value[u].get(x);
#pragma unroll
                    for (int h = 0; h < HEADS; h++)
#pragma unroll
                        for (int c = 0; c < VALUES; c++) mixed[h][c] += score[u][h] * x[c];
                }
            }
            // What the lanes of other keys have.
#pragma unroll
            for (int h = 0; h < HEADS; h++) {
                float most = top[h];
#pragma unroll
                for (int o = LANES; o < 32; o *= 2) most = fmaxf(most, __shfl_xor_sync(ALL, most, o));
                const float keep = power_of_two(top[h] - most);
                sum[h] *= keep;
#pragma unroll
                for (int c = 0; c < VALUES; c++) mixed[h][c] *= keep;
#pragma unroll
                for (int o = LANES; o < 32; o *= 2) {
                    sum[h] += __shfl_xor_sync(ALL, sum[h], o);
#pragma unroll
                    for (int c = 0; c < VALUES; c++) mixed[h][c] += __shfl_xor_sync(ALL, mixed[h][c], o);
                }
                if (lane < LANES) Row::put(mixed[h], vectors + (warp * HEADS + h) * dim, part, dim);
                if (lane == 0) {
                    tops[2 * (warp * HEADS + h)] = most;
                    tops[2 * (warp * HEADS + h) + 1] = sum[h];
                }
            }
        }
        __syncthreads();
        const bool whole = job.to - job.from <= ATTEND_SPLIT;
        for (int i = threadIdx.x; i < slots * HEADS * dim; i += blockDim.x) {
            const int slot = i / (HEADS * dim), h = i / dim % HEADS, column = i % dim;
            const int head = (pass + slot) * HEADS + h;
            if (head >= group) continue;
            float most = ATTEND_NONE, sum = 0.0f, mixed = 0.0f;
            for (int w = 0; w < stripes; w++) most = fmaxf(most, tops[2 * ((slot * stripes + w) * HEADS + h)]);
            for (int w = 0; w < stripes; w++) {
                const int from = (slot * stripes + w) * HEADS + h;
                const float keep = power_of_two(tops[2 * from] - most);
                sum += keep * tops[2 * from + 1];
                mixed += keep * vectors[from * dim + column];
            }
            if (whole) {
                const float lambda = args.lambda ? args.lambda[head0 + head] : 1.0f;
                static_cast<T*>(args.out)[(head0 + head) * dim + column] = rounded<T>(mixed * (lambda / sum));
                continue;
            }
            const int64_t to = (int64_t(blockIdx.x) * args.heads + blockIdx.y * group + head) * args.splits + blockIdx.z;
            args.sums[to * dim + column] = mixed;
            if (column == 0) args.tops[2 * to] = most, args.tops[2 * to + 1] = sum;
        }
        // The next pass writes where this one reads.
        __syncthreads();
    }
}

// Heads of any size.
template <class T>
DEVICE void attend_one_any(const AttendArgs& args) {
    attend_one<T, 0, 1>(args);
}

// A block for a query and a head: its splits, in their order.
template <class T>
DEVICE void attend_merge(const AttendArgs& args) {
    AttendJob job;
    if (!attend_job(args, job)) return;
    const int splits = (job.to - job.from + ATTEND_SPLIT - 1) / ATTEND_SPLIT;
    if (splits == 1) return;
    const int64_t from = (int64_t(blockIdx.x) * args.heads + blockIdx.y) * args.splits;
    const int64_t head = job.token * args.heads + blockIdx.y;
    const float lambda = args.lambda ? args.lambda[head] : 1.0f;
    float most = ATTEND_NONE, sum = 0.0f;
    for (int s = 0; s < splits; s++) most = fmaxf(most, args.tops[2 * (from + s)]);
    for (int s = 0; s < splits; s++)
        sum += power_of_two(args.tops[2 * (from + s)] - most) * args.tops[2 * (from + s) + 1];
    for (int column = threadIdx.x; column < args.dim; column += blockDim.x) {
        float mixed = 0.0f;
        for (int s = 0; s < splits; s++)
            mixed += power_of_two(args.tops[2 * (from + s)] - most) * args.sums[(from + s) * args.dim + column];
        static_cast<T*>(args.out)[head * args.dim + column] = rounded<T>(mixed * (lambda / sum));
    }
}

#define ATTEND_ONE(DIM, HEADS) KERNEL(attend_one_##DIM##_##HEADS##_f32, 256, AttendArgs, attend_one<float, DIM, HEADS>)

KERNEL_OF_TYPES(attend_one, 256, AttendArgs, attend_one_any)
ATTEND_ONE(64, 1)
ATTEND_ONE(64, 2)
ATTEND_ONE(64, 3)
ATTEND_ONE(64, 4)
ATTEND_ONE(128, 1)
ATTEND_ONE(128, 2)
ATTEND_ONE(128, 3)
ATTEND_ONE(128, 4)
ATTEND_ONE(256, 1)
ATTEND_ONE(256, 2)
ATTEND_ONE(256, 3)
ATTEND_ONE(256, 4)
ATTEND_ONE(512, 1)
ATTEND_ONE(512, 2)

// Tensor cores have room for so many heads of a group.
constexpr int ATTEND_HEADS = 16;

// A block for a query, up to 16 heads of a key/value head's group, and a split of the keys, which come in tiles of KEYS, the
// next on its way while one is worked on. Of a tile each warp makes the scores of 8 keys (of large heads from half of the values), and when all
// have them, the mixture of a quarter of the columns, so that the sums of all heads fit into its registers.
template <class T, int DIM>
DEVICE void attend_group(const AttendArgs& args) {
    constexpr int KEYS = DIM >= 512 ? 16 : 32, SHARERS = 32 / KEYS;
    // Tiles that there is room for: of more, fewer blocks would fit beside each other.
    constexpr int STAGES = 2;
    // 16 bytes more than a row: the 8 rows of a matrix lie in different banks.
    constexpr int WIDTH = DIM + 8, PACKS = DIM / 8, STEPS = DIM / SHARERS / 16, COLUMNS = DIM / 4, SCORES = KEYS + 8;
    AttendJob job;
    if (!attend_job(args, job)) return;
    const int begin = job.from + int(blockIdx.z) * ATTEND_SPLIT;
    if (begin >= job.to) return;
    const int end = min(begin + ATTEND_SPLIT, job.to), tiles = (end - begin + KEYS - 1) / KEYS;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int group = args.heads / args.kv, chunks = (group + ATTEND_HEADS - 1) / ATTEND_HEADS;
    const int kv_head = blockIdx.y / chunks, chunk = blockIdx.y % chunks * ATTEND_HEADS;
    const int heads = min(ATTEND_HEADS, group - chunk), first = kv_head * group + chunk;
    const int64_t step = int64_t(args.kv) * DIM;
    const int64_t origin = (job.cache + begin) * step + int64_t(kv_head) * DIM;
    const int64_t head0 = job.token * args.heads + first;

    T* queries = reinterpret_cast<T*>(shared_memory); // [16, WIDTH]
    T* stages = queries + ATTEND_HEADS * WIDTH;       // [STAGES][keys, values][KEYS, WIDTH]
    float* scores = reinterpret_cast<float*>(stages + STAGES * 2 * KEYS * WIDTH); // [SHARERS][16, SCORES]
    // Zeros behind the last key: what lies there may be no number, and 0 times that is none.
    auto copy = [&](T* to, const void* cache, int tile) {
        const T* from = static_cast<const T*>(cache) + origin;
#pragma unroll
        for (int i = 0; i < KEYS * PACKS / 128; i++) {
            const int pack = i * 128 + threadIdx.x, r = pack / PACKS, c = pack % PACKS * 8, at = tile * KEYS + r;
            const bool there = begin + at < end;
            copy_ahead(to + r * WIDTH + c, from + (there ? at : 0) * step + c, there);
        }
        copies_end();
    };
    auto fetch = [&](int tile) {
        if (tile < tiles) {
            T* to = stages + tile % STAGES * 2 * KEYS * WIDTH;
            copy(to, args.k, tile);
            copy(to + KEYS * WIDTH, args.v, tile);
        } else {
            // So that groups are counted alike to the end.
            copies_end();
            copies_end();
        }
    };
    for (int i = threadIdx.x; i < ATTEND_HEADS * PACKS; i += 128) {
        const int r = i / PACKS, c = i % PACKS * 8;
        copy_ahead(queries + r * WIDTH + c, static_cast<const T*>(args.q) + (head0 + (r < heads ? r : 0)) * DIM + c, r < heads);
    }
    for (int tile = 0; tile < STAGES - 1; tile++) fetch(tile);

    // Where this lane's rows of matrices begin, in a tile of keys and of values, and its place among scores.
    const int down = lane / 8 % 2 * 8 + lane % 8, right = lane / 16 * 8;
    const int sharer = warp / (KEYS / 8), own_keys = warp % (KEYS / 8) * 8, own_values = sharer * (DIM / SHARERS);
    const int key_at = (own_keys + lane % 8) * WIDTH + own_values + lane / 8 * 8;
    const int value_at = down * WIDTH + warp * COLUMNS + right;
    const int row = lane / 4, pair = lane % 4 * 2;
    const bool more = heads > 8; // else rows from 8 on are of no head
    const float factor = args.scale * LOG2_E;

    uint32_t query[STEPS][4];
    float mixed[COLUMNS / 8][4] = {};
    float top0 = ATTEND_NONE, top1 = ATTEND_NONE, sum0 = 0.0f, sum1 = 0.0f;
    for (int tile = 0; tile < tiles; tile++) {
        const T* keys = stages + tile % STAGES * 2 * KEYS * WIDTH;
        const T* values = keys + KEYS * WIDTH;
        copied_but<2 * STAGES - 3>();
        __syncthreads(); // the keys are there, and everybody is done with the tile before
        fetch(tile + STAGES - 1);
        if (tile == 0) {
#pragma unroll
            for (int k = 0; k < STEPS; k++) load_matrices(query[k], queries + down * WIDTH + right + own_values + 16 * k);
        }
        float score[2][4] = {};
#pragma unroll
        for (int k = 0; k < STEPS; k += 2) {
            uint32_t key[4];
            load_matrices(key, keys + key_at + 16 * k);
            multiply(score[0], query[k], key[0], key[1], T{});
            multiply(score[1], query[k + 1], key[2], key[3], T{});
        }
        float* to = scores + (sharer * ATTEND_HEADS + row) * SCORES + own_keys + pair;
#pragma unroll
        for (int e = 0; e < 2; e++) {
            to[e] = score[0][e] + score[1][e];
            if (more) to[8 * SCORES + e] = score[0][e + 2] + score[1][e + 2];
        }
        copied_but<2 * STAGES - 2>();
        __syncthreads(); // the values and all scores are there

        float weight0[KEYS / 8][2], weight1[KEYS / 8][2];
        // What one row becomes: its weights, and by how much what was mixed before counts less.
        auto weigh = [&](float (&weight)[KEYS / 8][2], const float* from, float& top, float& sum) {
            float most = top;
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    float x = from[8 * n + e];
                    if (SHARERS == 2) x += from[ATTEND_HEADS * SCORES + 8 * n + e];
                    const bool there = begin + tile * KEYS + 8 * n + pair + e < end;
                    weight[n][e] = there ? x * factor : -INFINITY;
                    most = fmaxf(most, weight[n][e]);
                }
            most = max_lanes<4>(most);
            const float keep = power_of_two(top - most);
            top = most;
            sum *= keep;
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (int e = 0; e < 2; e++) sum += weight[n][e] = power_of_two(weight[n][e] - most);
            return keep;
        };
        const float* from = scores + row * SCORES + pair;
        const float keep0 = weigh(weight0, from, top0, sum0);
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n++) mixed[n][0] *= keep0, mixed[n][1] *= keep0;
        if (more) {
            const float keep1 = weigh(weight1, from + 8 * SCORES, top1, sum1);
#pragma unroll
            for (int n = 0; n < COLUMNS / 8; n++) mixed[n][2] *= keep1, mixed[n][3] *= keep1;
        }
#pragma unroll
        for (int k = 0; k < KEYS / 16; k++) {
            // Two tiles of scores side by side lie as the left side of a product wants them.
            const float(&left)[2] = weight0[2 * k];
            const float(&right)[2] = weight0[2 * k + 1];
            const uint32_t weight[4] = {paired(left[0], left[1], T{}),
                                        more ? paired(weight1[2 * k][0], weight1[2 * k][1], T{}) : 0,
                                        paired(right[0], right[1], T{}),
                                        more ? paired(weight1[2 * k + 1][0], weight1[2 * k + 1][1], T{}) : 0};
#pragma unroll
            for (int n = 0; n < COLUMNS / 16; n++) {
                uint32_t value[4];
                load_matrices_transposed(value, values + value_at + 16 * k * WIDTH + 16 * n);
                multiply(mixed[2 * n], weight, value[0], value[1], T{});
                multiply(mixed[2 * n + 1], weight, value[2], value[3], T{});
            }
        }
    }
    const bool whole = job.to - job.from <= ATTEND_SPLIT;
    auto finish = [&](int head, float top, float sum, int at) {
        sum = sum_lanes<4>(sum);
        if (head >= heads) return;
        const int column = warp * COLUMNS + pair;
        if (whole) {
            const float by = (args.lambda ? args.lambda[head0 + head] : 1.0f) / sum;
            T* out = static_cast<T*>(args.out) + (head0 + head) * DIM + column;
#pragma unroll
            for (int n = 0; n < COLUMNS / 8; n++)
                *reinterpret_cast<uint32_t*>(out + 8 * n) = paired(mixed[n][at] * by, mixed[n][at + 1] * by, T{});
            return;
        }
        const int64_t to = (int64_t(blockIdx.x) * args.heads + first + head) * args.splits + blockIdx.z;
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n++) {
            const float two[2] = {mixed[n][at], mixed[n][at + 1]};
            store<2>(two, args.sums + to * DIM + column + 8 * n);
        }
        if (warp == 0 && pair == 0) args.tops[2 * to] = top, args.tops[2 * to + 1] = sum;
    };
    finish(row, top0, sum0, 0);
    finish(row + 8, top1, sum1, 2);
}

#define ATTEND_GROUP(DIM)                                                        \
    KERNEL(attend_group_##DIM##_bf16, 128, AttendArgs, attend_group<bf16, DIM>)  \
    KERNEL(attend_group_##DIM##_f16, 128, AttendArgs, attend_group<f16, DIM>)

ATTEND_GROUP(64)
ATTEND_GROUP(128)
ATTEND_GROUP(256)
ATTEND_GROUP(512)

KERNEL_OF_TYPES(attend_merge, 128, AttendArgs, attend_merge)

// Of the form for many queries: tiles of them against tiles of keys.
struct AttendTilesArgs {
    const void* q;       // as in AttendArgs
    const void* k;
    const void* v;
    const int* spans;
    const int* tiles;    // [tiles, 2]: span, and the first of its rows; a row is a head of a token, token by token
    const float* lambda;
    void* out;
    int heads, kv;
    int window;
    float scale;
};

// Sixteens of rows that a warp has: of two, what it loads of keys and values counts twice, but larger heads leave no registers.
constexpr int attend_rows(int dim) { return dim <= 128 ? 2 : 1; }

// A block for a tile of rows, a key/value head and, of large heads, some of the columns (FlashAttention-2, Dao 2023). Keys come
// in tiles of KEYS counted from position 0 and a hidden tile changes no bit of a row, so that a row does not depend on those
// beside it. A value tile is on its way during the scores, the next key tile during the mixing.
template <class T, int DIM>
DEVICE void attend_tile(const AttendTilesArgs& args) {
    constexpr int KEYS = DIM >= 512 ? 16 : DIM >= 256 ? 32 : 64, COLUMNS = DIM < 256 ? DIM : 256;
    constexpr int OWN = attend_rows(DIM), ROWS = 4 * 16 * OWN;
    // 16 bytes more than a row: the 8 rows of a matrix lie in different banks.
    constexpr int WIDTH = DIM + 8, V_WIDTH = COLUMNS + 8;
    // Larger heads read their queries again for each tile of keys: they do not fit beside the sums.
    constexpr bool KEPT = DIM <= 64;
    const int* tile = args.tiles + 2 * int64_t(blockIdx.x);
    const int* span = args.spans + 4 * int64_t(tile[0]);
    const int group = args.heads / args.kv, rows = span[1] * group, first = tile[1], start = span[2];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int window = args.window ? args.window : INT32_MAX;
    // The token's head of a row; rows behind the last repeat it.
    auto head_of = [&](int row) {
        const int inside = min(row, rows - 1);
        return (int64_t(span[0]) + inside / group) * args.heads + int64_t(blockIdx.y) * group + inside % group;
    };
    // The keys that a row sees: from the first to before the second.
    auto to_of = [&](int row) { return start + min(row, rows - 1) / group + 1; };
    auto from_of = [&](int row) { return max(to_of(row) - window, 0); };
    const int from = from_of(first), to = to_of(first + ROWS - 1);

    T* queries = reinterpret_cast<T*>(shared_memory); // [ROWS, WIDTH]
    T* keys = queries + ROWS * WIDTH;                 // [KEYS, WIDTH]
    T* values = keys + KEYS * WIDTH;                  // [KEYS, V_WIDTH]
    const int64_t step = int64_t(args.kv) * DIM;
    const int64_t origin = span[3] * step + int64_t(blockIdx.y) * DIM;
    const T* all_keys = static_cast<const T*>(args.k) + origin;
    const T* all_values = static_cast<const T*>(args.v) + origin + blockIdx.z * COLUMNS;
    // Zeros where no row sees a key: what lies there may be no number, and 0 times that is none.
    auto copy = [&](T* to_rows, int to_width, const T* cache, int columns, int begin) {
        const int packs = columns / 8;
        for (int i = threadIdx.x; i < KEYS * packs; i += blockDim.x) {
            const int r = i / packs, c = i % packs * 8, at = begin + r;
            const bool seen = at >= from && at < to;
            copy_ahead(to_rows + r * to_width + c, cache + (seen ? at : from) * step + c, seen);
        }
    };
    for (int i = threadIdx.x; i < ROWS * (DIM / 8); i += blockDim.x) {
        const int r = i / (DIM / 8), c = i % (DIM / 8) * 8;
        copy_ahead(queries + r * WIDTH + c, static_cast<const T*>(args.q) + head_of(first + r) * DIM + c, true);
    }
    copy(keys, WIDTH, all_keys, DIM, from / KEYS * KEYS);

    // Where this lane's rows of matrices begin: of queries and values (rows, then columns), and of keys (columns, then rows).
    const int down = lane / 8 % 2 * 8 + lane % 8, right = lane / 16 * 8;
    const T* query_at = queries + (warp * 16 * OWN + down) * WIDTH + right;
    const T* key_at = keys + (lane / 16 * 8 + lane % 8) * WIDTH + lane / 8 % 2 * 8;
    const T* value_at = values + down * V_WIDTH + right;
    // This lane's rows in results: two of each sixteen.
    auto row_of = [&](int own, int half) { return first + (warp * OWN + own) * 16 + lane / 4 + 8 * half; };
    const int all_from = from_of(first + ROWS - 1), all_to = to_of(first);
    const float factor = args.scale * LOG2_E;

    uint32_t kept[KEPT ? DIM / 16 : 1][OWN][4];
    float mixed[OWN][COLUMNS / 8][4] = {}, top[OWN][2], sum[OWN][2] = {};
#pragma unroll
    for (int o = 0; o < OWN; o++) top[o][0] = top[o][1] = ATTEND_NONE;
    for (int begin = from / KEYS * KEYS; begin < to; begin += KEYS) {
        copied();
        __syncthreads(); // the keys are there, and everybody is done with the values
        copy(values, V_WIDTH, all_values, COLUMNS, begin);
        if (KEPT && begin == from / KEYS * KEYS) {
#pragma unroll
            for (int k = 0; k < (KEPT ? DIM / 16 : 1); k++)
#pragma unroll
                for (int o = 0; o < OWN; o++) load_matrices(kept[k][o], query_at + 16 * o * WIDTH + 16 * k);
        }
        float score[OWN][KEYS / 8][4] = {};
#pragma unroll
        for (int k = 0; k < DIM / 16; k++) {
            uint32_t fresh[OWN][4];
#pragma unroll
            for (int o = 0; o < OWN; o++)
                if (!KEPT) load_matrices(fresh[o], query_at + 16 * o * WIDTH + 16 * k);
#pragma unroll
            for (int n = 0; n < KEYS / 16; n++) {
                uint32_t key[4];
                load_matrices(key, key_at + 16 * n * WIDTH + 16 * k);
#pragma unroll
                for (int o = 0; o < OWN; o++) {
                    const uint32_t(&query)[4] = KEPT ? kept[KEPT ? k : 0][o] : fresh[o];
                    multiply(score[o][2 * n], query, key[0], key[1], T{});
                    multiply(score[o][2 * n + 1], query, key[2], key[3], T{});
                }
            }
        }
        const bool hidden = begin < all_from || begin + KEYS > all_to;
#pragma unroll
        for (int o = 0; o < OWN; o++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int seen_to = to_of(row_of(o, half)), seen_from = max(seen_to - window, 0);
                float most = top[o][half];
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                    for (int e = 0; e < 2; e++) {
                        float& at = score[o][n][2 * half + e];
                        const int key = begin + 8 * n + lane % 4 * 2 + e;
                        at *= factor;
                        if (hidden && (key < seen_from || key >= seen_to)) at = -INFINITY;
                        most = fmaxf(most, at);
                    }
                most = max_lanes<4>(most);
                const float keep = power_of_two(top[o][half] - most);
                top[o][half] = most;
                sum[o][half] *= keep;
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                    for (int e = 0; e < 2; e++) {
                        float& at = score[o][n][2 * half + e];
                        sum[o][half] += at = power_of_two(at - most);
                    }
#pragma unroll
                for (int n = 0; n < COLUMNS / 8; n++)
                    mixed[o][n][2 * half] *= keep, mixed[o][n][2 * half + 1] *= keep;
            }
        copied();
        __syncthreads(); // the values are there, and everybody is done with the keys
        if (begin + KEYS < to) copy(keys, WIDTH, all_keys, DIM, begin + KEYS);
#pragma unroll
        for (int k = 0; k < KEYS / 16; k++) {
            uint32_t weight[OWN][4];
#pragma unroll
            for (int o = 0; o < OWN; o++) {
                // Two tiles of scores side by side lie as the left side of a product wants them.
                const float(&left)[4] = score[o][2 * k];
                const float(&right)[4] = score[o][2 * k + 1];
                weight[o][0] = paired(left[0], left[1], T{}), weight[o][1] = paired(left[2], left[3], T{});
                weight[o][2] = paired(right[0], right[1], T{}), weight[o][3] = paired(right[2], right[3], T{});
            }
#pragma unroll
            for (int n = 0; n < COLUMNS / 16; n++) {
                uint32_t value[4];
                load_matrices_transposed(value, value_at + 16 * k * V_WIDTH + 16 * n);
#pragma unroll
                for (int o = 0; o < OWN; o++) {
                    multiply(mixed[o][2 * n], weight[o], value[0], value[1], T{});
                    multiply(mixed[o][2 * n + 1], weight[o], value[2], value[3], T{});
                }
            }
        }
    }
    // Through this warp's own queries, so that 16 bytes go out at a time.
    __syncwarp();
    T* own = queries + warp * 16 * OWN * WIDTH;
#pragma unroll
    for (int o = 0; o < OWN; o++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float lambda = args.lambda ? args.lambda[head_of(row_of(o, half))] : 1.0f;
            const float by = lambda / sum_lanes<4>(sum[o][half]);
            T* to_columns = own + (16 * o + 8 * half + lane / 4) * WIDTH + lane % 4 * 2;
#pragma unroll
            for (int n = 0; n < COLUMNS / 8; n++)
                *reinterpret_cast<uint32_t*>(to_columns + 8 * n) =
                    paired(mixed[o][n][2 * half] * by, mixed[o][n][2 * half + 1] * by, T{});
        }
    __syncwarp();
    for (int i = lane; i < 16 * OWN * (COLUMNS / 8); i += 32) {
        const int r = i / (COLUMNS / 8), c = i % (COLUMNS / 8) * 8, row = first + warp * 16 * OWN + r;
        if (row >= rows) continue;
        T* out = static_cast<T*>(args.out) + head_of(row) * DIM + blockIdx.z * COLUMNS + c;
        *reinterpret_cast<Pack<T, 8>*>(out) = *reinterpret_cast<const Pack<T, 8>*>(own + r * WIDTH + c);
    }
}

#define ATTEND_TILE(DIM)                                                            \
    KERNEL(attend_tile_##DIM##_bf16, 128, AttendTilesArgs, attend_tile<bf16, DIM>)  \
    KERNEL(attend_tile_##DIM##_f16, 128, AttendTilesArgs, attend_tile<f16, DIM>)

ATTEND_TILE(64)
ATTEND_TILE(128)
ATTEND_TILE(256)
ATTEND_TILE(512)
