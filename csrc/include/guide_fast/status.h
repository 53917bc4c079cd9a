/* Types, errors, threads of the guide_fast C interface. */
#ifndef GUIDE_FAST_STATUS_H
#define GUIDE_FAST_STATUS_H

#include <stdint.h>

#if defined(__GNUC__)
#define GF_API __attribute__((visibility("default")))
#else
#define GF_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { GF_OK = 0, GF_INVALID = 1, GF_UNSUPPORTED = 2, GF_CUDA_ERROR = 3 } gf_status;
typedef enum { GF_FLOAT32 = 0, GF_FLOAT16 = 1, GF_BFLOAT16 = 2, GF_FLOAT64 = 3 } gf_dtype;
typedef enum { GF_LINEAR = 0, GF_LRELU = 1 } gf_activation;

/* Every launcher returns GF_INVALID for a NULL it needs, a size below zero, a size of zero beside the batch; for an empty
   batch it returns GF_OK, having written nothing. */

/* One sentence about the last failure in this thread; valid until the next one. */
GF_API const char* gf_last_error(void);
/* Stores a message, returns `status`. */
GF_API gf_status gf_fail(gf_status status, const char* format, ...);

/* Threads of the library's own pool; call it before the first operation. 0: all cores. */
GF_API void gf_set_num_threads(int threads);
/* Another pool to run on: `hook(begin, end, grain, body, context)` calls body over disjoint ranges. */
typedef void (*gf_range_body)(int64_t begin, int64_t end, void* context);
typedef void (*gf_parallel_hook)(int64_t begin, int64_t end, int64_t grain, gf_range_body body, void* context);
GF_API void gf_set_parallel_hook(gf_parallel_hook hook);

/* 0 base, 3 AVX2, 4 AVX-512: what the CPU operations run on. */
GF_API int gf_instruction_set(void);
/* 1 when the library holds CUDA kernels. */
GF_API int gf_cuda_built(void);

#ifdef __cplusplus
}
#endif
#endif
