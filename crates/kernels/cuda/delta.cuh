// What both forms of the gated delta rule are given.
#pragma once

#include "common.cuh"

struct DeltaArgs {
    const void* q;     // [n, key_heads, dk]
    const void* k;     // [n, key_heads, dk]
    const void* v;     // token `i`, head `h` begins at `i * token + h * head`
    const float* g;    // [n, heads]
    const float* beta; // [n, heads]
    float* state;      // [slots, heads, dk, dv]
    const int* spans;  // [spans, 4]: first token, tokens, start, slot
    void* out;         // [n, heads, dv]
    int64_t token, head;
    int n, span_count, key_heads, heads, dk, dv;
    int wide;    // widths, strides and addresses are whole fours
    int chunked; // spans of so many tokens go in chunks
};
