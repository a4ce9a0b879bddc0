// candle's own kernels, from the source of the crate candle-kernels. Compiled once for each of its files, named by SOURCE; TABLE has
// a line `ENTER(name)` for every kernel in the file.
#include <cuda/std/limits>
#include <cuda_fp16.h>

#include <utility>

#define __device__
#define __host__
#define __global__
#define __forceinline__ inline
// Blocks run one after the other, so one place serves all.
#define __shared__ static

namespace {

// The files share names of functions.
#include SOURCE

template <class... A, size_t... I>
void call(void (*kernel)(A...), const void* const* parameters, std::index_sequence<I...>) {
    kernel(*static_cast<const std::remove_const_t<A>*>(parameters[I])...);
}

template <auto kernel>
struct Of;

template <class... A, void (*kernel)(A...)>
struct Of<kernel> {
    static void body(const void* const* parameters) { call(kernel, parameters, std::index_sequence_for<A...>()); }
    static emulate::Entry entry() { return {1024, {sizeof(A)...}, body}; }
};

#define ENTER(NAME) const emulate::Kernel NAME##_entered(#NAME, Of<&NAME>::entry());
#include TABLE

} // namespace
