// The memory of the device that is none: every allocation at addresses that no other ever has, with a page that nobody may
// touch behind it. What is allocated holds no numbers until it is written, and what was given back cannot be touched.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>

namespace driver {

struct Allocation {
    size_t bytes;
    // Whether the device's operations, as far as they have run, have taken it, and have given it back.
    bool taken = false, given_back = false;
};

class Memory {
public:
    Memory();
    // Addresses for so many bytes. They can be touched from `take` to `give_back`, which may be repeated.
    uint64_t reserve(size_t bytes);
    void take(uint64_t address);
    // Ends the process if bytes behind the allocation were written.
    void give_back(uint64_t address);
    // The allocation that begins at the address; null if none does.
    Allocation* at(uint64_t address);
    // Whether so many bytes from there lie in one allocation.
    bool holds(uint64_t address, size_t bytes);
    // What to say of an address that must not be touched.
    const char* about(uint64_t address);

private:
    uint64_t next, end;
    std::map<uint64_t, Allocation> allocations;
    std::map<uint64_t, Allocation>::iterator before(uint64_t address);
};

} // namespace driver
