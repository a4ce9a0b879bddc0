// Shared by the forms of causal attention of packed sequences against their caches.
#pragma once

#include "common.cuh"

// Keys that one block of the decode forms reads, counted from the first key its query sees. The size is fixed, so that a token's
// bits do not depend on its batch.
constexpr int ATTEND_SPLIT = 512;

// The largest score before any key was seen. Finite, so that a later score of -inf gives weight 0 and not inf - inf.
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

// For the decode forms: one query at a time. Spans differ only in their table.
struct AttendArgs {
    const void* q;       // [n, heads, dim]
    const void* k;       // [cache rows, kv, dim]
    const void* v;       // [cache rows, kv, dim]
    const int* spans;    // [spans, 4]: first token, tokens, start, cache row
    const float* lambda; // [n, heads], or null
    void* out;           // [n, heads, dim]
    float* sums;         // [jobs, heads, splits, dim]; null if no query has more than one split
    float* tops;         // [jobs, heads, splits, 2]: the largest score and the sum of weights
    int heads, kv, dim;
    int window;     // 0: none
    int splits;     // of the longest sequence
    int span_count;
    int first;      // the first job of this launch
    int each;       // a job is a token; else a span, and spans of more than one token are skipped
    int stripes;    // warps that share the keys of the same heads, in the form without tensor cores
    float scale;
};

// A query: its token, and the keys from `from` up to but excluding `to`; position 0 is in cache row `cache`.
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
