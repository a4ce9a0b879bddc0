// Attention of many queries at a time on tensor cores, for bf16 and f16.
#include "attention.cuh"
#include "mma.cuh"

// For the form with many queries: tiles of queries against tiles of keys.
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

constexpr int ATTEND_THREADS = 128;

// A number that is known at compile time even as a lambda's argument.
template <int N>
struct Known {
    static constexpr int value = N;
};

// Sets of 16 rows per warp. With two, each load of keys and values is used twice, but larger heads leave no registers for that.
constexpr int attend_rows(int dim) { return dim <= 128 ? 2 : 1; }

// One block per tile of rows, key/value head and, for large heads, part of the columns (FlashAttention-2, Dao 2023). Keys come in
// tiles of KEYS counted from position 0, and a hidden tile changes no bit of a row, so a row does not depend on the rows next to
// it. A value tile loads during the scores, the next key tile during the mixing.
template <class T, int DIM>
DEVICE void attend_tile(const AttendTilesArgs& args) {
    constexpr int KEYS = DIM >= 512 ? 16 : DIM >= 256 ? 32 : 64, COLUMNS = DIM < 256 ? DIM : 256;
    constexpr int OWN = attend_rows(DIM), ROWS = 4 * 16 * OWN;
    // Rows are padded by 16 bytes, so that the 8 rows of a matrix are in different banks.
    constexpr int WIDTH = DIM + 8, V_WIDTH = COLUMNS + 8;
    // Larger heads reload their queries for each tile of keys: they do not fit in registers beside the sums.
    constexpr bool KEPT = DIM <= 64;
    const int* tile = args.tiles + 2 * int64_t(blockIdx.x);
    const int* span = args.spans + 4 * int64_t(tile[0]);
    const int group = args.heads / args.kv, rows = span[1] * group, first = tile[1], start = span[2];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int window = args.window ? args.window : INT32_MAX;
    // The index of a row's head among the heads of all tokens; rows after the last repeat it.
    auto head_of = [&](int row) {
        const int inside = min(row, rows - 1);
        return (int64_t(span[0]) + inside / group) * args.heads + int64_t(blockIdx.y) * group + inside % group;
    };
    // The keys that a row sees: the first, and one past the last.
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
    // Zeros where no row sees a key: what is stored there may be NaN, and 0 times NaN is NaN. Nothing is read there either, not even
    // past the end of the cache. Pointers advance by strides known in advance: with divisions this was a chain of 28 instructions
    // for each 16 bytes.
    auto copy = [&](T* to_rows, auto to_width, const T* cache, auto columns, int begin) {
        constexpr int packs = decltype(columns)::value / 8, down = ATTEND_THREADS / packs, width = decltype(to_width)::value;
        static_assert(ATTEND_THREADS % packs == 0 && KEYS % down == 0, "every thread copies as much");
        const int r = threadIdx.x / packs, c = threadIdx.x % packs * 8;
        T* into = to_rows + r * width + c;
        const T* source = cache + (begin + r) * step + c;
        int at = begin + r;
#pragma unroll 8
        for (int i = 0; i < KEYS / down; i++) {
            copy_ahead(into, source, at >= from && at < to);
            into += down * width, source += down * step, at += down;
        }
    };
    for (int i = threadIdx.x; i < ROWS * (DIM / 8); i += blockDim.x) {
        const int r = i / (DIM / 8), c = i % (DIM / 8) * 8;
        copy_ahead(queries + r * WIDTH + c, static_cast<const T*>(args.q) + head_of(first + r) * DIM + c, true);
    }
    copy(keys, Known<WIDTH>{}, all_keys, Known<DIM>{}, from / KEYS * KEYS);

    // Where this lane's matrix rows begin: for queries and values (rows, then columns), and for keys (columns, then rows).
    const int down = lane / 8 % 2 * 8 + lane % 8, right = lane / 16 * 8;
    const T* query_at = queries + (warp * 16 * OWN + down) * WIDTH + right;
    const T* key_at = keys + (lane / 16 * 8 + lane % 8) * WIDTH + lane / 8 % 2 * 8;
    const T* value_at = values + down * V_WIDTH + right;
    // This lane's rows in results: two of each 16.
    auto row_of = [&](int own, int half) { return first + (warp * OWN + own) * 16 + lane / 4 + 8 * half; };
    const int all_from = from_of(first + ROWS - 1), all_to = to_of(first);
    const float factor = args.scale * LOG2_E;

    uint32_t kept[KEPT ? DIM / 16 : 1][OWN][4];
    float mixed[OWN][COLUMNS / 8][4] = {}, top[OWN][2], sum[OWN][2] = {};
#pragma unroll
    for (int o = 0; o < OWN; o++) top[o][0] = top[o][1] = ATTEND_NONE;
    for (int begin = from / KEYS * KEYS; begin < to; begin += KEYS) {
        copied();
        __syncthreads(); // the keys are there, and all warps are done with the values
        copy(values, Known<V_WIDTH>{}, all_values, Known<COLUMNS>{}, begin);
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
#pragma unroll
        for (int o = 0; o < OWN; o++)
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (int e = 0; e < 4; e++) score[o][n][e] *= factor;
        // A separate branch, which most tiles skip: finding what a row sees takes divisions, and masking a third of the arithmetic.
        if (begin < all_from || begin + KEYS > all_to) {
#pragma unroll
            for (int o = 0; o < OWN; o++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    const int seen_to = to_of(row_of(o, half)), seen_from = max(seen_to - window, 0);
#pragma unroll
                    for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                        for (int e = 0; e < 2; e++) {
                            const int key = begin + 8 * n + lane % 4 * 2 + e;
                            if (key < seen_from || key >= seen_to) score[o][n][2 * half + e] = -INFINITY;
                        }
                }
        }
#pragma unroll
        for (int o = 0; o < OWN; o++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float most = top[o][half];
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                    for (int e = 0; e < 2; e++) most = fmaxf(most, score[o][n][2 * half + e]);
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
        __syncthreads(); // the values are there, and all warps are done with the keys
        if (begin + KEYS < to) copy(keys, Known<WIDTH>{}, all_keys, Known<DIM>{}, begin + KEYS);
#pragma unroll
        for (int k = 0; k < KEYS / 16; k++) {
            uint32_t weight[OWN][4];
#pragma unroll
            for (int o = 0; o < OWN; o++) {
                // Two score tiles side by side have the layout of a product's left operand.
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
    // Through the shared memory of this warp's own queries, so that 16 bytes are written at a time.
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

#define ATTEND_TILE(DIM)                                                                      \
    KERNEL(attend_tile_##DIM##_bf16, ATTEND_THREADS, AttendTilesArgs, attend_tile<bf16, DIM>) \
    KERNEL(attend_tile_##DIM##_f16, ATTEND_THREADS, AttendTilesArgs, attend_tile<f16, DIM>)

ATTEND_TILE(64)
ATTEND_TILE(128)
ATTEND_TILE(256)
ATTEND_TILE(512)
