// The memory of the stand-in device. Every allocation has addresses that no other ever has, and behind it a page that nobody may
// touch. An allocation holds no numbers until it is written, and cannot be touched once it is given back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>

namespace driver {

struct Allocation {
    size_t bytes;
    // Whether the device's operations that have run so far have taken it, and have given it back.
    bool taken = false, given_back = false;
};

class Memory {
public:
    Memory();
    // Addresses for so many bytes. They can be touched from `take` to `give_back`, which may be repeated.
    uint64_t reserve(size_t bytes);
    void take(uint64_t address);
    // Ends the process if bytes beside the allocation were written.
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
