// Shared by the forms of the gated delta rule.
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
    int wide;    // widths, strides and addresses are multiples of four values
    int chunked; // spans of at least this many tokens go in chunks
};

// A warp's share of a head's state: `4 * across` columns, of which a lane has 4, and all of their rows, of which a lane has 4
// consecutive ones in every `4 * groups`.
//
// Columns are independent, so a warp waits for no other, and the sums over rows are shuffles, always in the same
// order.
template <int groups, bool wide>
struct DeltaColumns {
    static constexpr int FOURS = 4;
    static constexpr int ACROSS = 32 / groups; // lanes side by side
    static constexpr int MOST = 4 * FOURS * groups; // rows, as many as keys have values

    Pack<float, 4> s[4 * FOURS];

    static DEVICE int group() { return threadIdx.x % 32 / ACROSS; }
    // This lane's first column in the warp's tile.
    static DEVICE int column(int tile) { return 4 * (tile * ACROSS + threadIdx.x % 32 % ACROSS); }
    // The first row of the `b`th group of four.
    static DEVICE int row(int b) { return 4 * (b * groups + group()); }

    // Reads from `state`, where the lane's columns begin; `columns` of them exist. Zeros if nothing came `before`.
    DEVICE void read(const float* state, bool before, int dk, int dv, int columns) {
#pragma unroll
        for (int b = 0; b < FOURS; b++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const bool there = before && row(b) + i < dk;
                s[4 * b + i] = four<wide>(state + int64_t(row(b) + i) * dv, there ? columns : 0);
            }
    }

    // The first half of a token. Its key is in shared memory and its value in `u`, which becomes what is added along the key. `at`
    // returns the lane's `r`th row; `together` of its fours are processed at once.
    template <int together, class At>
    static DEVICE void recall(const float* k, float decay, float beta, float (&u)[4], const At& at) {
        float seen[4] = {};
#pragma unroll(together)
        for (int b = 0; b < FOURS; b++) {
            float key[4];
            load<4>(k + row(b), key);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const Pack<float, 4> s = at(4 * b + i);
#pragma unroll
                for (int c = 0; c < 4; c++) seen[c] = fmaf(key[i], s.x[c], seen[c]);
            }
        }
#pragma unroll
        for (int c = 0; c < 4; c++) {
#pragma unroll
            for (int i = ACROSS; i < 32; i *= 2) seen[c] += __shfl_xor_sync(ALL, seen[c], i);
            u[c] = beta * fmaf(-decay, seen[c], u[c]);
        }
    }

    // The second half: `put` receives the new `r`th row, and what the query reads from all rows is added to `z`, the sum over all rows
    // in every lane.
    template <int together, class At, class Put>
    static DEVICE void renew(const float* k, const float* q, float decay, const float (&u)[4], float (&z)[4], const At& at,
                             const Put& put) {
#pragma unroll(together)
        for (int b = 0; b < FOURS; b++) {
            float key[4], query[4];
            load<4>(k + row(b), key);
            load<4>(q + row(b), query);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                Pack<float, 4> s = at(4 * b + i);
#pragma unroll
                for (int c = 0; c < 4; c++) {
                    s.x[c] = fmaf(key[i], u[c], decay * s.x[c]);
                    z[c] = fmaf(query[i], s.x[c], z[c]);
                }
                put(4 * b + i, s);
            }
        }
#pragma unroll
        for (int c = 0; c < 4; c++)
#pragma unroll
            for (int i = ACROSS; i < 32; i *= 2) z[c] += __shfl_xor_sync(ALL, z[c], i);
    }

    // One token: its key and query are in shared memory, its value in `u`, which is overwritten. What the query reads is added to `z`.
    DEVICE void turn(const float* k, const float* q, float decay, float beta, float (&u)[4], float (&z)[4]) {
        auto at = [this](int r) { return s[r]; };
        recall<FOURS>(k, decay, beta, u, at);
        renew<FOURS>(k, q, decay, u, z, at, [this](int r, const Pack<float, 4>& row) { s[r] = row; });
    }

    DEVICE void write(float* state, int dk, int dv, int columns) const {
        // The addresses are computed again: kept since the loads, they would take the registers of a third block.
        int stride = dv;
        asm volatile("" : "+r"(stride));
#pragma unroll
        for (int r = 0; r < 4 * FOURS; r++) {
            const int at = row(r / 4) + r % 4;
            if (at < dk) put_four<wide>(s[r].x, state + int64_t(at) * stride, columns);
        }
    }
};
