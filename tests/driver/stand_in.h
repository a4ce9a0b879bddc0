// What the parts of the stand-in driver share.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "emulate.h"
#include "memory.h"

// CUresult.
enum Result {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    NOT_FOUND = 500,
    LAUNCH_OUT_OF_RESOURCES = 701,
    NOT_SUPPORTED = 801,
    STREAM_CAPTURE_UNSUPPORTED = 900,
    STREAM_CAPTURE_INVALIDATED = 901,
    STREAM_CAPTURE_UNMATCHED = 903,
};

namespace driver {

// CUgraphNodeType.
enum Kind { KERNEL = 0, MEMCPY = 1, MEMSET = 2, MEM_ALLOC = 10, MEM_FREE = 11 };

struct Node {
    Kind kind;
    const char* name;
    std::function<void()> work;
};

struct Device;
struct Graph;

struct Stream {
    explicit Stream(Device* device) : device(device) {}
    Device* device;
    // Work that it was asked for and has not done.
    std::deque<Node> queue;
    // Where it records work, null if it does not; and whether the recording went wrong.
    Graph* graph = nullptr;
    bool invalid = false;
};

std::recursive_mutex& lock();
Memory& memory();

// Queues work in a stream behind all that it was asked for before, or records it.
Result ask(Stream* stream, Kind kind, const char* name, std::function<void()> work);

} // namespace driver
