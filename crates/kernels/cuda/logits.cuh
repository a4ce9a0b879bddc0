// Reading rows of logits by a block, and what is kept of the vocabulary: the largest, and the sum of exponentials.
#pragma once
#include "common.cuh"

// Logits that a thread loads at once: four loads of 16 bytes.
constexpr int FETCHED = 16;

// Logits per step of a block.
DEVICE int stride_of_block() { return FETCHED * blockDim.x; }

// The index of a thread's `i`th logit, in the step that begins at `from`. Indices ascend with `i`.
DEVICE int logit_at(int from, int i) { return from + 4 * (i / 4 * int(blockDim.x) + int(threadIdx.x)) + i % 4; }

// Whether 16 bytes can be loaded at once; which thread has which logit does not depend on it.
DEVICE bool loads_wide(const float* row, int count) { return count % 4 == 0 && uintptr_t(row) % 16 == 0; }

// A thread's logits of a step, -inf past the end.
DEVICE void fetch(const float* row, int count, bool wide, int from, float (&x)[FETCHED]) {
    if (wide) {
#pragma unroll
        for (int i = 0; i < FETCHED; i += 4) {
            const int at = logit_at(from, i);
            float four[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
            if (at < count) load<4>(row + at, four);
#pragma unroll
            for (int k = 0; k < 4; k++) x[i + k] = four[k];
        }
    } else {
#pragma unroll
        for (int i = 0; i < FETCHED; i++) {
            const int at = logit_at(from, i);
            x[i] = at < count ? row[at] : -INFINITY;
        }
    }
}

// The largest of some logits, the first of equals, and the sum of e^{l - top}.
struct Peak {
    float top;
    uint32_t at;
    double sum; // NaN if a logit was NaN or +inf

    DEVICE void none() {
        top = -INFINITY;
        at = 0xffffffffu;
        sum = 0.0;
    }

    // Adds a thread's logits of a step.
    DEVICE void take(int from, const float (&x)[FETCHED]) {
        float most = x[0];
#pragma unroll
        for (int i = 1; i < FETCHED; i++) most = fmaxf(most, x[i]);
        if (most > top) {
            sum *= exp(double(top) - double(most));
            top = most;
            int first = 0;
#pragma unroll
            for (int i = FETCHED - 1; i >= 0; i--)
                if (x[i] == most) first = i;
            at = uint32_t(logit_at(from, first));
        }
        // Few values are summed in f32, all others in f64, because the vocabulary is long.
        const float back = top == -INFINITY ? 0.0f : top;
        float few = 0.0f;
#pragma unroll
        for (int i = 0; i < FETCHED; i++) few += expf(x[i] - back);
        sum += few;
    }

    // Merges another thread's result; both sides get the same.
    DEVICE void join(const Peak& other) {
        const float most = fmaxf(top, other.top);
        const double own = top == most ? sum : sum * exp(double(top) - double(most));
        const double theirs = other.top == most ? other.sum : other.sum * exp(double(other.top) - double(most));
        if (other.top > top || (other.top == top && other.at < at)) at = other.at;
        top = most;
        sum = own + theirs;
    }

    DEVICE void join_lanes() {
        for (int mask = 16; mask > 0; mask /= 2) {
            Peak other;
            other.top = __shfl_xor_sync(ALL, top, mask);
            other.at = __shfl_xor_sync(ALL, at, mask);
            other.sum = __shfl_xor_sync(ALL, sum, mask);
            join(other);
        }
    }

    DEVICE double log_sum_exp() const { return double(top) + log(sum); }
};

