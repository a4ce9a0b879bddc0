// Deeds for which the driver's memory must end a process, one per run: scripts/test_cuda.sh runs them all.
#include "memory.h"

#include <cstdlib>

int main(int, char** arguments) {
    driver::Memory memory;
    const uint64_t room = memory.reserve(100);
    volatile char* bytes = (volatile char*)room;
    const int deed = atoi(arguments[1]);
    if (deed == 1) bytes[0] = 1; // before the device has taken it
    memory.take(room);
    if (uint8_t(bytes[99]) != 0xff || !memory.holds(room, 100) || memory.holds(room, 101)) return 0;
    if (deed == 2) bytes[100] = 1;  // just beyond its end
    if (deed == 3) bytes[-1] = 1;   // before its beginning
    if (deed == 4) (void)bytes[256]; // far beyond its end
    memory.give_back(room);
    if (deed == 5) (void)bytes[0]; // after it was given back
    return deed == 0 ? 7 : 0;
}
