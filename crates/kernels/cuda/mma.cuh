// Matrix products of a warp, and the loads that feed them, as PTX (compute capability 8.0); the emulation implements the same
// fragment layouts, element by element.
//
// Lane `l` of a fragment has row `l / 4` and, of each 8 columns, the two from `l % 4 * 2` on, in one 32-bit register with the lower
// column in the lower half.
#pragma once

#include "common.cuh"

#ifdef __CUDACC__
DEVICE uint32_t shared_address(const void* at) { return uint32_t(__cvta_generic_to_shared(at)); }
#endif

// Loads four 8 x 8 matrices of 16-bit values from shared memory: lane `l` gives the address of row `l % 8` of matrix `l / 8`. Register
// `i` is the lane's fragment of matrix `i`.
DEVICE void load_matrices(uint32_t (&out)[4], const void* row) {
#ifdef __CUDACC__
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_address(row))
                 : "memory");
#else
    emulate::load_matrices(out, row, false);
#endif
}

// The same, with each matrix transposed.
DEVICE void load_matrices_transposed(uint32_t (&out)[4], const void* row) {
#ifdef __CUDACC__
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_address(row))
                 : "memory");
#else
    emulate::load_matrices(out, row, true);
#endif
}

// c += a b for a 16 x 16 (rows 0..8, 8..16 of columns 0..8, then of 8..16), b 16 x 8 given by its columns (k 0..8, then
// 8..16), c 16 x 8 in f32 (two values of rows 0..8, two of 8..16).
DEVICE void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, bf16) {
#ifdef __CUDACC__
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    emulate::multiply(c, a, b0, b1, [](uint16_t bits) { return widen(bf16{bits}); });
#endif
}

DEVICE void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, f16) {
#ifdef __CUDACC__
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    emulate::multiply(c, a, b0, b1, [](uint16_t bits) { return widen(f16{bits}); });
#endif
}

// Two values as one register of a fragment.
DEVICE uint32_t paired(float low, float high, bf16) {
#ifdef __CUDACC__
    uint32_t both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
#else
    return rounded<bf16>(low).bits | uint32_t(rounded<bf16>(high).bits) << 16;
#endif
}

DEVICE uint32_t paired(float low, float high, f16) {
#ifdef __CUDACC__
    uint32_t both;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
#else
    return rounded<f16>(low).bits | uint32_t(rounded<f16>(high).bits) << 16;
#endif
}

// Copies sixteen bytes into shared memory, in flight until `copied`; writes zeros and reads nothing if they are not `there`.
DEVICE void copy_ahead(void* to, const void* from, bool there) {
#ifdef __CUDACC__
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(shared_address(to)), "l"(from), "r"(there ? 16 : 0)
                 : "memory");
#else
    emulate::copy_ahead(to, from, there);
#endif
}

// Ends a group of this thread's copies, which may be empty.
DEVICE void copies_end() {
#ifdef __CUDACC__
    asm volatile("cp.async.commit_group;" ::: "memory");
#else
    emulate::copies_end();
#endif
}

// Waits for all of this thread's groups but the last `late`; those of other threads are visible after the next barrier.
template <int late>
DEVICE void copied_but() {
#ifdef __CUDACC__
    asm volatile("cp.async.wait_group %0;" ::"n"(late) : "memory");
#else
    emulate::copied_but(late);
#endif
}

// Waits for this thread's copies; those of other threads are visible after the next barrier.
DEVICE void copied() {
#ifdef __CUDACC__
    asm volatile("cp.async.wait_all;" ::: "memory");
#else
    emulate::copied();
#endif
}
