// A stand-in for NVIDIA's driver, without a card: `libcuda.so` for tests. A binary built for CUDA opens it like the real one, so
// that everything the host does for a card runs unchanged: devices and their faults, memory and running out of it, streams,
// recordings and how they are played, which kernel is launched with what. Kernels are those of `emulate.h`, compiled from the
// same source as the card's.
//
// It is stricter than a card. Work is done only when somebody waits for it; memory holds no numbers until it is written, and
// cannot be touched before it is taken, beyond its end or after it was given back; a call that CUDA only discourages is an error.
// What a card does and this does not: concurrent work, caches, memory within a warp, cuBLAS's order of sums, and its speed. Only
// what this project calls is here.
//
// Environment: CUDA_VISIBLE_DEVICES (only the number of devices counts), STAND_IN_DEVICES (1), STAND_IN_MEMORY in MiB (4096),
// STAND_IN_CAPABILITY (90), STAND_IN_VERSION (13000), STAND_IN_FULL_AFTER (memory is full after so many allocations),
// STAND_IN_NO_UPLOAD (no memory to upload a recording), STAND_IN_NO_CAPTURE (nothing can be recorded) and STAND_IN_TRACE (a line on
// standard error for every launch).

#include "stand_in.h"

#include <csignal>
#include <set>
#include <string>
#include <unistd.h>

using namespace driver;

namespace driver {

static long setting(const char* name, long otherwise) {
    const char* text = getenv(name);
    return text ? atol(text) : otherwise;
}

std::recursive_mutex& lock() {
    static std::recursive_mutex it;
    return it;
}

Memory& memory() {
    static Memory it;
    return it;
}

// A device, which is its own context and its own pool of memory.
struct Device {
    int ordinal;
    size_t total = size_t(setting("STAND_IN_MEMORY", 4096)) << 20;
    // Bytes of the pool that are in use, and all that it holds: recordings get none of them.
    size_t used = 0, reserved = 0;
    // Bytes that recordings hold, and of them those of destroyed ones, which nothing else gets until they are trimmed.
    size_t recorded = 0, kept = 0;
    uint64_t threshold = 0;
    std::vector<Stream*> streams;

    // Allocations until another process has taken the rest of the memory; negative: never.
    long until_full = setting("STAND_IN_FULL_AFTER", -1);

    bool take(size_t bytes) {
        const size_t holds = used + bytes > reserved ? used + bytes : reserved;
        if (!there_is_room(holds, recorded)) return false;
        used += bytes;
        reserved = holds;
        return true;
    }

    bool record(size_t bytes) {
        if (!there_is_room(reserved, recorded + bytes)) return false;
        recorded += bytes;
        return true;
    }

private:
    bool there_is_room(size_t pool, size_t recordings) {
        if (kept > 0) fprintf(stderr, "stand-in driver: %zu bytes of recordings that are gone were not trimmed\n", kept);
        // What this process holds in its pool stays its own.
        if (until_full >= 0 && until_full-- == 0) total = reserved + recorded;
        return pool + recordings <= total;
    }
};

struct Graph {
    std::vector<Node> nodes;
    // Allocations that the nodes take and do not give back; bytes that they hold now, and the most at any time.
    std::set<uint64_t> kept;
    size_t now = 0, most = 0;
};

// A graph that can be launched.
struct Played {
    Graph graph;
    Device* device;
    bool gives_back;
    // The allocations of `kept` that the last launch left.
    std::set<uint64_t> there;
};

// The handle that a kernel is launched by.
struct Function {
    const emulate::Entry* kernel;
    std::string name;
    unsigned shared = 48 << 10;
};

struct Module {
    std::string image;
    std::map<std::string, Function> functions;
};

static bool begun = false;
static thread_local Device* current = nullptr;

static std::vector<Device>& devices() {
    static std::vector<Device> all = [] {
        size_t count = size_t(setting("STAND_IN_DEVICES", 1));
        if (const char* visible = getenv("CUDA_VISIBLE_DEVICES")) {
            size_t listed = *visible ? 1 : 0;
            for (; *visible; visible++) listed += *visible == ',';
            count = listed < count ? listed : count;
        }
        std::vector<Device> all(count);
        for (size_t i = 0; i < all.size(); i++) all[i].ordinal = int(i);
        return all;
    }();
    return all;
}

static Device* device(int ordinal) { return ordinal < 0 || ordinal >= int(devices().size()) ? nullptr : &devices()[ordinal]; }

// Returns an error and says why, which a card's driver would not.
static Result refuse(Result result, const char* why) {
    fprintf(stderr, "stand-in driver: %s\n", why);
    return result;
}

// What is running, for the message of a fault.
static const char* running = "nothing";

static void fault(int, siginfo_t* info, void*) {
    fprintf(stderr, "stand-in driver: %s touched %s\n", running, memory().about(uint64_t(info->si_addr)));
    _exit(139);
}

static void watch() {
    struct sigaction action = {};
    action.sa_sigaction = fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, nullptr);
    sigaction(SIGBUS, &action, nullptr);
}

// Does all the work that is queued in a stream.
static void finish(Stream* stream) {
    while (!stream->queue.empty()) {
        Node node = stream->queue.front();
        stream->queue.pop_front();
        running = node.name;
        node.work();
        running = "the host";
    }
    Device* on = stream->device;
    if (on->threshold == 0) on->reserved = on->used;
}

// Whether any stream records; nobody may then wait for the device.
static bool recording(Device* on) {
    for (Stream* stream : on->streams)
        if (stream->graph) return true;
    return false;
}

// An error while a stream records ends its recording.
static Result refused_in_recording(Stream* stream, const char* what) {
    stream->invalid = true;
    fprintf(stderr, "stand-in driver: %s cannot be recorded\n", what);
    return STREAM_CAPTURE_UNSUPPORTED;
}

static Result finish_all(Device* on) {
    if (recording(on)) {
        for (Stream* stream : on->streams) stream->invalid |= stream->graph != nullptr;
        return STREAM_CAPTURE_UNSUPPORTED;
    }
    for (Stream* stream : on->streams) finish(stream);
    return SUCCESS;
}

Result ask(Stream* stream, Kind kind, const char* name, std::function<void()> work) {
    if (stream->invalid) return STREAM_CAPTURE_INVALIDATED;
    Node node = {kind, name, std::move(work)};
    if (stream->graph)
        stream->graph->nodes.push_back(node);
    else
        stream->queue.push_back(node);
    return SUCCESS;
}

} // namespace driver

// Every call holds the lock, and needs `cuInit` to have been called and a context to be current.
#define ENTER                                                                                     \
    const std::lock_guard<std::recursive_mutex> locked(lock());                                  \
    if (!begun) return NOT_INITIALIZED;
#define ENTER_CONTEXT \
    ENTER             \
    if (!current) return INVALID_CONTEXT;

extern "C" {

Result cuInit(unsigned) {
    const std::lock_guard<std::recursive_mutex> locked(lock());
    if (devices().empty()) return NO_DEVICE;
    if (!begun) watch();
    begun = true;
    return SUCCESS;
}

Result cuDriverGetVersion(int* version) {
    *version = int(setting("STAND_IN_VERSION", 13000));
    return SUCCESS;
}

Result cuGetErrorName(Result result, const char** name) {
    switch (result) {
#define NAME(RESULT)                  \
    case RESULT:                      \
        *name = "CUDA_ERROR_" #RESULT; \
        break;
        NAME(INVALID_VALUE)
        NAME(OUT_OF_MEMORY)
        NAME(NOT_INITIALIZED)
        NAME(NO_DEVICE)
        NAME(INVALID_DEVICE)
        NAME(INVALID_CONTEXT)
        NAME(NOT_FOUND)
        NAME(LAUNCH_OUT_OF_RESOURCES)
        NAME(NOT_SUPPORTED)
        NAME(STREAM_CAPTURE_UNSUPPORTED)
        NAME(STREAM_CAPTURE_INVALIDATED)
        NAME(STREAM_CAPTURE_UNMATCHED)
#undef NAME
    default:
        *name = "CUDA_ERROR_UNKNOWN";
    }
    return SUCCESS;
}

Result cuGetErrorString(Result result, const char** text) {
    *text = result == OUT_OF_MEMORY ? "out of memory" : "the stand-in driver refused the call";
    return SUCCESS;
}

// Devices and contexts.

Result cuDeviceGetCount(int* count) {
    ENTER
    *count = int(devices().size());
    return SUCCESS;
}

Result cuDeviceGet(int* out, int ordinal) {
    ENTER
    if (!device(ordinal)) return INVALID_DEVICE;
    *out = ordinal;
    return SUCCESS;
}

Result cuDeviceGetName(char* name, int room, int ordinal) {
    ENTER
    if (!device(ordinal)) return INVALID_DEVICE;
    snprintf(name, size_t(room), "Stand-in %d", ordinal);
    return SUCCESS;
}

Result cuDeviceGetAttribute(int* out, int attribute, int ordinal) {
    ENTER
    if (!device(ordinal)) return INVALID_DEVICE;
    const int capability = int(setting("STAND_IN_CAPABILITY", 90));
    switch (attribute) {
    case 16: *out = 4; return SUCCESS;               // multiprocessors
    case 75: *out = capability / 10; return SUCCESS; // compute capability
    case 76: *out = capability % 10; return SUCCESS;
    case 115: *out = 1; return SUCCESS; // pools of memory
    default: return NOT_SUPPORTED;
    }
}

Result cuDeviceTotalMem_v2(size_t* bytes, int ordinal) {
    ENTER
    if (!device(ordinal)) return INVALID_DEVICE;
    *bytes = device(ordinal)->total;
    return SUCCESS;
}

Result cuDevicePrimaryCtxRetain(Device** context, int ordinal) {
    ENTER
    if (!device(ordinal)) return INVALID_DEVICE;
    *context = device(ordinal);
    return SUCCESS;
}

Result cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }

Result cuCtxSetCurrent(Device* context) {
    ENTER
    current = context;
    return SUCCESS;
}

Result cuCtxGetCurrent(Device** context) {
    ENTER
    *context = current;
    return SUCCESS;
}

Result cuCtxSynchronize() {
    ENTER_CONTEXT
    return finish_all(current);
}

// Streams.

Result cuStreamCreate(Stream** stream, unsigned flags) {
    ENTER_CONTEXT
    if (flags != 1) return NOT_SUPPORTED; // only those that do not wait for the default stream
    *stream = new Stream(current);
    current->streams.push_back(*stream);
    return SUCCESS;
}

Result cuStreamDestroy_v2(Stream* stream) {
    ENTER
    finish(stream);
    auto& all = stream->device->streams;
    for (size_t i = 0; i < all.size(); i++)
        if (all[i] == stream) all.erase(all.begin() + long(i)), i--;
    delete stream;
    return SUCCESS;
}

Result cuStreamSynchronize(Stream* stream) {
    ENTER_CONTEXT
    if (!stream) return finish_all(current);
    if (stream->graph) return refused_in_recording(stream, "cuStreamSynchronize");
    finish(stream);
    return SUCCESS;
}

Result cuStreamIsCapturing(Stream* stream, int* status) {
    ENTER
    *status = !stream || !stream->graph ? 0 : stream->invalid ? 2 : 1;
    return SUCCESS;
}

Result cuStreamBeginCapture_v2(Stream* stream, int) {
    ENTER_CONTEXT
    if (!stream || setting("STAND_IN_NO_CAPTURE", 0)) return STREAM_CAPTURE_UNSUPPORTED;
    if (stream->graph) return INVALID_VALUE;
    stream->graph = new Graph;
    stream->invalid = false;
    return SUCCESS;
}

Result cuStreamEndCapture(Stream* stream, Graph** graph) {
    ENTER_CONTEXT
    if (!stream->graph) return STREAM_CAPTURE_UNMATCHED;
    *graph = stream->graph;
    const bool invalid = stream->invalid;
    stream->graph = nullptr;
    stream->invalid = false;
    if (!invalid) return SUCCESS;
    delete *graph;
    *graph = nullptr;
    return STREAM_CAPTURE_INVALIDATED;
}

// Recordings.

Result cuGraphInstantiateWithFlags(Played** played, Graph* graph, unsigned long long flags) {
    ENTER_CONTEXT
    if (!graph->kept.empty())
        fprintf(stderr, "stand-in driver: a recording keeps %zu allocations\n", graph->kept.size());
    if (!current->record(graph->most)) return OUT_OF_MEMORY;
    *played = new Played{*graph, current, (flags & 1) != 0, {}};
    return SUCCESS;
}

Result cuGraphDestroy(Graph* graph) {
    ENTER
    delete graph;
    return SUCCESS;
}

Result cuGraphExecDestroy(Played* played) {
    ENTER
    for (Stream* stream : played->device->streams) finish(stream);
    for (uint64_t address : played->there)
        if (!memory().at(address)->given_back) memory().give_back(address);
    // The device's pool keeps the memory.
    played->device->kept += played->graph.most;
    delete played;
    return SUCCESS;
}

Result cuDeviceGraphMemTrim(int ordinal) {
    ENTER
    Device* of = device(ordinal);
    if (!of) return INVALID_DEVICE;
    of->recorded -= of->kept;
    of->kept = 0;
    return SUCCESS;
}

Result cuGraphUpload(Played*, Stream* stream) {
    ENTER_CONTEXT
    if (stream->graph) return refused_in_recording(stream, "cuGraphUpload");
    return setting("STAND_IN_NO_UPLOAD", 0) ? OUT_OF_MEMORY : SUCCESS;
}

Result cuGraphLaunch(Played* played, Stream* stream) {
    ENTER_CONTEXT
    if (stream->graph) return refused_in_recording(stream, "cuGraphLaunch");
    if (!played->there.empty() && !played->gives_back)
        return refuse(INVALID_VALUE, "a recording is launched again before its memory was given back");
    for (uint64_t address : played->there) ask(stream, MEM_FREE, "a launch", [=] { memory().give_back(address); });
    for (const Node& node : played->graph.nodes) stream->queue.push_back(node);
    played->there = played->graph.kept;
    return SUCCESS;
}

Result cuGraphGetNodes(Graph* graph, Node** nodes, size_t* count) {
    ENTER
    if (nodes)
        for (size_t i = 0; i < *count && i < graph->nodes.size(); i++) nodes[i] = &graph->nodes[i];
    *count = graph->nodes.size();
    return SUCCESS;
}

Result cuGraphNodeGetType(Node* node, int* kind) {
    ENTER
    *kind = node->kind;
    return SUCCESS;
}

// Events. An event is the stream that it was recorded in; waiting for it finishes that stream.

Result cuEventCreate(Stream*** event, unsigned) {
    ENTER_CONTEXT
    *event = new Stream*(nullptr);
    return SUCCESS;
}

Result cuEventDestroy_v2(Stream** event) {
    ENTER
    delete event;
    return SUCCESS;
}

Result cuEventRecord(Stream** event, Stream* stream) {
    ENTER_CONTEXT
    if (stream->graph) return refused_in_recording(stream, "cuEventRecord");
    *event = stream;
    return SUCCESS;
}

Result cuEventSynchronize(Stream** event) {
    ENTER_CONTEXT
    if (*event) finish(*event);
    return SUCCESS;
}

Result cuStreamWaitEvent(Stream* stream, Stream** event, unsigned) {
    ENTER_CONTEXT
    if (stream->graph && *event != stream) return refused_in_recording(stream, "cuStreamWaitEvent");
    if (*event && *event != stream) finish(*event);
    return SUCCESS;
}

// Memory.

Result cuMemAllocAsync(uint64_t* out, size_t bytes, Stream* stream) {
    ENTER_CONTEXT
    if (bytes == 0) return refuse(INVALID_VALUE, "no bytes were asked for");
    if (stream->graph) {
        Graph& graph = *stream->graph;
        *out = memory().reserve(bytes);
        graph.kept.insert(*out);
        graph.now += bytes;
        graph.most = graph.now > graph.most ? graph.now : graph.most;
    } else {
        if (!current->take(bytes)) return OUT_OF_MEMORY;
        *out = memory().reserve(bytes);
    }
    const uint64_t address = *out;
    return ask(stream, MEM_ALLOC, "an allocation", [=] { memory().take(address); });
}

Result cuMemFreeAsync(uint64_t address, Stream* stream) {
    ENTER_CONTEXT
    const Allocation* it = memory().at(address);
    if (!it) return refuse(INVALID_VALUE, "what is given back was never taken");
    if (stream->graph) {
        // Only memory that was taken in the recording can be given back in it.
        Graph& graph = *stream->graph;
        if (graph.kept.erase(address) == 0)
            return refuse(INVALID_VALUE, "memory from outside is given back in a recording");
        graph.now -= it->bytes;
    } else {
        current->used -= it->bytes;
    }
    return ask(stream, MEM_FREE, "a release", [=] { memory().give_back(address); });
}

Result cuMemsetD8Async(uint64_t address, unsigned char value, size_t bytes, Stream* stream) {
    ENTER_CONTEXT
    if (!memory().holds(address, bytes)) return refuse(INVALID_VALUE, "a copy or fill does not lie in an allocation");
    return ask(stream, MEMSET, "a fill", [=] { memset((void*)address, value, bytes); });
}

Result cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, Stream* stream) {
    ENTER_CONTEXT
    if (!memory().holds(to, bytes)) return refuse(INVALID_VALUE, "a copy or fill does not lie in an allocation");
    if (stream->graph) return refused_in_recording(stream, "cuMemcpyHtoDAsync_v2");
    // Memory that is not pinned has been read when the call returns.
    const auto copy = std::make_shared<std::vector<uint8_t>>((const uint8_t*)from, (const uint8_t*)from + bytes);
    return ask(stream, MEMCPY, "a copy from the host", [=] { memcpy((void*)to, copy->data(), bytes); });
}

Result cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, Stream* stream) {
    ENTER_CONTEXT
    if (!memory().holds(from, bytes)) return refuse(INVALID_VALUE, "a copy or fill does not lie in an allocation");
    if (stream->graph) return refused_in_recording(stream, "cuMemcpyDtoHAsync_v2");
    finish(stream);
    memcpy(to, (const void*)from, bytes);
    return SUCCESS;
}

Result cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, Stream* stream) {
    ENTER_CONTEXT
    if (!memory().holds(to, bytes) || !memory().holds(from, bytes)) return refuse(INVALID_VALUE, "a copy or fill does not lie in an allocation");
    return ask(stream, MEMCPY, "a copy", [=] { memmove((void*)to, (const void*)from, bytes); });
}

Result cuMemGetInfo_v2(size_t* free, size_t* total) {
    ENTER_CONTEXT
    *total = current->total;
    *free = current->total - current->reserved - current->recorded;
    return SUCCESS;
}

Result cuDeviceGetDefaultMemPool(Device** pool, int ordinal) {
    ENTER
    if (!device(ordinal)) return INVALID_DEVICE;
    *pool = device(ordinal);
    return SUCCESS;
}

Result cuMemPoolSetAttribute(Device* pool, int attribute, const uint64_t* value) {
    ENTER
    if (attribute != 4) return NOT_SUPPORTED; // the release threshold
    pool->threshold = *value;
    return SUCCESS;
}

Result cuMemPoolGetAttribute(Device* pool, int attribute, uint64_t* value) {
    ENTER
    switch (attribute) {
    case 4: *value = pool->threshold; return SUCCESS;
    case 5: *value = pool->reserved; return SUCCESS;
    case 7: *value = pool->used; return SUCCESS;
    default: return NOT_SUPPORTED;
    }
}

// Kernels.

// Images of this build list their kernels behind this line, one per line; other images are not looked into.
static const char LISTED[] = "kernels of the stand-in driver\n";

Result cuModuleLoadData(Module** module, const char* image) {
    ENTER_CONTEXT
    const bool listed = strncmp(image, LISTED, sizeof LISTED - 1) == 0;
    *module = new Module{listed ? image + sizeof LISTED - 2 : "", {}};
    return SUCCESS;
}

Result cuModuleUnload(Module* module) {
    ENTER
    delete module;
    return SUCCESS;
}

Result cuModuleGetFunction(Function** function, Module* module, const char* name) {
    ENTER_CONTEXT
    const std::string line = std::string("\n") + name + "\n";
    if (!module->image.empty() && module->image.find(line) == std::string::npos) {
        fprintf(stderr, "stand-in driver: the image has no kernel %s\n", name);
        return NOT_FOUND;
    }
    const emulate::Entry* kernel = emulate::find(name);
    if (!kernel) {
        fprintf(stderr, "stand-in driver: %s cannot be emulated\n", name);
        return NOT_FOUND;
    }
    *function = &module->functions.insert({name, Function{kernel, name}}).first->second;
    return SUCCESS;
}

Result cuFuncGetParamInfo(Function* function, size_t index, size_t* offset, size_t* size) {
    ENTER_CONTEXT
    const std::vector<size_t>& sizes = function->kernel->sizes;
    if (index >= sizes.size()) return INVALID_VALUE;
    *offset = 0;
    for (size_t i = 0; i < index; i++) *offset += (sizes[i] + 7) / 8 * 8;
    *size = sizes[index];
    return SUCCESS;
}

// Bytes that a block may have on a card of compute capability 9.0.
static const unsigned MOST_SHARED = 227 << 10;

Result cuFuncSetAttribute(Function* function, int attribute, int value) {
    ENTER_CONTEXT
    if (attribute != 8) return NOT_SUPPORTED; // dynamic shared memory
    if (value < 0 || unsigned(value) > MOST_SHARED) return refuse(INVALID_VALUE, "no block has so much shared memory");
    function->shared = unsigned(value);
    return SUCCESS;
}

Result cuLaunchKernel(Function* function, unsigned x, unsigned y, unsigned z, unsigned threads_x, unsigned threads_y,
                      unsigned threads_z, unsigned shared, Stream* stream, void** parameters, void** extra) {
    ENTER_CONTEXT
    const emulate::Entry& kernel = *function->kernel;
    const uint64_t threads = uint64_t(threads_x) * threads_y * threads_z;
    if (getenv("STAND_IN_TRACE"))
        fprintf(stderr, "stand-in driver: %s of %u x %u x %u blocks of %lu threads\n", function->name.c_str(), x, y, z,
                (unsigned long)threads);
    if (!stream || extra || x == 0 || y == 0 || z == 0 || x > 0x7fffffff || y > 0xffff || z > 0xffff)
        return refuse(INVALID_VALUE, "a launch has a stream, parameters, and a grid that CUDA allows");
    if (threads == 0 || threads > 1024 || threads_z > 64 || shared > function->shared)
        return refuse(INVALID_VALUE, "a block has 1 to 1024 threads, and no more shared memory than was asked for");
    if (threads > kernel.threads) return refuse(LAUNCH_OUT_OF_RESOURCES, "the kernel is compiled for fewer threads");
    // Parameters are read now, as by a card's driver.
    const auto values = std::make_shared<std::vector<std::vector<uint64_t>>>();
    for (size_t i = 0; i < kernel.sizes.size(); i++) {
        std::vector<uint64_t> value((kernel.sizes[i] + 7) / 8);
        memcpy(value.data(), parameters[i], kernel.sizes[i]);
        values->push_back(value);
    }
    static unsigned order = 1;
    order = order * 1664525 + 1013904223;
    const emulate::Launch launch = {{x, y, z}, {threads_x, threads_y, threads_z}, shared, order >> 31};
    return ask(stream, KERNEL, function->name.c_str(), [=, &kernel] {
        std::vector<const void*> pointers;
        for (const auto& value : *values) pointers.push_back(value.data());
        emulate::run(kernel, launch, pointers.data());
    });
}

} // extern "C"
