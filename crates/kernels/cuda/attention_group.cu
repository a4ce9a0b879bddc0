// Attention of one query at a time on tensor cores: all heads that share a key head together, for bf16 and f16.
#include "attention.cuh"
#include "mma.cuh"

// Heads of a group that tensor cores process together.
constexpr int ATTEND_HEADS = 16;

// One block per query, up to 16 heads of a key/value head's group, and split of the keys. Keys come in tiles of KEYS, and the next
// tile loads while one is processed. In each tile, every warp computes the scores of 8 keys (for large heads over half of the
// values) and, once all scores are there, mixes a quarter of the columns, so that the sums of all heads fit into its registers.
template <class T, int DIM>
DEVICE void attend_group(const AttendArgs& args) {
    constexpr int KEYS = DIM >= 512 ? 16 : 32, SHARERS = 32 / KEYS;
    // Tiles in shared memory: with more, fewer blocks would fit on a multiprocessor.
    constexpr int STAGES = 2;
    // Rows are padded by 16 bytes, so that the 8 rows of a matrix are in different banks.
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
    // Zeros after the last key: what is stored there may be NaN, and 0 times NaN is NaN.
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
            // Empty groups, so that the count of groups stays the same to the end.
            copies_end();
            copies_end();
        }
    };
    for (int i = threadIdx.x; i < ATTEND_HEADS * PACKS; i += 128) {
        const int r = i / PACKS, c = i % PACKS * 8;
        copy_ahead(queries + r * WIDTH + c, static_cast<const T*>(args.q) + (head0 + (r < heads ? r : 0)) * DIM + c, r < heads);
    }
    for (int tile = 0; tile < STAGES - 1; tile++) fetch(tile);

    // Where this lane's matrix rows begin, in a tile of keys and of values, and its place among the scores.
    const int down = lane / 8 % 2 * 8 + lane % 8, right = lane / 16 * 8;
    const int sharer = warp / (KEYS / 8), own_keys = warp % (KEYS / 8) * 8, own_values = sharer * (DIM / SHARERS);
    const int key_at = (own_keys + lane % 8) * WIDTH + own_values + lane / 8 * 8;
    const int value_at = down * WIDTH + warp * COLUMNS + right;
    const int row = lane / 4, pair = lane % 4 * 2;
    const bool more = heads > 8; // else rows from 8 on belong to no head
    const float factor = args.scale * LOG2_E;

    uint32_t query[STEPS][4];
    float mixed[COLUMNS / 8][4] = {};
    float top0 = ATTEND_NONE, top1 = ATTEND_NONE, sum0 = 0.0f, sum1 = 0.0f;
    for (int tile = 0; tile < tiles; tile++) {
        const T* keys = stages + tile % STAGES * 2 * KEYS * WIDTH;
        const T* values = keys + KEYS * WIDTH;
        copied_but<2 * STAGES - 3>();
        __syncthreads(); // the keys are there, and all warps are done with the previous tile
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
        // Processes one row: computes its weights, and rescales what was mixed before.
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
            // Two score tiles side by side have the layout of a product's left operand.
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
