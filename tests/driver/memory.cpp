#include "memory.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>

namespace driver {

static const size_t PAGE = 4096, ADDRESSES = size_t(8) << 40;
// CUDA's alignment of allocations.
static const size_t ALIGNED = 256;

static size_t rounded(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

Memory::Memory() {
    void* all = mmap(nullptr, ADDRESSES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED) {
        perror("stand-in driver: addresses of the device");
        abort();
    }
    next = uint64_t(all);
    end = next + ADDRESSES;
}

// An allocation ends as near the end of a page as its alignment allows.
static uint64_t first_page(uint64_t address) { return address / PAGE * PAGE; }
static size_t pages(uint64_t address, size_t bytes) { return rounded(address + bytes, PAGE) - first_page(address); }

uint64_t Memory::reserve(size_t bytes) {
    const size_t room = rounded(rounded(bytes, ALIGNED), PAGE);
    if (next + room + PAGE > end) {
        fprintf(stderr, "stand-in driver: no addresses are left\n");
        abort();
    }
    const uint64_t address = next + room - rounded(bytes, ALIGNED);
    next += room + PAGE;
    allocations[address] = {bytes};
    return address;
}

void Memory::take(uint64_t address) {
    Allocation& it = allocations.at(address);
    void* first = (void*)first_page(address);
    const size_t size = pages(address, it.bytes);
    if (mprotect(first, size, PROT_READ | PROT_WRITE) != 0) {
        perror("stand-in driver: memory of the device");
        abort();
    }
    memset(first, 0xff, size); // a NaN in every float type
    it.taken = true;
    it.given_back = false;
}

void Memory::give_back(uint64_t address) {
    Allocation& it = allocations.at(address);
    void* first = (void*)first_page(address);
    const size_t size = pages(address, it.bytes);
    for (const uint8_t* byte = (const uint8_t*)first; byte < (const uint8_t*)first + size; byte++) {
        if (uint64_t(byte) >= address && uint64_t(byte) < address + it.bytes) byte = (const uint8_t*)(address + it.bytes);
        if (byte < (const uint8_t*)first + size && *byte != 0xff) {
            fprintf(stderr, "stand-in driver: something wrote beside an allocation of %zu bytes\n", it.bytes);
            abort();
        }
    }
    madvise(first, size, MADV_DONTNEED);
    mprotect(first, size, PROT_NONE);
    it.given_back = true;
}

Allocation* Memory::at(uint64_t address) {
    const auto found = allocations.find(address);
    return found == allocations.end() ? nullptr : &found->second;
}

std::map<uint64_t, Allocation>::iterator Memory::before(uint64_t address) {
    auto it = allocations.upper_bound(address);
    return it == allocations.begin() ? allocations.end() : --it;
}

bool Memory::holds(uint64_t address, size_t bytes) {
    const auto it = before(address);
    return it != allocations.end() && address + bytes <= it->first + it->second.bytes;
}

const char* Memory::about(uint64_t address) {
    static char text[200];
    const auto it = before(address);
    if (it == allocations.end() || address >= end) {
        snprintf(text, sizeof text, "%#lx, which is not the device's", (unsigned long)address);
    } else {
        const Allocation& of = it->second;
        snprintf(text, sizeof text, "byte %lu of an allocation of %zu bytes%s", (unsigned long)(address - it->first), of.bytes,
                 of.given_back ? ", which was given back" : of.taken ? "" : ", before the device has taken it");
    }
    return text;
}

} // namespace driver
