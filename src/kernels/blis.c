/* BLIS: its start-up and its products. The traps, each of them met:
 * - BLIS chooses its kernels by the processor's brand and family, and on virtual machines wrongly
 *   ("haswell" on an AVX-512 Xeon: half the speed; "generic" on a new AMD family). BLIS_ARCH_TYPE,
 *   read once at its first call, overrides the choice, so we set it from the processor's features.
 *   An id that this BLIS was not built with would abort: hence the BLIS_CONFIG_ conditions.
 * - Plain bli_sgemm and cblas read BLIS_IR_NT and BLIS_PC_NT from the environment, and with either
 *   at 2 BLIS 0.9.0 returns wrong products. Only the _ex calls with an rntm_t of our own are safe.
 * - BLIS aborts the process when it runs out of memory, so it allocates at the start: one product
 *   of one thread that packs, however small, makes it take the blocks (18 MB of address space,
 *   touched by large products only) that later ones of any size and type use again. */
#if !defined(_GNU_SOURCE)
#  define _GNU_SOURCE /* setenv, unsetenv */
#endif

#include <blis.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/cpu.h"
#include "kernels/gemm_blis.h"

/* The kernels for this processor, or NULL to leave the choice to BLIS. */
static const char *kernels_wanted(void) {
#if defined(__x86_64__)
  lt_simd simd = lt_simd_detect();
  if (simd == LT_SIMD_PORTABLE) {
#  if defined(BLIS_CONFIG_GENERIC)
    if (getenv("LUATAPE_SIMD") != NULL) return "generic"; /* lowered by the user */
#  endif
    return NULL;
  }
  if (__builtin_cpu_is("amd")) {
#  if defined(BLIS_CONFIG_ZEN)
    if (__builtin_cpu_is("znver1")) return "zen";
#  endif
#  if defined(BLIS_CONFIG_ZEN3)
    if (__builtin_cpu_supports("vpclmulqdq")) return "zen3";
#  endif
#  if defined(BLIS_CONFIG_ZEN2)
    return "zen2";
#  endif
  }
#  if defined(BLIS_CONFIG_SKX)
  if (simd == LT_SIMD_AVX512) return "skx";
#  endif
#  if defined(BLIS_CONFIG_HASWELL)
  return "haswell";
#  endif
#endif
  return NULL;
}

/* The casts drop const: BLIS 0.9.0 declares the operands it only reads without it. */
#define DEFINE(name, type, product)                                                                \
  static void name(const lt_gemm *g, bool pack) {                                                  \
    type one = 1, beta = g->accumulate ? 1 : 0;                                                    \
    rntm_t rntm;                                                                                   \
    bli_rntm_init(&rntm);                                                                          \
    bli_rntm_set_num_threads(1, &rntm);                                                            \
    if (pack) bli_rntm_disable_l3_sup(&rntm); /* BLIS's own way for small products */              \
    product(BLIS_NO_TRANSPOSE, BLIS_NO_TRANSPOSE, g->m, g->n, g->k, &one, (type *)(uintptr_t)g->a, \
            g->a_row, g->a_col, (type *)(uintptr_t)g->b, g->b_row, g->b_col, &beta, g->c,          \
            g->c_row, g->c_col, NULL, &rntm);                                                      \
  }
DEFINE(product_f32, float, bli_sgemm_ex)
DEFINE(product_f64, double, bli_dgemm_ex)

static void open_once(void) {
  const char *wanted = getenv("BLIS_ARCH_TYPE") == NULL ? kernels_wanted() : NULL;
  if (wanted == NULL) {
    bli_init();
  } else {
    char id[16] = "";
    for (int i = 0; i < (int)BLIS_NUM_ARCHS; i++) {
      if (strcmp(bli_arch_string((arch_t)i), wanted) == 0) snprintf(id, sizeof id, "%d", i);
    }
    if (id[0] != '\0') setenv("BLIS_ARCH_TYPE", id, 1);
    bli_init();
    if (id[0] != '\0') unsetenv("BLIS_ARCH_TYPE");
  }
  float f[3] = {1, 1, 0};
  double d[3] = {1, 1, 0};
  product_f32(&(lt_gemm){1, 1, 1, &f[0], 1, 1, &f[1], 1, 1, &f[2], 1, 1, false}, true);
  product_f64(&(lt_gemm){1, 1, 1, &d[0], 1, 1, &d[1], 1, 1, &d[2], 1, 1, false}, true);
}

void lt_blis_open(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT; /* BLIS is one per process, not per context */
  pthread_once(&once, open_once);
}

const char *lt_blis_version(void) { return bli_info_get_version_str(); }

const char *lt_blis_kernels(void) {
  lt_blis_open();
  return bli_arch_string(bli_arch_query_id());
}

static bool takes(int64_t rows, int64_t cols, int64_t row, int64_t col) {
  return (col == 1 && row >= cols) || (row == 1 && col >= rows);
}

bool lt_blis_takes(const lt_gemm *g) {
  return takes(g->m, g->k, g->a_row, g->a_col) && takes(g->k, g->n, g->b_row, g->b_col) &&
         takes(g->m, g->n, g->c_row, g->c_col);
}

void lt_blis_gemm_f32(const lt_gemm *g) {
  lt_blis_open();
  product_f32(g, false);
}

void lt_blis_gemm_f64(const lt_gemm *g) {
  lt_blis_open();
  product_f64(g, false);
}
