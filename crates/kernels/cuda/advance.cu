// The end of a decode step that is played back from a recording: the chosen token becomes the next input.
#include "common.cuh"

struct AdvanceArgs {
    const uint32_t* tokens; // [n], chosen
    const double* chosen;   // [n, 2], token and log-probability
    const uint32_t* stops;  // [n, stop_count], tokens that end each row
    uint32_t* ids;          // [n]
    uint32_t* positions;    // [n]
    uint32_t* attention;    // [n, 4]: first token, tokens, start, cache row
    uint32_t* states;       // [n, 4]: first token, tokens, start, slot
    uint32_t* left;         // [n], tokens that the row may still write
    uint32_t* draws;        // [n, draw_size], whose word `draw_step` counts the row's draws
    uint32_t* written;      // [n], tokens already in `out`
    uint32_t* out;          // [n, room]
    double* out_logprobs;   // [n, room]
    int n, stop_count, draw_size, draw_step, room;
};

// Each thread handles one row. A row that has ended is idle: its span has no tokens.
DEVICE void advance_row(const AdvanceArgs& args) {
    const int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= args.n || args.attention[4 * row + 1] == 0) return;
    const uint32_t token = args.tokens[row], at = args.written[row];
    if (at >= uint32_t(args.room)) return;
    args.out[row * args.room + at] = token;
    args.out_logprobs[row * args.room + at] = args.chosen[2 * row + 1];
    args.written[row] = at + 1;
    // A row with a NaN logit, or whose largest is not finite, gets no token. The host reports it; the invalid id is never looked up.
    const bool none = token == 0xffffffffu;
    bool ends = --args.left[row] == 0 || none;
    for (int i = 0; i < args.stop_count; i++) ends = ends || args.stops[row * args.stop_count + i] == token;
    if (!none) args.ids[row] = token;
    args.positions[row]++;
    args.attention[4 * row + 2]++;
    args.states[4 * row + 2]++;
    args.draws[row * args.draw_size + args.draw_step]++;
    if (ends) args.attention[4 * row + 1] = args.states[4 * row + 1] = 0;
}

KERNEL(advance, 128, AdvanceArgs, advance_row)
