// Attention of one query at a time, lane by lane, for f32 and whatever has no other form; and the merger of splits.
#include "attention.cuh"

// A lane's share of a key or value, read 16 bytes at a time; with short rows the remaining lanes take more keys.
template <class T, int DIM>
struct AttendRow {
    static constexpr int LANES = DIM / WIDE<T> < 32 ? DIM / WIDE<T> : 32;
    static constexpr int PACKS = DIM / (WIDE<T> * LANES);
    static constexpr int VALUES = PACKS * WIDE<T>;
    // Keys that a lane has in flight, and the same number of values.
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

// The same for any size up to 512, one value at a time.
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

// One block per query, key/value head and split of the keys. A warp handles HEADS query heads on every `stripes`th step of
// keys; if a group has more heads, other warps of the block read the same keys at the same time, from L1.
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
    // For each warp: a vector, the largest score and the sum of weights of each of its heads.
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
            // Merge with the lanes that had other keys.
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

// One block per query and head: merges its splits, in order.
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

KERNEL_OF_TYPES(attend_merge, 128, AttendArgs, attend_merge)
