#include "dispatch.hpp"

#include <atomic>
#include <string_view>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

// variants.inc is written by CMake: IQDB_FOR_VARIANT(name) for each, oldest first.
#define IQDB_FOR_VARIANT(name) \
  namespace iqdb::name {       \
  const Kernels& kernels();    \
  }
#include "variants.inc"
#undef IQDB_FOR_VARIANT

namespace iqdb {
namespace {

using Table = const Kernels& (*)();

constexpr Table kTables[] = {
#define IQDB_FOR_VARIANT(name) name::kernels,
#include "variants.inc"
#undef IQDB_FOR_VARIANT
};

#if defined(__x86_64__)
// __builtin_cpu_supports also asks whether the operating system saves the registers. Not every
// compiler knows "f16c" there; it needs no registers that AVX2 does not need.
bool has_avx2() {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  const bool f16c = __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") &&
         __builtin_cpu_supports("popcnt") && f16c;
}

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

bool runs_here(std::string_view name) {
  if (name == "baseline") return true;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (name == "avx2") return has_avx2();
  if (name == "avx512") return has_avx512();
  if (name == "avx512vnni") return has_avx512() && __builtin_cpu_supports("avx512vnni");
#elif defined(__aarch64__) && defined(__linux__)
  if (name == "dotprod") return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#elif defined(__aarch64__) && defined(__APPLE__)
  if (name == "dotprod") {
    int has = 0;
    size_t size = sizeof has;
    return sysctlbyname("hw.optional.arm.FEAT_DotProd", &has, &size, nullptr, 0) == 0 && has != 0;
  }
#endif
  return false;
}

std::atomic<const Kernels*> current{nullptr};

}  // namespace

const Kernels& kernels() {
  return *current.load(std::memory_order_acquire);
}

std::vector<std::string> variant_names() {
  std::vector<std::string> names;
  for (Table table : kTables) {
    if (runs_here(table().name)) names.emplace_back(table().name);
  }
  return names;
}

bool select_variant(const std::string& name) {
  for (Table table : kTables) {
    if (name == table().name && runs_here(name)) {
      current.store(&table(), std::memory_order_release);
      return true;
    }
  }
  return false;
}

void select_best_variant() {
  select_variant(variant_names().back());
}

}  // namespace iqdb
