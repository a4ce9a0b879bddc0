// Chooses the next token: greedy, or a draw with the engine's noise, with the cuts of transformers.
//
// Four kernels per step: the peaks of parts of the vocabulary, the cuts of each row, the best of each part, the best of all. Parts
// have the same size in any batch, so that a single row keeps the memory busy as well. The draws are on the device, and the host
// reads nothing in between: a CUDA graph can hold all of it.
//
// Where a row's text is penalised, two more follow the first: the logits of the text's tokens are replaced, and the peaks of what
// that gives are taken. The last kernel puts the logits back, whose log-probabilities are asked for.
#include "logits.cuh"

using u64 = unsigned long long;

// How a row's token is chosen, as the host writes it.
struct DrawRow {
    uint32_t key[8];    // of ChaCha8
    uint32_t stream[2]; // the lower half, the upper half
    uint32_t step[2];
    float temperature; // 0: the token with the largest logit, the first of equals
    uint32_t top_k;    // 0: all
    float top_p;       // 1: all
    float min_p;       // 0: all
};

// What is known of a row before its draw.
struct SampleRow {
    double log_sum_exp; // not finite if a logit is NaN or the largest is not finite
    double lead;        // the score of the likeliest token, which few others reach
    double floor;       // smaller logits are left out
    u64 cut;            // smaller places are left out
    float top;
    uint32_t first; // the first token of the largest logit
};

struct SampleBest {
    double score;
    u64 rank; // of equals the lowest wins
};

// What a row's text does to its logits, as the host writes it.
struct PenaltyRow {
    uint32_t count;   // of different tokens in the text; 0: nothing is penalised
    float repetition; // divides positive logits of the text's tokens and multiplies others
    float presence;   // subtracted before that from those of written tokens
    uint32_t unused;
};

struct SampleArgs {
    float* logits;        // [rows, vocab]
    const DrawRow* draws; // [rows]
    Peak* peaks;          // [rows, parts], of the logits
    Peak* choosing;       // the same of the penalised logits; where nothing is penalised, `peaks`
    SampleRow* rows;      // [rows]
    SampleBest* bests;    // [rows, parts]
    uint32_t* tokens;     // [rows]; the largest number where `log_sum_exp` is not finite
    double* chosen;       // [rows, 2]: the token, and its log-probability before penalties, temperature and cuts; NaN there
    PenaltyRow* penalties;  // [rows], or null
    uint32_t* text;         // [rows, text_size]: the different tokens of each text, with WRITTEN if they are part of an answer
    float* kept;            // [rows, text_size]: their logits
    const uint32_t* newest; // [rows]: one more token that was written; null: none
    int vocab, parts, text_size;
};

// The mark of a token that was written, not only read.
constexpr uint32_t WRITTEN = 0x80000000u;

// How many tokens of the row are penalised.
DEVICE int sample_penalised(const SampleArgs& args) { return args.penalties ? int(args.penalties[blockIdx.x].count) : 0; }

// Logits per part: two steps of a block of 256.
constexpr int SAMPLE_STEPS = 2, SAMPLE_PART = SAMPLE_STEPS * FETCHED * 256;

DEVICE bool sample_finite(double x) { return x - x == 0.0; }

// What warps exchange about a part.
struct SamplePeaks {
    Peak peaks[8];
    float tops[8];
};

// All logits of a part are loaded at once and kept: the largest is known before the first exponential, and no sum has to be
// rescaled.
DEVICE void sample_peak_into(const SampleArgs& args, Peak* peaks) {
    SamplePeaks& room = *reinterpret_cast<SamplePeaks*>(shared_memory);
    const int part = blockIdx.y, row = blockIdx.x, begin = part * SAMPLE_PART;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    const float* logits = args.logits + int64_t(row) * args.vocab + begin;
    const int count = min(SAMPLE_PART, args.vocab - begin);
    const bool wide = loads_wide(logits, count);
    float x[SAMPLE_STEPS][FETCHED];
#pragma unroll
    for (int step = 0; step < SAMPLE_STEPS; step++) fetch(logits, count, wide, step * stride_of_block(), x[step]);
    Peak own;
    own.none();
#pragma unroll
    for (int step = 0; step < SAMPLE_STEPS; step++)
#pragma unroll
        for (int i = 0; i < FETCHED; i++) own.top = fmaxf(own.top, x[step][i]);
    own.top = max_lanes(own.top);
    if (lane == 0) room.tops[warp] = own.top;
    __syncthreads();
    for (int i = 0; i < warps; i++) own.top = fmaxf(own.top, room.tops[i]);
    const float back = own.top == -INFINITY ? 0.0f : own.top;
#pragma unroll
    for (int step = 0; step < SAMPLE_STEPS; step++) {
        // Few values are summed in f32, all others in f64, as in `Peak`.
        float few = 0.0f;
#pragma unroll
        for (int i = 0; i < FETCHED; i++) {
            few += expf(x[step][i] - back);
            if (x[step][i] == own.top) own.at = min(own.at, uint32_t(logit_at(step * stride_of_block(), i)));
        }
        own.sum += few;
    }
    own.sum = sum_lanes(own.sum);
    for (int mask = 16; mask > 0; mask /= 2) own.at = min(own.at, __shfl_xor_sync(ALL, own.at, mask));
    if (lane == 0) room.peaks[warp] = own;
    __syncthreads();
    if (threadIdx.x > 0) return;
    for (int i = 1; i < warps; i++) {
        own.sum += room.peaks[i].sum;
        own.at = min(own.at, room.peaks[i].at);
    }
    own.at += begin;
    peaks[int64_t(row) * args.parts + part] = own;
}

DEVICE void sample_peak(const SampleArgs& args) { sample_peak_into(args, args.peaks); }

DEVICE void sample_choosing_peak(const SampleArgs& args) {
    const int64_t at = int64_t(blockIdx.x) * args.parts + blockIdx.y;
    if (sample_penalised(args) > 0) return sample_peak_into(args, args.choosing);
    if (threadIdx.x == 0) args.choosing[at] = args.peaks[at];
}

// Replaces the logits of a text's tokens, and keeps them. One block per row; the newest token joins the text first.
DEVICE void sample_penalise(const SampleArgs& args) {
    const int row = blockIdx.x;
    PenaltyRow& penalty = args.penalties[row];
    const int known = int(penalty.count);
    if (known == 0) return;
    uint32_t* text = args.text + int64_t(row) * args.text_size;
    const uint32_t newest = args.newest ? args.newest[row] : 0;
    int* found = reinterpret_cast<int*>(shared_memory);
    if (threadIdx.x == 0) *found = args.newest ? 0 : 1;
    __syncthreads();
    for (int i = threadIdx.x; args.newest && i < known; i += blockDim.x) {
        if ((text[i] & ~WRITTEN) != newest) continue;
        text[i] = newest | WRITTEN; // at most one of them
        *found = 1;
    }
    __syncthreads();
    const bool joins = *found == 0 && known < args.text_size;
    if (joins && threadIdx.x == 0) {
        text[known] = newest | WRITTEN;
        penalty.count = known + 1;
    }
    __syncthreads();
    float* logits = args.logits + int64_t(row) * args.vocab;
    float* kept = args.kept + int64_t(row) * args.text_size;
    for (int i = threadIdx.x; i < known + int(joins); i += blockDim.x) {
        const uint32_t token = text[i], id = token & ~WRITTEN;
        const float own = logits[id];
        float logit = own;
        // In the engine's order. No compiler makes one operation of these: each is rounded as in the engine.
        if (token & WRITTEN) logit -= penalty.presence;
        logit = logit > 0.0f ? logit / penalty.repetition : logit * penalty.repetition;
        kept[i] = own;
        logits[id] = logit;
    }
}

// The logits as they were before.
DEVICE void sample_restore(const SampleArgs& args) {
    float* logits = args.logits + int64_t(blockIdx.x) * args.vocab;
    const int64_t from = int64_t(blockIdx.x) * args.text_size;
    for (int i = threadIdx.x; i < sample_penalised(args); i += blockDim.x)
        logits[args.text[from + i] & ~WRITTEN] = args.kept[from + i];
    __syncwarp();
}

// A row's peak, by the lanes of a warp.
DEVICE Peak sample_joined(const SampleArgs& args, const Peak* peaks) {
    Peak own;
    own.none();
    for (int part = threadIdx.x; part < args.parts; part += 32) own.join(peaks[int64_t(blockIdx.x) * args.parts + part]);
    own.join_lanes();
    return own;
}

// A token's place in the order of likelihood: the larger, the likelier; of equal logits, the lower id has the larger place.
DEVICE u64 sample_place(float logit, uint32_t id) {
    const uint32_t bits = __float_as_uint(logit);
    const uint32_t ordered = bits >> 31 ? ~bits : bits | 0x80000000u;
    return u64(ordered) << 32 | (0xffffffffu - id);
}

DEVICE float sample_logit(u64 place) {
    const uint32_t ordered = uint32_t(place >> 32);
    return __uint_as_float(ordered >> 31 ? ordered & 0x7fffffffu : ~ordered);
}

// e^((l - top) / temperature) in units of 2^-44. Sums of whole numbers are the same in any order, and 2^19 tokens do not overflow.
struct SampleMass {
    float top, scale;

    DEVICE u64 operator()(float logit) const {
        return logit == top ? u64(1) << 44 : u64(expf((logit - top) * scale) * 17592186044416.0f);
    }
};

struct SampleCount {
    DEVICE u64 operator()(float) const { return 1; }
};

constexpr int SAMPLE_BINS = 2048, SAMPLE_LIST = 3072;

// The block's shared data during the search for a cut.
struct SampleRoom {
    // The halves of 64-bit numbers: a card adds 32 bits in shared memory in one instruction, but 64 bits only in a retry loop.
    uint32_t low[SAMPLE_BINS], high[SAMPLE_BINS];
    u64 list[SAMPLE_LIST];
    u64 sums[32];
    u64 found, before;
    double log_sum_exp;
    Peak peak;
    unsigned listed;

    DEVICE void clear() {
        for (int i = threadIdx.x; i < SAMPLE_BINS; i += blockDim.x) low[i] = high[i] = 0;
    }
    DEVICE u64 bin(int i) const { return u64(high[i]) << 32 | low[i]; }
    // Whenever the lower half overflows, exactly one adder sees it and adds the carry.
    DEVICE void add(int i, u64 more) {
        if (more == 0) return;
        const uint32_t by = uint32_t(more), carry = atomicAdd(&low[i], by) + by < by;
        if (const uint32_t above = uint32_t(more >> 32) + carry) atomicAdd(&high[i], above);
    }
};

// The places among which a cut is searched: those in the list, or all of a row.
struct SampleSource {
    const float* logits;
    const u64* list;
    int count; // of the list, or of the row
    bool wide;

    template <class F>
    DEVICE void each(F&& f) const {
        if (list) {
            for (int i = threadIdx.x; i < count; i += blockDim.x) f(list[i], sample_logit(list[i]));
            return;
        }
        for (int from = 0; from < count; from += stride_of_block()) {
            float x[FETCHED];
            fetch(logits, count, wide, from, x);
#pragma unroll
            for (int i = 0; i < FETCHED; i++) {
                const int id = logit_at(from, i);
                if (id < count) f(sample_place(x[i], uint32_t(id)), x[i]);
            }
        }
    }
};

// The sum over a block, in every thread.
DEVICE u64 sample_sum(u64 x, SampleRoom& room) {
    x = sum_lanes(x);
    if (threadIdx.x % 32 == 0) room.sums[threadIdx.x / 32] = x;
    __syncthreads();
    x = 0;
    for (int warp = 0; warp < int(blockDim.x) / 32; warp++) x += room.sums[warp];
    __syncthreads();
    return x;
}

// The sum over this lane and those after it.
DEVICE u64 sample_from_lane(u64 x) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int by = 1; by < 32; by *= 2) {
        const u64 other = __shfl_down_sync(ALL, x, by);
        if (lane + by < 32) x += other;
    }
    return x;
}

// The bin such that all bins from it on weigh at least `target` together, and less without it: its index goes to `found`, the weight
// above it to `before`. The total must be at least `target`.
DEVICE void sample_find(u64 target, SampleRoom& room) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    // Bins in groups, one group per lane: first find the group, then the bin within it.
    const int group = SAMPLE_BINS / 32;
    for (int g = warp; g < 32; g += warps) {
        u64 sum = 0;
        for (int i = lane; i < group; i += 32) sum += room.bin(g * group + i);
        sum = sum_lanes(sum);
        if (lane == 0) room.sums[g] = sum;
    }
    __syncthreads();
    if (warp == 0) {
        const u64 own = room.sums[lane], from = sample_from_lane(own);
        if (from >= target && from - own < target) {
            room.found = lane;
            room.before = from - own;
        }
        __syncwarp();
        const int first = int(room.found) * group;
        const u64 before = room.before;
        __syncwarp();
        const u64 low = room.bin(first + 2 * lane), high = room.bin(first + 2 * lane + 1);
        const u64 upto = before + sample_from_lane(low + high), above = upto - low - high;
        if (upto >= target && above < target) {
            const bool higher = above + high >= target;
            room.found = first + 2 * lane + (higher ? 1 : 0);
            room.before = higher ? above : above + high;
        }
    }
    __syncthreads();
}

// The place such that all places from it on weigh at least `target` together, and less without it. Places before `cut` are ignored;
// the others must weigh enough. Found digit by digit from the highest: a histogram, and the bin that the target falls into.
template <class W>
DEVICE u64 sample_select(const SampleSource& source, u64 cut, u64 target, const W& weight, SampleRoom& room) {
    u64 prefix = 0, known = 0;
    // The bits of a logit in digits of 11, 11 and 10; those of an id, at most 22, in two digits of 11.
#pragma unroll 1
    for (int digit = 0; digit < 5; digit++) {
        const int shift = digit == 0 ? 53 : digit == 1 ? 42 : digit == 2 ? 32 : digit == 3 ? 11 : 0;
        const int bins = digit == 2 ? 1024 : 2048;
        room.clear();
        __syncthreads();
        source.each([&](u64 place, float logit) {
            if (place >= cut && (place & known) == prefix) room.add(int((place >> shift) & u64(bins - 1)), weight(logit));
        });
        __syncthreads();
        sample_find(target, room);
        const u64 found = room.found;
        target -= room.before;
        prefix |= found << shift;
        known |= u64(bins - 1) << shift;
        // In the id part, the bits above the ones examined are all 1.
        if (digit == 2) prefix |= u64(0xffc00000u), known |= u64(0xffc00000u);
        const bool all = digit == 2 && room.bin(int(found)) - target < weight(sample_logit(prefix));
        __syncthreads();
        // All places with this logit are kept.
        if (all) return max(cut, prefix & ~u64(0xffffffffu));
    }
    return prefix;
}

// How far logits are below the largest, in bins; anything beyond the last bin is counted in it.
struct SampleDepth {
    float top, scale;

    DEVICE float operator()(float logit) const {
        return logit == top ? 0.0f : fminf((top - logit) * scale, float(SAMPLE_BINS - 1));
    }
};

// The same place among all of a row, which is read twice and seldom more: bins of equal depth, then a list of the places in the bin
// that the target falls into. If the list is too short, that bin is divided into as many parts as there were bins. `share` computes
// the target from the total weight.
//
// With `keep`, the list also has all likelier places, and replaces `source` from then on.
template <class W, class S>
DEVICE u64 sample_narrow(SampleSource& source, u64 cut, const S& share, const W& weight, const SampleDepth& depth, bool keep,
                         SampleRoom& room) {
    // Depths from `from` on, `per` bins per unit of depth. Differences of such depths are exact.
    float from = 0.0f, per = 1.0f;
    u64 target = 0, rest = 0;
#pragma unroll 1
    for (int level = 0; level < 2; level++) {
        room.clear();
        if (threadIdx.x == 0) room.listed = 0;
        __syncthreads();
        source.each([&](u64 place, float logit) {
            const float below = depth(logit) - from;
            if (place < cut || below < 0.0f || below * per >= float(SAMPLE_BINS)) return;
            // The likeliest go to the highest bin.
            room.add(SAMPLE_BINS - 1 - int(below * per), weight(logit));
        });
        __syncthreads();
        if (level == 0) {
            u64 all = 0;
            for (int i = threadIdx.x; i < SAMPLE_BINS; i += blockDim.x) all += room.bin(i);
            rest = target = share(sample_sum(all, room));
        }
        sample_find(rest, room);
        from += float(SAMPLE_BINS - 1 - int(room.found)) / per;
        rest -= room.before;
        source.each([&](u64 place, float logit) {
            const float below = depth(logit) - from;
            if (place < cut || (below < 0.0f && !keep) || below * per >= 1.0f) return;
            const unsigned at = atomicAdd(&room.listed, 1u);
            if (at < SAMPLE_LIST) room.list[at] = place;
        });
        __syncthreads();
        const unsigned listed = room.listed;
        if (listed <= SAMPLE_LIST) {
            const SampleSource list = {source.logits, room.list, int(listed), false};
            if (keep) source = list;
            return sample_select(list, cut, keep ? target : rest, weight, room);
        }
        per *= float(SAMPLE_BINS);
        __syncthreads();
    }
    return sample_select(source, cut, target, weight, room);
}

// The lowest place that top-k and top-p keep.
DEVICE u64 sample_cut_of(const SampleArgs& args, const DrawRow& draw, float top, SampleRoom& room) {
    const int vocab = args.vocab;
    const float* logits = args.logits + int64_t(blockIdx.x) * vocab;
    SampleSource source = {logits, nullptr, vocab, loads_wide(logits, vocab)};
    const float scale = 1.0f / draw.temperature;
    const SampleMass mass = {top, scale};
    auto enough = [&](u64 all) { return u64(ceil(double(draw.top_p) * double(all))); };
    u64 cut = 0;
    if (draw.top_k > 0 && draw.top_k < uint32_t(vocab)) {
        auto some = [&](u64) { return u64(draw.top_k); };
        cut = sample_narrow(source, cut, some, SampleCount(), {top, 64.0f}, draw.top_k <= SAMPLE_LIST / 2, room);
    }
    if (!(draw.top_p < 1.0f)) return cut;
    if (!source.list) {
        // Weights below 2^-44, for scaled logits more than 30.5 below the largest, count as 0: all that count are before the last bin.
        return sample_narrow(source, cut, enough, mass, {top, 64.0f * scale}, false, room);
    }
    u64 all = 0;
    source.each([&](u64 place, float logit) { all += place >= cut ? mass(logit) : 0; });
    return sample_select(source, cut, enough(sample_sum(all, room)), mass, room);
}

// 16 words of ChaCha8, starting at word `16 counter`.
DEVICE void sample_words(const DrawRow& draw, u64 counter, uint32_t (&x)[16]) {
    uint32_t start[16] = {0x61707865u, 0x3320646eu, 0x79622d32u, 0x6b206574u};
#pragma unroll
    for (int i = 0; i < 8; i++) start[4 + i] = draw.key[i];
    start[12] = uint32_t(counter);
    start[13] = uint32_t(counter >> 32);
    start[14] = draw.stream[0];
    start[15] = draw.stream[1];
#pragma unroll
    for (int i = 0; i < 16; i++) x[i] = start[i];
    auto turned = [](uint32_t v, int by) { return v << by | v >> (32 - by); };
    auto quarter = [&](int a, int b, int c, int d) {
        x[a] += x[b], x[d] = turned(x[d] ^ x[a], 16);
        x[c] += x[d], x[b] = turned(x[b] ^ x[c], 12);
        x[a] += x[b], x[d] = turned(x[d] ^ x[a], 8);
        x[c] += x[d], x[b] = turned(x[b] ^ x[c], 7);
    };
#pragma unroll
    for (int round = 0; round < 4; round++) {
        quarter(0, 4, 8, 12), quarter(1, 5, 9, 13), quarter(2, 6, 10, 14), quarter(3, 7, 11, 15);
        quarter(0, 5, 10, 15), quarter(1, 6, 11, 12), quarter(2, 7, 8, 13), quarter(3, 4, 9, 14);
    }
#pragma unroll
    for (int i = 0; i < 16; i++) x[i] += start[i];
}

// Selects one of 16 registers.
DEVICE uint32_t sample_word(const uint32_t (&x)[16], int which) {
    uint32_t word = 0;
#pragma unroll
    for (int i = 0; i < 16; i++)
        if (i == which) word = x[i];
    return word;
}

// The block counter of the words of 16 tokens.
DEVICE u64 sample_counter(const DrawRow& draw, int group) {
    return (u64(draw.step[1]) << 32 | draw.step[0]) << 28 | u64(group);
}

// The noise of a token whose first word is known: 64 bits of 1 - u, at the middle of their interval, as in the engine.
DEVICE double sample_noise(const DrawRow& draw, int id, uint32_t word) {
    uint32_t words[16];
    sample_words(draw, u64(1) << 63 | sample_counter(draw, id / 16), words);
    const u64 bits = u64(word) << 32 | sample_word(words, id % 16);
    const double v = (double(bits) + 0.5) / 18446744073709551616.0;
    return -log(-log1p(-v));
}

DEVICE double sample_score(const DrawRow& draw, float logit, float top, int id, uint32_t word) {
    return (double(logit) - double(top)) / double(draw.temperature) + sample_noise(draw, id, word);
}

DEVICE bool sample_keeps(const SampleRow& row, float logit, int id) {
    return logit > -INFINITY && double(logit) >= row.floor && sample_place(logit, uint32_t(id)) >= row.cut;
}

// One block per row.
DEVICE void sample_cut(const SampleArgs& args) {
    SampleRoom& room = *reinterpret_cast<SampleRoom*>(shared_memory);
    const DrawRow& draw = args.draws[blockIdx.x];
    if (threadIdx.x < 32) {
        const Peak own = sample_joined(args, args.peaks);
        const Peak choosing = args.choosing == args.peaks ? own : sample_joined(args, args.choosing);
        if (threadIdx.x == 0) {
            room.peak = choosing;
            room.log_sum_exp = own.log_sum_exp();
        }
    }
    __syncthreads();
    const Peak peak = room.peak;
    SampleRow row;
    row.log_sum_exp = room.log_sum_exp;
    row.lead = row.floor = -INFINITY;
    row.cut = 0;
    row.top = peak.top;
    row.first = peak.at;
    if (sample_finite(row.log_sum_exp) && draw.temperature > 0.0f) {
        if ((draw.top_k > 0 && draw.top_k < uint32_t(args.vocab)) || draw.top_p < 1.0f)
            row.cut = sample_cut_of(args, draw, peak.top, room);
        if (draw.min_p > 0.0f) row.floor = log(double(draw.min_p)) * double(draw.temperature) + double(peak.top);
        // Of two zeros, the first may be the negative one, and cut.
        const float first = args.logits[int64_t(blockIdx.x) * args.vocab + peak.at];
        if (threadIdx.x == 0 && sample_keeps(row, first, int(peak.at))) {
            uint32_t words[16];
            sample_words(draw, sample_counter(draw, int(peak.at) / 16), words);
            const uint32_t word = sample_word(words, int(peak.at) % 16);
            row.lead = sample_score(draw, peak.top, peak.top, int(peak.at), word);
        }
    }
    if (threadIdx.x == 0) args.rows[blockIdx.x] = row;
}

DEVICE void sample_take(SampleBest& best, double score, u64 rank) {
    if (score > best.score || (score == best.score && rank < best.rank)) best = {score, rank};
}

// An upper bound of the noise of a token with this first word, rarely more than 0.1 above it where the noise is large: G <= -ln v, and
// the bits of a float, read as an integer, are at most 2^23 (log2 of it + 127).
DEVICE float sample_bound(uint32_t word) {
    const float v = float(word >> 8);
    return (24.0f + 127.0f - float(int(__float_as_uint(v))) / 8388608.0f) * 0.693147180559945309417232f;
}

// Each thread handles 16 tokens, the words of one ChaCha block. Nearly all are excluded by an f32 bound, the same as the engine's.
DEVICE void sample_draw(const SampleArgs& args) {
    constexpr float MOST = 45.1f, SLACK = 1e-3f;
    const int part = blockIdx.y;
    const SampleRow row = args.rows[blockIdx.x];
    const DrawRow& draw = args.draws[blockIdx.x];
    SampleBest best = {-INFINITY, ~u64(0)};
    if (!sample_finite(row.log_sum_exp) || !(draw.temperature > 0.0f)) {
        if (threadIdx.x == 0) args.bests[int64_t(blockIdx.x) * args.parts + part] = best;
        return;
    }
    const float* logits = args.logits + int64_t(blockIdx.x) * args.vocab;
    const bool wide = loads_wide(logits, args.vocab);
    // Kept finite, so that no product with it is NaN; where it is too small, bounds are too large.
    const float scale = fminf(1.0f / draw.temperature, 3.402823466e38f);
    float to_beat = float(row.lead) - SLACK;
    const int end = min(args.vocab, (part + 1) * SAMPLE_PART);
    // A warp stays together, though some of its lanes may be past the end.
    for (int begin = part * SAMPLE_PART; begin < end; begin += 16 * int(blockDim.x)) {
        const int first = begin + 16 * int(threadIdx.x);
        float x[16];
#pragma unroll
        for (int i = 0; i < 16; i += 4) {
            float four[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
            if (wide) {
                if (first + i < end) load<4>(logits + first + i, four);
            } else {
#pragma unroll
                for (int k = 0; k < 4; k++)
                    if (first + i + k < end) four[k] = logits[first + i + k];
            }
#pragma unroll
            for (int k = 0; k < 4; k++) x[i + k] = four[k];
        }
        float most = -INFINITY;
#pragma unroll
        for (int i = 0; i < 16; i++) most = fmaxf(most, x[i]);
        // A token with the largest of these logits (never the negative of two zeros) and the lowest id would be at least as likely as each
        // of them; and no noise is larger than MOST.
        const bool may = sample_keeps(row, most + 0.0f, first) && (most - row.top) * scale + MOST >= to_beat;
        most = -INFINITY;
        uint32_t words[16];
        if (may) {
            sample_words(draw, sample_counter(draw, first / 16), words);
#pragma unroll
            for (int i = 0; i < 16; i++) {
                x[i] = (x[i] - row.top) * scale + sample_bound(words[i]);
                most = fmaxf(most, x[i]);
            }
        }
        const float highest = max_lanes(most);
        if (highest < to_beat) continue;
        // First the tokens at the warp's highest bound: few others can beat their score.
        float from = highest;
#pragma unroll 1
        for (int turn = 0; turn < 2; turn++) {
            unsigned close = 0;
#pragma unroll
            for (int i = 0; i < 16; i++)
                if (may && x[i] >= from && (turn == 0 || x[i] < highest)) close |= 1u << i;
#pragma unroll 1
            for (int i = 0; i < 16; i++) {
                const int id = first + i;
                if (!(close >> i & 1) || id >= end) continue;
                const float logit = logits[id];
                if (!sample_keeps(row, logit, id)) continue;
                // Among equal scores the likeliest token wins, then the lower id.
                const u64 rank = uint32_t(id) == row.first ? 0 : u64(id) + 1;
                sample_take(best, sample_score(draw, logit, row.top, id, sample_word(words, i)), rank);
            }
            // A score far below would be rounded by more than the slack.
            const float score = max_lanes(float(best.score));
            if (score > -100.0f) to_beat = fmaxf(to_beat, score - SLACK);
            from = to_beat;
        }
    }
    SampleBest* bests = reinterpret_cast<SampleBest*>(shared_memory);
    for (int mask = 16; mask > 0; mask /= 2) {
        const double score = __shfl_xor_sync(ALL, best.score, mask);
        const u64 rank = __shfl_xor_sync(ALL, best.rank, mask);
        sample_take(best, score, rank);
    }
    if (threadIdx.x % 32 == 0) bests[threadIdx.x / 32] = best;
    __syncthreads();
    if (threadIdx.x > 0) return;
    for (int warp = 1; warp < int(blockDim.x) / 32; warp++) sample_take(best, bests[warp].score, bests[warp].rank);
    args.bests[int64_t(blockIdx.x) * args.parts + part] = best;
}

// One warp per row.
DEVICE void sample_end(const SampleArgs& args) {
    const SampleRow row = args.rows[blockIdx.x];
    sample_restore(args);
    SampleBest best = {-INFINITY, ~u64(0)};
    for (int part = threadIdx.x; part < args.parts; part += 32) {
        const SampleBest& other = args.bests[int64_t(blockIdx.x) * args.parts + part];
        sample_take(best, other.score, other.rank);
    }
    for (int mask = 16; mask > 0; mask /= 2) {
        const double score = __shfl_xor_sync(ALL, best.score, mask);
        const u64 rank = __shfl_xor_sync(ALL, best.rank, mask);
        sample_take(best, score, rank);
    }
    if (threadIdx.x > 0) return;
    const bool numbers = sample_finite(row.log_sum_exp);
    // Nothing was drawn in greedy mode.
    const uint32_t token = best.rank == 0 || best.rank == ~u64(0) ? row.first : uint32_t(best.rank - 1);
    args.tokens[blockIdx.x] = numbers ? token : 0xffffffffu;
    double* chosen = args.chosen + 2 * int64_t(blockIdx.x);
    chosen[0] = numbers ? double(token) : NAN;
    chosen[1] = numbers ? double(args.logits[int64_t(blockIdx.x) * args.vocab + token]) - row.log_sum_exp : NAN;
}

KERNEL(sample_peaks, 256, SampleArgs, sample_peak)
KERNEL(sample_penalties, 256, SampleArgs, sample_penalise)
KERNEL(sample_choosing_peaks, 256, SampleArgs, sample_choosing_peak)
KERNEL(sample_cuts, 1024, SampleArgs, sample_cut)
KERNEL(sample_draws, 256, SampleArgs, sample_draw)
KERNEL(sample_ends, 32, SampleArgs, sample_end)
