// Stand-ins for cuBLAS and cuRAND, as far as candle and this project call them.

#include "stand_in.h"

#include <algorithm>
#include <random>

using namespace driver;

namespace {

// cublasStatus_t.
enum Status { OK = 0, INVALID = 7, UNSUPPORTED = 15 };

struct Blas {
    Stream* stream = nullptr;
    uint64_t workspace = 0;
    size_t room = 0;
};

struct Generator {
    Stream* stream = nullptr;
    std::mt19937_64 engine;
};

// cudaDataType_t.
enum Type { F32 = 0, F16 = 2, BF16 = 14 };

bool known(int type) { return type == F32 || type == F16 || type == BF16; }

float value(const void* from, int64_t at, int type) {
    if (type == F32) return ((const float*)from)[at];
    const uint16_t bits = ((const uint16_t*)from)[at];
    return type == F16 ? emulate::from_half(bits) : emulate::from_bits(uint32_t(bits) << 16);
}

void put(void* to, int64_t at, int type, float x) {
    if (type == F32)
        ((float*)to)[at] = x;
    else
        ((uint16_t*)to)[at] = type == F16 ? emulate::to_half(x) : emulate::to_bfloat(x);
}

// A matrix as passed to cuBLAS: column-major, `ld` values per column.
struct Matrix {
    const void* at;
    int type, ld;
    long long stride;
    bool transposed;

    // Its `lines` rows (columns if `columns`) of `k` values each, one after the other.
    std::vector<float> lines(int batch, int lines, int k, bool columns) const {
        std::vector<float> out(size_t(lines) * size_t(k));
        for (int i = 0; i < lines; i++)
            for (int j = 0; j < k; j++) {
                const bool along = columns != transposed;
                const int64_t place = along ? j + int64_t(i) * ld : i + int64_t(j) * ld;
                out[size_t(i) * size_t(k) + size_t(j)] = value(at, batch * stride + place, type);
            }
        return out;
    }
};

float dot(const float* a, const float* b, int k) {
    float sums[8] = {};
    int i = 0;
    for (; i + 8 <= k; i += 8)
        for (int j = 0; j < 8; j++) sums[j] += a[i + j] * b[i + j];
    for (; i < k; i++) sums[0] += a[i] * b[i];
    return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

} // namespace

extern "C" {

int cublasCreate_v2(Blas** handle) {
    *handle = new Blas;
    return OK;
}

int cublasDestroy_v2(Blas* handle) {
    delete handle;
    return OK;
}

int cublasSetStream_v2(Blas* handle, Stream* stream) {
    *handle = {stream}; // forgets the workspace, as cuBLAS does
    return OK;
}

int cublasSetWorkspace_v2(Blas* handle, void* workspace, size_t bytes) {
    const std::lock_guard<std::recursive_mutex> locked(lock());
    if (!memory().holds(uint64_t(workspace), bytes) || uint64_t(workspace) % 256 != 0) return INVALID;
    handle->workspace = uint64_t(workspace);
    handle->room = bytes;
    return OK;
}

int cublasGemmStridedBatchedEx(Blas* handle, int op_a, int op_b, int m, int n, int k, const void* alpha, const void* a,
                               int type_a, int ld_a, long long stride_a, const void* b, int type_b, int ld_b,
                               long long stride_b, const void* beta, void* c, int type_c, int ld_c, long long stride_c,
                               int batches, int compute, int) {
    const std::lock_guard<std::recursive_mutex> locked(lock());
    const Matrix of_a = {a, type_a, ld_a, stride_a, op_a != 0}, of_b = {b, type_b, ld_b, stride_b, op_b != 0};
    if (m < 0 || n < 0 || k < 0 || batches < 0) return INVALID;
    if (ld_a < std::max(1, op_a ? k : m) || ld_b < std::max(1, op_b ? n : k) || ld_c < std::max(1, m)) return INVALID;
    // Sums in f32 (CUBLAS_COMPUTE_32F) of two matrices of one type, into that type or f32.
    if (compute != 68 || op_a > 1 || op_b > 1 || !known(type_a) || type_a != type_b || (type_c != type_a && type_c != F32))
        return UNSUPPORTED;
    if (getenv("STAND_IN_TRACE")) fprintf(stderr, "stand-in driver: cuBLAS of %d x %d x %d, %d times\n", m, n, k, batches);
    const float scale = *(const float*)alpha, keep = *(const float*)beta;
    const uint64_t workspace = handle->workspace;
    const size_t room = handle->room;
    const Result asked = ask(handle->stream, KERNEL, "cuBLAS", [=] {
        // Overwrites the workspace: nobody else may keep anything there.
        if (workspace) memset((void*)workspace, 0xff, std::min<size_t>(room, 4096));
        for (int batch = 0; batch < batches; batch++) {
            const std::vector<float> rows = of_a.lines(batch, m, k, false), columns = of_b.lines(batch, n, k, true);
            for (int j = 0; j < n; j++)
                for (int i = 0; i < m; i++) {
                    const int64_t at = batch * stride_c + i + int64_t(j) * ld_c;
                    const float sum = scale * dot(&rows[size_t(i) * size_t(k)], &columns[size_t(j) * size_t(k)], k);
                    put(c, at, type_c, keep == 0 ? sum : sum + keep * value(c, at, type_c));
                }
        }
    });
    return asked == SUCCESS ? OK : 13;
}

int cublasGemmEx(Blas* handle, int op_a, int op_b, int m, int n, int k, const void* alpha, const void* a, int type_a, int ld_a,
                 const void* b, int type_b, int ld_b, const void* beta, void* c, int type_c, int ld_c, int compute, int algo) {
    return cublasGemmStridedBatchedEx(handle, op_a, op_b, m, n, k, alpha, a, type_a, ld_a, 0, b, type_b, ld_b, 0, beta, c,
                                      type_c, ld_c, 0, 1, compute, algo);
}

// candle opens a generator with every device; only benchmarks ask it for numbers.
int curandCreateGenerator(Generator** generator, int) {
    *generator = new Generator;
    return 0;
}
int curandSetPseudoRandomGeneratorSeed(Generator* generator, unsigned long long seed) {
    generator->engine.seed(seed);
    return 0;
}
int curandSetStream(Generator* generator, Stream* stream) {
    generator->stream = stream;
    return 0;
}
int curandDestroyGenerator(Generator* generator) {
    delete generator;
    return 0;
}
int curandGenerateNormal(Generator* generator, float* out, size_t count, float mean, float deviation) {
    const std::lock_guard<std::recursive_mutex> locked(lock());
    if (count % 2 != 0) return 105; // CURAND_STATUS_LENGTH_NOT_MULTIPLE
    const Result asked = ask(generator->stream, KERNEL, "cuRAND", [=] {
        std::normal_distribution<float> normal(mean, deviation);
        for (size_t i = 0; i < count; i++) out[i] = normal(generator->engine);
    });
    return asked == SUCCESS ? 0 : 201; // CURAND_STATUS_LAUNCH_FAILURE
}

} // extern "C"
