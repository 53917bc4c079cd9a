// One source, several instruction sets: each <op>_cpu.cpp is compiled once per GF_ISA, an entry picks at run time.
//
// Inside the file, name every function GF_LOCAL(name) or put it in an anonymous namespace, then write
//   GF_CPU_ENTRY(gf_bias_act_cpu, gf_bias_act)   // defines GF_LOCAL(gf_bias_act_cpu) before it
#pragma once

#include "arguments.h"

#define GF_CONCAT_(a, b) a##_##b
#define GF_CONCAT(a, b) GF_CONCAT_(a, b)
#define GF_LOCAL(name) GF_CONCAT(name, GF_ISA)

namespace gf {
// 0 base, 3 AVX2 + FMA, 4 AVX-512 (x86-64-v3, v4); GUIDE_FAST_ISA=base|v3|v4 lowers it, never raises it.
int instruction_set();
}  // namespace gf

#if defined(GF_ISA_HAS_LEVELS) && defined(GF_ISA_IS_BASE)
#define GF_CPU_ENTRY(name, arguments)                                 \
  extern "C" gf_status name##_v3(const arguments*);                   \
  extern "C" gf_status name##_v4(const arguments*);                   \
  extern "C" GF_API gf_status name(const arguments* a) {              \
    const gf::Verdict verdict = gf::judge(a, #name);                  \
    if (!verdict.run) return verdict.status;                          \
    const int level = gf::instruction_set();                          \
    return level >= 4 ? name##_v4(a) : level >= 3 ? name##_v3(a) : name##_base(a); \
  }
#elif defined(GF_ISA_IS_BASE)
#define GF_CPU_ENTRY(name, arguments)                    \
  extern "C" GF_API gf_status name(const arguments* a) { \
    const gf::Verdict verdict = gf::judge(a, #name);     \
    return verdict.run ? name##_base(a) : verdict.status; \
  }
#else
#define GF_CPU_ENTRY(name, arguments)
#endif
