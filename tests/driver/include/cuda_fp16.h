// Stands in for CUDA's header: `__half` and `__nv_bfloat16` as candle's kernels use them, on `emulate.h`.
#pragma once

#include <cassert>
#include <type_traits>

#include "emulate.h"

using std::isnan;
using std::signbit;

namespace emulate {

// A 16-bit float. Like a card's, its arithmetic is in f32 and rounded once per operation.
template <uint16_t (*narrow)(float), float (*widen)(uint16_t)>
struct Small {
    uint16_t bits;
    Small() = default;
    template <class T>
    Small(T x) : bits(narrow(float(x))) {}
    operator float() const { return widen(bits); }
    Small& operator+=(Small x) { return *this = float(*this) + float(x); }
    Small& operator*=(Small x) { return *this = float(*this) * float(x); }
    friend Small operator+(Small a, Small b) { return float(a) + float(b); }
    friend Small operator-(Small a, Small b) { return float(a) - float(b); }
    friend Small operator*(Small a, Small b) { return float(a) * float(b); }
    friend Small operator/(Small a, Small b) { return float(a) / float(b); }
    friend Small operator-(Small a) { return -float(a); }
    friend bool operator==(Small a, Small b) { return float(a) == float(b); }
    friend bool operator!=(Small a, Small b) { return float(a) != float(b); }
    friend bool operator<(Small a, Small b) { return float(a) < float(b); }
    friend bool operator<=(Small a, Small b) { return float(a) <= float(b); }
    friend bool operator>(Small a, Small b) { return float(a) > float(b); }
    friend bool operator>=(Small a, Small b) { return float(a) >= float(b); }
};

inline float from_bfloat(uint16_t bits) { return from_bits(uint32_t(bits) << 16); }

} // namespace emulate

using __half = emulate::Small<emulate::to_half, emulate::from_half>;
using __nv_bfloat16 = emulate::Small<emulate::to_bfloat, emulate::from_bfloat>;

// candle's kernels for 8-bit floats are compiled, but this project calls none.
struct __nv_fp8_e4m3 {
    uint8_t __x;
    __nv_fp8_e4m3() = default;
    template <class T>
    __nv_fp8_e4m3(T) { abort(); }
    operator float() const { abort(); }
};
constexpr int __NV_E4M3 = 0;
inline __half __nv_cvt_fp8_to_halfraw(uint8_t, int) { abort(); }

inline float __half2float(__half x) { return x; }
inline __half __float2half(float x) { return x; }
inline float __bfloat162float(__nv_bfloat16 x) { return x; }
inline __nv_bfloat16 __float2bfloat16(float x) { return x; }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return x; }

struct __nv_bfloat162 {
    __nv_bfloat16 x, y;
};
inline __nv_bfloat162 __hadd2(__nv_bfloat162 a, __nv_bfloat162 b) { return {a.x + b.x, a.y + b.y}; }
inline __nv_bfloat162 __hsub2(__nv_bfloat162 a, __nv_bfloat162 b) { return {a.x - b.x, a.y - b.y}; }
inline __nv_bfloat162 __hmul2(__nv_bfloat162 a, __nv_bfloat162 b) { return {a.x * b.x, a.y * b.y}; }
inline __nv_bfloat162 __h2div(__nv_bfloat162 a, __nv_bfloat162 b) { return {a.x / b.x, a.y / b.y}; }

// Functions that are the same for both types.
#define EITHER template <uint16_t (*narrow)(float), float (*widen)(uint16_t), class S = emulate::Small<narrow, widen>>
#define SMALL emulate::Small<narrow, widen>
EITHER bool __hisnan(SMALL x) { return std::isnan(float(x)); }
EITHER S hsqrt(SMALL x) { return sqrtf(x); }
EITHER S hcos(SMALL x) { return cosf(x); }
EITHER S hsin(SMALL x) { return sinf(x); }
EITHER S hlog(SMALL x) { return logf(x); }
EITHER S hexp(SMALL x) { return expf(x); }
EITHER S __habs(SMALL x) { return fabsf(x); }
EITHER S __hmax_nan(SMALL a, SMALL b) { return a != a || b != b ? NAN : fmaxf(a, b); }
EITHER S __hmin_nan(SMALL a, SMALL b) { return a != a || b != b ? NAN : fminf(a, b); }
#undef SMALL
#undef EITHER
inline uint16_t __half_as_ushort(__half x) { return x.bits; }
inline uint16_t __bfloat16_as_ushort(__nv_bfloat16 x) { return x.bits; }
inline __half __ushort_as_half(uint16_t bits) {
    __half x;
    x.bits = bits;
    return x;
}
inline __nv_bfloat16 __ushort_as_bfloat16(uint16_t bits) {
    __nv_bfloat16 x;
    x.bits = bits;
    return x;
}

struct float2 {
    float x, y;
};
struct float4 {
    float x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double normcdf(double x) { return erfc(-x / sqrt(2.0)) / 2; }
inline float normcdff(float x) { return float(normcdf(x)); }

template <class To, class From>
To same_bits(From x) {
    static_assert(sizeof(To) == sizeof(From), "the same bits");
    To to;
    memcpy(&to, &x, sizeof to);
    return to;
}
inline int __float_as_int(float x) { return same_bits<int>(x); }
inline float __int_as_float(int bits) { return same_bits<float>(bits); }
inline long long __double_as_longlong(double x) { return same_bits<long long>(x); }
inline double __longlong_as_double(long long bits) { return same_bits<double>(bits); }

// One thread runs at a time, so these need not be atomic.
template <class T>
T atomicCAS(T* at, std::common_type_t<T> expected, std::common_type_t<T> value) {
    const T old = *at;
    if (old == expected) *at = value;
    return old;
}
template <class T>
T atomicMin(T* at, std::common_type_t<T> value) {
    const T old = *at;
    if (value < old) *at = value;
    return old;
}
template <class T>
T atomicMax(T* at, std::common_type_t<T> value) {
    const T old = *at;
    if (old < value) *at = value;
    return old;
}
