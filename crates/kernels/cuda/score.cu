// Scores of rows under the language-model head, from their logits, which are read once and reduced to a few numbers per row.
#include "logits.cuh"

struct ScoreRow {
    double log_sum_exp, target_logprob, kl, argmax;
};

struct ScoreArgs {
    const float* logits;     // [rows, vocab]
    const uint32_t* targets; // [rows]
    const uint32_t* of;      // [rows], the base row of each; or null
    const float* base;       // [base rows, vocab], or null
    const ScoreRow* of_base; // [base rows], what this kernel gave for them; or null
    ScoreRow* out;           // [rows]; NaN where a logit is not finite
    int vocab;
    float cap; // the softcap, 0 for none
};

// e^x - 1 - x without cancellation.
DEVICE double above_tangent(double x) {
    if (fabs(x) > 0.25) return expm1(x) - x;
    // The series up to x^12 / 12!.
    double y = 1.0 / 479001600.0;
    y = y * x + 1.0 / 39916800.0;
    y = y * x + 1.0 / 3628800.0;
    y = y * x + 1.0 / 362880.0;
    y = y * x + 1.0 / 40320.0;
    y = y * x + 1.0 / 5040.0;
    y = y * x + 1.0 / 720.0;
    y = y * x + 1.0 / 120.0;
    y = y * x + 1.0 / 24.0;
    y = y * x + 1.0 / 6.0;
    y = y * x + 0.5;
    return y * x * x;
}

DEVICE float capped(const ScoreArgs& args, float x) {
    return args.cap > 0.0f ? args.cap * tanhf(x / args.cap) : x;
}

// How far a row is from its base row: sums weighted with the base's probabilities p, where d = l_row - l_base - shift. They are
// merged in f64, so that rounding of p affects the KL by no more than 1e-7 of its value; see `score_head`.
struct ScoreApart {
    double mass, line, above; // the sums of p, p d and p (e^d - 1 - d)

    DEVICE void take(float x, float y, float sum, double shift) {
        const double p = expf(y - sum), d = double(x) - double(y) - shift;
        mass += p;
        line += p * d;
        above += p * above_tangent(d);
    }

    // `rise` is how far the row's log-sum-exp is above the base's.
    DEVICE double divergence(double rise, double shift) const {
        const double mean = line / mass, close = log1p(above / mass + mean), direct = rise - shift;
        // If the row has mass where the base has none in f32, or a sum overflowed, the log-sum-exps are used.
        const bool alike = fabs(close - direct) <= 1e-5 * (1.0 + fabs(direct));
        return (alike ? close : direct) - mean;
    }
};

// A warp's result, to be merged by the block.
struct ScoreShare {
    Peak peak;
    ScoreApart apart;
};

// One block per row: its next logits load while the previous ones are summed, and a chunk has more rows than blocks fit on a
// card.
template <bool BASE>
DEVICE void score_row(const ScoreArgs& args) {
    const int row = blockIdx.x, vocab = args.vocab;
    const float* logits = args.logits + int64_t(row) * vocab;
    const float* base = nullptr;
    float base_sum = 0.0f;
    double shift = 0.0;
    const ScoreRow* of_base = nullptr;
    if (BASE) {
        of_base = args.of_base + args.of[row];
        base = args.base + int64_t(args.of[row]) * vocab;
        base_sum = float(of_base->log_sum_exp);
        // At the base's likeliest token, so that d is small wherever the rows agree. A base row of nothing but NaN has none; its
        // results are rejected in the end.
        const int peak = of_base->argmax < vocab ? int(of_base->argmax) : 0;
        shift = double(capped(args, logits[peak])) - double(capped(args, base[peak]));
    }
    const bool wide = loads_wide(logits, vocab) && (!BASE || loads_wide(base, vocab));
    ScoreShare own;
    own.peak.none();
    own.apart = {0.0, 0.0, 0.0};
    float spoilt = 0.0f;
    for (int from = 0; from < vocab; from += stride_of_block()) {
        float x[FETCHED], y[FETCHED];
        fetch(logits, vocab, wide, from, x);
        if (BASE) fetch(base, vocab, wide, from, y);
#pragma unroll
        for (int i = 0; i < FETCHED; i++) {
            if (logit_at(from, i) >= vocab) continue;
            // NaN if the logit is not finite, which a softcap or an exponential would hide.
            spoilt += x[i] * 0.0f;
            x[i] = capped(args, x[i]);
            if (BASE) own.apart.take(x[i], capped(args, y[i]), base_sum, shift);
        }
        own.peak.take(from, x);
    }
    own.peak.sum += spoilt;
    own.peak.join_lanes();
    if (BASE) {
        own.apart.mass = sum_lanes(own.apart.mass);
        own.apart.line = sum_lanes(own.apart.line);
        own.apart.above = sum_lanes(own.apart.above);
    }
    ScoreShare* shares = reinterpret_cast<ScoreShare*>(shared_memory);
    if (threadIdx.x % 32 == 0) shares[threadIdx.x / 32] = own;
    __syncthreads();
    if (threadIdx.x > 0) return;
    for (int warp = 1; warp < int(blockDim.x) / 32; warp++) {
        own.peak.join(shares[warp].peak);
        own.apart.mass += shares[warp].apart.mass;
        own.apart.line += shares[warp].apart.line;
        own.apart.above += shares[warp].apart.above;
    }
    ScoreRow out;
    out.log_sum_exp = own.peak.log_sum_exp();
    out.target_logprob = double(capped(args, logits[args.targets[row]])) - out.log_sum_exp;
    out.argmax = own.peak.at;
    out.kl = BASE ? own.apart.divergence(out.log_sum_exp - of_base->log_sum_exp, shift) : 0.0;
    args.out[row] = out;
}

DEVICE void score_any(const ScoreArgs& args) {
    if (args.of)
        score_row<true>(args);
    else
        score_row<false>(args);
}

KERNEL(score, 512, ScoreArgs, score_any)
