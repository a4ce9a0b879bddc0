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
};

// Tokens per block. A kernel reaches back at most this far, so only the first block of a span reads the state, and it alone may
// write it.
constexpr int CONV_TILE = 32;

// Writes zeros on four channels for the tokens of no span that span `s`, from `first` to `end`, is responsible for: those after it
// up to the `next` span and, for the first span, also those before it.
template <class T, bool wide>
DEVICE void conv_clear(const ConvArgs& args, int channel, int s, int first, int end, int next) {
    const float zeros[4] = {};
    T* out = static_cast<T*>(args.out) + channel;
#pragma unroll 1
    for (int token = s == 0 && first > 0 ? 0 : end; token < next; token = token + 1 == first ? end : token + 1)
        put_four<wide>(zeros, out + int64_t(token) * args.channels, args.channels - channel);
}

// A tile of tokens: its span, and the tile's first token within it. Tiles are numbered so that each span begins one: span `s` starts
// at number `first / CONV_TILE + s`, which always leaves enough numbers before the next span's.
struct ConvTile {
    Pack<int, 4> span;
    int from;

    // Finds the block's tile, for a thread that has four channels; false if there is nothing to do.
    template <class T, bool wide>
    DEVICE bool find(const ConvArgs& args, int channel) {
        const int number = blockIdx.y, count = args.span_count;
        // The tile's span is the last one that begins at or before its number.
        const int s = last_at_most(number, count, [&](int i) { return args.spans[4 * i] / CONV_TILE + i; });
        if (channel >= args.channels) return false;
        if (s < 0) {
            if (number == 0) conv_clear<T, wide>(args, channel, 0, 0, 0, count ? args.spans[0] : args.n);
            return false;
        }
        span = reinterpret_cast<const Pack<int, 4>*>(args.spans)[s];
        from = (number - span.x[0] / CONV_TILE - s) * CONV_TILE;
        if (from == 0) {
            const int next = s + 1 < count ? args.spans[4 * s + 4] : args.n;
            conv_clear<T, wide>(args, channel, s, span.x[0], span.x[0] + span.x[1], next);
        }
        return from < span.x[1];
    }
};

template <class T, int N>
DEVICE void widen_pack(const Pack<T, N>& pack, float (&out)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) out[i] = widen(pack.x[i]);
}

// `silu` of several values; only rarely does a last bit differ. A card divides values one by one, because each quotient may be out of
// range; here the range is checked once, and the quotients are computed side by side.
template <int N>
DEVICE void silu_each(float (&x)[N]) {
#ifdef __CUDACC__
    float quotient[N];
    bool usual = true;
#pragma unroll
    for (int i = 0; i < N; i++) {
        const float by = 1.0f + expf(-x[i]);
        float over;
        asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(over) : "f"(by));
        over = fmaf(fmaf(-by, over, 1.0f), over, over);
        // The remainder of x corrects the quotient to the nearest number, unless an intermediate value is too small or too large.
        const float near = x[i] * over;
        quotient[i] = fmaf(fmaf(-by, near, x[i]), over, near);
        usual = usual & (fabsf(x[i]) > 1e-18f) & (fabsf(x[i]) < 80.0f);
    }
    if (usual) {
#pragma unroll
        for (int i = 0; i < N; i++) x[i] = quotient[i];
        return;
    }
#endif
#pragma unroll
    for (int i = 0; i < N; i++) x[i] = silu(x[i]);
}

// The inputs of one sequence on four channels: first those in the state, then those of its tokens.
template <class T>
struct ConvRows {
    const ConvArgs& args;
    const T* x;
    int64_t at; // of the state
    int channel, start;

    DEVICE void operator()(int i, float (&out)[4]) const {
        const int held = args.kernel - 1, count = args.channels - channel;
        if (i >= held) return widen_pack(four<false>(x + (i - held) * args.token, count), out);
        const int64_t row = at + int64_t(i) * args.channels;
        if (start == 0)
            widen_pack(Pack<float, 4>{}, out);
        else if (args.state_f32)
            widen_pack(four<false>(static_cast<const float*>(args.state) + row, count), out);
        else
            widen_pack(four<false>(static_cast<const T*>(args.state) + row, count), out);
    }

    DEVICE void keep(int i, const float (&row)[4]) const {
        const int64_t to = at + int64_t(i) * args.channels;
        if (args.state_f32)
            put_four<false>(row, static_cast<float*>(args.state) + to, args.channels - channel);
        else
            put_four<false>(row, static_cast<T*>(args.state) + to, args.channels - channel);
    }
};

// For any kernel size and alignment: each thread handles four channels of a tile of tokens.
template <class T>
DEVICE void conv(const ConvArgs& args) {
    const int channel = 4 * (blockIdx.x * blockDim.x + threadIdx.x), channels = args.channels, kernel = args.kernel;
    ConvTile tile = {};
    if (!tile.find<T, false>(args, channel)) return;
    const int first = tile.span.x[0], len = tile.span.x[1], held = kernel - 1, end = min(tile.from + CONV_TILE, len);
    const T* x = static_cast<const T*>(args.x) + first * args.token + channel;
    const ConvRows<T> row{args, x, int64_t(tile.span.x[3]) * held * channels + channel, channel, tile.span.x[2]};
    for (int token = tile.from; token < end; token++) {
        float sum[4] = {};
        for (int tap = 0; tap < kernel; tap++) {
            float in[4];
            row(token + tap, in);
#pragma unroll
            for (int c = 0; c < 4; c++)
                if (channel + c < channels) sum[c] = fmaf(args.weight[int64_t(channel + c) * kernel + tap], in[c], sum[c]);
        }
#pragma unroll
        for (int c = 0; c < 4; c++) sum[c] = silu(sum[c]);
        put_four<false>(sum, static_cast<T*>(args.out) + int64_t(first + token) * channels + channel, channels - channel);
    }
    if (tile.from != 0) return;
    for (int i = 0; i < held; i++) {
        // In ascending order, so that a row of the state is read before it is overwritten.
        float last[4];
        row(i + len, last);
        row.keep(i, last);
    }
}

KERNEL_OF_TYPES(conv, 128, ConvArgs, conv)

// For kernels of four taps where everything is a multiple of four.
constexpr int CONV_TAPS = 4, CONV_HELD = CONV_TAPS - 1;

// The taps of four channels.
struct ConvTaps {
    float weight[4][CONV_TAPS];

    DEVICE ConvTaps(const ConvArgs& args, int channel) {
#pragma unroll
        for (int c = 0; c < 4; c++) load<CONV_TAPS>(args.weight + int64_t(channel + c) * CONV_TAPS, weight[c]);
    }

    // A token's result, from the inputs before it and its own.
    template <class T>
    DEVICE void operator()(const float (*window)[4], T* out) const {
        float sum[4];
#pragma unroll
        for (int c = 0; c < 4; c++) {
            sum[c] = 0.0f;
#pragma unroll
            for (int tap = 0; tap < CONV_TAPS; tap++) sum[c] = fmaf(weight[c][tap], window[tap][c], sum[c]);
        }
        silu_each(sum);
        store<4>(sum, out);
    }
};

// Tokens being loaded while the same number is processed.
constexpr int CONV_AHEAD = 4;

// Each thread handles four channels of a tile of tokens.
template <class T, class State>
DEVICE void conv_tile(const ConvArgs& args) {
    const int channel = 4 * (blockIdx.x * blockDim.x + threadIdx.x), channels = args.channels;
    ConvTile tile = {};
    if (!tile.find<T, true>(args, channel)) return;
    const int first = tile.span.x[0], len = tile.span.x[1], end = min(tile.from + CONV_TILE, len);
    const T* x = static_cast<const T*>(args.x) + first * args.token + channel;
    auto row = [&](int i) { return Words<T, 4>::at(x + i * args.token); };
    Words<T, 4> next[CONV_AHEAD] = {};
#pragma unroll
    for (int a = 0; a < CONV_AHEAD; a++)
        if (tile.from + a < end) next[a] = row(tile.from + a);
    const ConvTaps taps(args, channel);
    // The inputs before the tokens being processed, and those of the tokens.
    float rows[CONV_HELD + CONV_AHEAD][4] = {};
    if (tile.from == 0) {
        State* state = static_cast<State*>(args.state) + int64_t(tile.span.x[3]) * CONV_HELD * channels + channel;
        if (tile.span.x[2] != 0) {
#pragma unroll
            for (int i = 0; i < CONV_HELD; i++) load<4>(state + int64_t(i) * channels, rows[i]);
        }
        // The new state: the last tokens, and those rows of the old state that they do not push out. All of it is read before any of
        // it is written, because a read would otherwise wait for a write.
        float kept[CONV_HELD][4];
#pragma unroll
        for (int i = 0; i < CONV_HELD; i++) {
            if (i + len >= CONV_HELD) {
                row(i + len - CONV_HELD).values(kept[i]);
            } else {
#pragma unroll
                for (int c = 0; c < 4; c++) kept[i][c] = i + len == 1 ? rows[1][c] : rows[2][c];
            }
        }
#pragma unroll
        for (int i = 0; i < CONV_HELD; i++) store<4>(kept[i], state + int64_t(i) * channels);
    } else {
#pragma unroll
        for (int i = 0; i < CONV_HELD; i++) row(tile.from + i - CONV_HELD).values(rows[i]);
    }
    const T* ahead = x + (tile.from + CONV_AHEAD) * args.token;
    T* out = static_cast<T*>(args.out) + int64_t(first + tile.from) * channels + channel;
    for (int left = end - tile.from; left > 0; left -= CONV_AHEAD) {
#pragma unroll
        for (int a = 0; a < CONV_AHEAD; a++) {
            next[a].values(rows[CONV_HELD + a]);
            if (CONV_AHEAD + a < left) next[a] = Words<T, 4>::at(ahead);
            ahead += args.token;
        }
#pragma unroll
        for (int a = 0; a < CONV_AHEAD; a++) {
            if (a < left) taps(rows + a, out);
            out += channels;
        }
#pragma unroll
        for (int i = 0; i < CONV_HELD; i++)
#pragma unroll
            for (int c = 0; c < 4; c++) rows[i][c] = rows[CONV_AHEAD + i][c];
    }
}

template <class T>
DEVICE void conv_tiles(const ConvArgs& args) {
    if (args.state_f32)
        conv_tile<T, float>(args);
    else
        conv_tile<T, T>(args);
}

KERNEL_OF_TYPES(conv_tiles, 128, ConvArgs, conv_tiles)

// Spans per block of `conv_steps`.
constexpr int CONV_SPANS = 4;

// If no span has more than one token: each thread handles four channels of a few spans, and issues the loads for all of them before
// it waits for the first.
template <class T, class State>
DEVICE void conv_step(const ConvArgs& args) {
    const int channel = 4 * (blockIdx.x * blockDim.x + threadIdx.x), channels = args.channels;
    if (channel >= channels) return;
    const int begin = blockIdx.y * CONV_SPANS;
    // Past the last span, use empty ones at the end of the tokens.
    Pack<int, 4> span[CONV_SPANS];
    int next = args.n;
#pragma unroll
    for (int i = 0; i < CONV_SPANS; i++) {
        span[i] = {args.n};
        if (begin + i < args.span_count) span[i] = reinterpret_cast<const Pack<int, 4>*>(args.spans)[begin + i];
    }
    if (begin + CONV_SPANS < args.span_count) next = args.spans[4 * (begin + CONV_SPANS)];
    const ConvTaps taps(args, channel);
    auto state_of = [&](int i) {
        return static_cast<State*>(args.state) + int64_t(span[i].x[3]) * CONV_HELD * channels + channel;
    };
    Words<T, 4> x[CONV_SPANS] = {};
    Words<State, 4> held[CONV_SPANS][CONV_HELD] = {};
#pragma unroll
    for (int i = 0; i < CONV_SPANS; i++) {
        if (span[i].x[1] == 0) continue;
        x[i] = Words<T, 4>::at(static_cast<const T*>(args.x) + span[i].x[0] * args.token + channel);
        if (span[i].x[2] == 0) continue;
#pragma unroll
        for (int k = 0; k < CONV_HELD; k++) held[i][k] = Words<State, 4>::at(state_of(i) + int64_t(k) * channels);
    }
#pragma unroll
    for (int i = 0; i < CONV_SPANS; i++) {
        const int first = span[i].x[0];
        if (span[i].x[1] != 0) {
            float window[CONV_TAPS][4];
#pragma unroll
            for (int k = 0; k < CONV_HELD; k++) held[i][k].values(window[k]);
            x[i].values(window[CONV_HELD]);
            State* state = state_of(i);
#pragma unroll
            for (int k = 0; k < CONV_HELD; k++) store<4>(window[k + 1], state + int64_t(k) * channels);
            taps(window, static_cast<T*>(args.out) + int64_t(first) * channels + channel);
        }
        const int behind = i + 1 < CONV_SPANS ? span[min(i + 1, CONV_SPANS - 1)].x[0] : next;
        conv_clear<T, true>(args, channel, begin + i, first, first + span[i].x[1], behind);
    }
}

template <class T>
DEVICE void conv_steps(const ConvArgs& args) {
    if (args.state_f32)
        conv_step<T, float>(args);
    else
        conv_step<T, T>(args);
}

KERNEL_OF_TYPES(conv_steps, 128, ConvArgs, conv_steps)
