// The short causal convolution with carried state.
#include "common.cuh"

struct ConvArgs {
    const void* x;       // token `i` begins at `i * token`
    const float* weight; // [channels, kernel]
    void* state;         // [slots, kernel - 1, channels], oldest first
    const int* spans;    // [spans, 4]: first token, tokens, start, slot
    void* out;           // [n, channels]
    int64_t token;
    int n, span_count, channels, kernel;
    int state_f32; // else as x
    int wide;      // widths, strides and addresses are whole fours
};

// Tokens of a block. A kernel reaches back fewer, so that the first block of a span alone reads the state, and may write it.
constexpr int CONV_TILE = 32;

// The inputs of one sequence on four channels: those that the state holds, then those of its tokens.
template <class T, bool wide>
struct ConvRows {
    const ConvArgs& args;
    const T* x;
    int64_t at; // of the state
    int channel, start;

    DEVICE void operator()(int i, float (&out)[4]) const {
        const int held = args.kernel - 1, count = args.channels - channel;
        if (i >= held) return widened(four<wide>(x + (i - held) * args.token, count), out);
        const int64_t row = at + int64_t(i) * args.channels;
        if (start == 0)
            widened(Pack<float, 4>{}, out);
        else if (args.state_f32)
            widened(four<wide>(static_cast<const float*>(args.state) + row, count), out);
        else
            widened(four<wide>(static_cast<const T*>(args.state) + row, count), out);
    }

    DEVICE void keep(int i, const float (&row)[4]) const {
        const int64_t to = at + int64_t(i) * args.channels;
        if (args.state_f32)
            put_four<wide>(row, static_cast<float*>(args.state) + to, args.channels - channel);
        else
            put_four<wide>(row, static_cast<T*>(args.state) + to, args.channels - channel);
    }

    template <class U>
    DEVICE static void widened(Pack<U, 4> pack, float (&out)[4]) {
#pragma unroll
        for (int c = 0; c < 4; c++) out[c] = widen(pack.x[c]);
    }
};

// A thread has four channels of a tile of tokens. Tiles are counted so that each span begins one: that of span `s` has the
// number `first / CONV_TILE + s`, and there are always numbers enough before the next span's.
template <class T, int taps, bool wide>
DEVICE void conv_tile(const ConvArgs& args) {
    const int number = blockIdx.y, lane = threadIdx.x % 32;
    auto tile_of = [&](int s) { return args.spans[4 * s] / CONV_TILE + s; };
    // The tile's span is the last that begins at its number or before it.
    int begun = 0;
    for (int s = lane; s < args.span_count; s += 32) begun += tile_of(s) <= number;
    const int s = sum_lanes(begun) - 1, channel = 4 * (blockIdx.x * blockDim.x + threadIdx.x), channels = args.channels;
    if (channel >= channels) return;
    T* out = static_cast<T*>(args.out) + channel;
    const float zeros[4] = {};
    auto clear = [&](int from, int to) {
        for (int token = from; token < to; token++)
            put_four<wide>(zeros, out + int64_t(token) * channels, channels - channel);
    };
    // The tokens of no span: the first tile clears those before all spans, the first of each span those behind it.
    if (number == 0) clear(0, args.span_count ? args.spans[0] : args.n);
    if (s < 0) return;
    const Pack<int, 4> span = reinterpret_cast<const Pack<int, 4>*>(args.spans)[s];
    const int first = span.x[0], len = span.x[1], tile = number - tile_of(s);
    if (tile == 0) clear(first + len, s + 1 < args.span_count ? args.spans[4 * s + 4] : args.n);

    const int kernel = taps ? taps : args.kernel, held = kernel - 1, from = tile * CONV_TILE;
    if (from >= len) return;
    const int end = min(from + CONV_TILE, len);
    const T* x = static_cast<const T*>(args.x) + first * args.token + channel;
    const ConvRows<T, wide> row{args, x, int64_t(span.x[3]) * held * channels + channel, channel, span.x[2]};
    auto finish = [&](float (&sum)[4], int token) {
#pragma unroll
        for (int c = 0; c < 4; c++) sum[c] = silu(sum[c]);
        put_four<wide>(sum, out + int64_t(first + token) * channels, channels - channel);
    };
    if constexpr (taps != 0) {
        static_assert(wide, "taps of a channel are read at once");
        float weight[4][taps], window[taps][4];
#pragma unroll
        for (int c = 0; c < 4; c++) load<taps>(args.weight + int64_t(channel + c) * taps, weight[c]);
#pragma unroll
        for (int i = 0; i < taps - 1; i++) row(from + i, window[i]);
        // A few tokens are on their way at a time.
        constexpr int AHEAD = 4;
        for (int token = from; token < end; token += AHEAD) {
            float fresh[AHEAD][4];
#pragma unroll
            for (int a = 0; a < AHEAD; a++)
                if (token + a < end) row(token + a + taps - 1, fresh[a]);
#pragma unroll
            for (int a = 0; a < AHEAD; a++) {
                if (token + a >= end) break;
                float sum[4] = {};
#pragma unroll
                for (int c = 0; c < 4; c++) {
                    window[taps - 1][c] = fresh[a][c];
#pragma unroll
                    for (int tap = 0; tap < taps; tap++) sum[c] = fmaf(weight[c][tap], window[tap][c], sum[c]);
#pragma unroll
                    for (int tap = 0; tap < taps - 1; tap++) window[tap][c] = window[tap + 1][c];
                }
                finish(sum, token + a);
            }
        }
    } else {
        for (int token = from; token < end; token++) {
            float sum[4] = {};
            for (int tap = 0; tap < kernel; tap++) {
                float in[4];
                row(token + tap, in);
#pragma unroll
                for (int c = 0; c < 4; c++)
                    if (channel + c < channels)
                        sum[c] = fmaf(args.weight[int64_t(channel + c) * kernel + tap], in[c], sum[c]);
            }
            finish(sum, token);
        }
    }
    if (tile != 0) return;
    for (int i = 0; i < held; i++) {
        // Ascending: a row of the state is read before it is written.
        float last[4];
        row(i + len, last);
        row.keep(i, last);
    }
}

template <class T>
DEVICE void conv(const ConvArgs& args) {
    if (args.kernel == 4 && args.wide)
        conv_tile<T, 4, true>(args);
    else
        conv_tile<T, 0, false>(args);
}

KERNEL_OF_TYPES(conv, 128, ConvArgs, conv)
