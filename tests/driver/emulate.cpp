// All kernels, and the emulation that runs them: one translation unit, so that every kernel is in its table.
#include "emulate.h"

#include <algorithm>
#include <map>
#include <memory>
#include <setjmp.h>
#include <string>
#include <ucontext.h>

thread_local Dim3 threadIdx, blockIdx, blockDim, gridDim;
thread_local unsigned char* shared_memory;

namespace emulate {

static std::map<std::string, Entry>& table() {
    static std::map<std::string, Entry> kernels;
    return kernels;
}

Kernel::Kernel(const char* name, Entry entry) { table()[name] = entry; }

const Entry* find(const char* name) {
    const auto found = table().find(name);
    return found == table().end() ? nullptr : &found->second;
}

static void fail(const char* why) {
    fprintf(stderr, "emulated kernel: %s (block %u %u %u, thread %u)\n", why, blockIdx.x, blockIdx.y, blockIdx.z,
            threadIdx.x);
    abort();
}

enum State { READY, AT_WARP, AT_BLOCK, DONE };

static const size_t STACK = 256 << 10;

struct Copy {
    void* to;
    const void* from; // null: zeros
    unsigned group;
};

// A thread of the block being run.
struct Fiber {
    ucontext_t context; // begins here
    jmp_buf place;      // and resumes here
    bool begun = false;
    // Not initialised: pages that are never used take no memory.
    std::unique_ptr<unsigned char[]> stack{new unsigned char[STACK]};
    State state;
    // Counts exchanges: the warp's two exchange places are used in turn.
    unsigned exchanges;
    // The copies it has not waited for, and the number of copy groups it has ended.
    std::vector<Copy> copies;
    unsigned groups;
};

struct Block {
    std::vector<Fiber*> fibers;
    std::vector<unsigned char> rooms;
    jmp_buf scheduler;
    size_t current;
    const void* const* parameters;
    Entry::Body body;
    bool backwards;
};

static thread_local Block block;

// Switches back to the scheduler. `swapcontext` would save the signal mask with a system call at every switch.
static void leave(State state) {
    Fiber& fiber = *block.fibers[block.current];
    fiber.state = state;
    if (_setjmp(fiber.place) == 0) _longjmp(block.scheduler, 1);
}

// The body of a fiber: runs threads of blocks, one after another.
static void enter() {
    for (;;) {
        block.body(block.parameters);
        leave(DONE);
    }
}

// Resumes a fiber until it leaves.
static void go_on(Fiber& fiber) {
    if (_setjmp(block.scheduler) != 0) return;
    if (fiber.begun) _longjmp(fiber.place, 1);
    fiber.begun = true;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, enter, 0);
    setcontext(&fiber.context);
}

void block_barrier() { leave(AT_BLOCK); }
void warp_barrier() { leave(AT_WARP); }
unsigned char* warp_room() {
    Fiber& fiber = *block.fibers[block.current];
    fiber.exchanges++;
    return &block.rooms[(block.current / 32 * 2 + fiber.exchanges % 2) * 32 * 128];
}

void aligned(const void* at) {
    if (uintptr_t(at) % 16 != 0) fail("16 bytes are moved from between two places of 16");
}

static void land(const Copy& copy) {
    if (copy.from)
        memcpy(copy.to, copy.from, 16);
    else
        memset(copy.to, 0, 16);
}

void copy_ahead(void* to, const void* from, bool there) {
    aligned(to);
    aligned(from);
    Fiber& fiber = *block.fibers[block.current];
    const Copy copy = {to, there ? from : nullptr, fiber.groups};
    if (block.backwards)
        fiber.copies.push_back(copy);
    else
        land(copy);
}

void copies_end() { block.fibers[block.current]->groups++; }

void copied_but(unsigned late) {
    Fiber& fiber = *block.fibers[block.current];
    std::vector<Copy>& copies = fiber.copies;
    const auto arrives = [&](const Copy& copy) { return copy.group + late < fiber.groups; };
    const auto later = std::find_if_not(copies.begin(), copies.end(), arrives);
    std::for_each(copies.begin(), later, land);
    copies.erase(copies.begin(), later);
}

void copied() {
    std::vector<Copy>& copies = block.fibers[block.current]->copies;
    for (const Copy& copy : copies) land(copy);
    copies.clear();
}

// Resumes the lanes of a warp, again and again while all wait for each other.
static void run_warp(const Launch& launch, size_t first, size_t lanes) {
    const Dim3 shape = launch.block;
    for (State from = READY;; from = AT_WARP) {
        size_t waiting = 0;
        for (size_t k = 0; k < lanes; k++) {
            const size_t i = first + (launch.backwards ? lanes - 1 - k : k);
            Fiber& fiber = *block.fibers[i];
            if (fiber.state == from) {
                block.current = i;
                threadIdx = {unsigned(i % shape.x), unsigned(i / shape.x % shape.y), unsigned(i / shape.x / shape.y)};
                go_on(fiber);
            }
            waiting += fiber.state == AT_WARP;
        }
        if (waiting == 0) return;
        if (waiting != lanes) fail("only some lanes of a warp reached its barrier or shuffle");
    }
}

// Releases the warps of the block that wait for each other. False if none do.
static bool release_block(size_t threads) {
    bool any = false;
    for (size_t i = 0; i < threads; i++)
        if (block.fibers[i]->state == AT_BLOCK) block.fibers[i]->state = READY, any = true;
    return any;
}

static void run_block(const Launch& launch) {
    const size_t threads = size_t(launch.block.x) * launch.block.y * launch.block.z;
    for (size_t i = 0; i < threads; i++) {
        Fiber& fiber = *block.fibers[i];
        fiber.state = READY, fiber.exchanges = 0, fiber.groups = 0;
        fiber.copies.clear();
    }
    // Each warp runs as far as it can before the next starts, so that code which needs a block barrier for its order fails
    // without it.
    const size_t warps = (threads + 31) / 32;
    do {
        for (size_t w = 0; w < warps; w++) {
            const size_t first = 32 * (launch.backwards ? warps - 1 - w : w), lanes = std::min<size_t>(32, threads - first);
            run_warp(launch, first, lanes);
        }
    } while (release_block(threads));
}

bool run(const Entry& kernel, const Launch& launch, const void* const* parameters) {
    const size_t threads = size_t(launch.block.x) * launch.block.y * launch.block.z;
    if (threads == 0 || threads > kernel.threads) return false;
    block.parameters = parameters;
    block.body = kernel.body;
    block.backwards = launch.backwards != 0;
    while (block.fibers.size() < threads) block.fibers.push_back(new Fiber);
    std::vector<unsigned char> shared(launch.shared + 16);
    shared_memory = shared.data() + (16 - uintptr_t(shared.data()) % 16) % 16;
    blockDim = launch.block;
    gridDim = launch.grid;
    for (unsigned z = 0; z < launch.grid.z; z++)
        for (unsigned y = 0; y < launch.grid.y; y++)
            for (unsigned x = 0; x < launch.grid.x; x++) {
                blockIdx = {x, y, z};
                // Memory that nobody wrote reads as NaN.
                memset(shared.data(), 0xff, shared.size());
                block.rooms.assign((threads + 31) / 32 * 2 * 32 * 128, 0xff);
                run_block(launch);
            }
    return true;
}

} // namespace emulate

#include "all.cuh"
