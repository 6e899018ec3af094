// One query against a block of rows, each row read once. Bound by memory for rows that are not in a
// cache; four accumulators hide the latency of the additions for those that are.
#include "scan.hpp"

#include "simd.hpp"

namespace iqdb::IQDB_VARIANT {
namespace {

constexpr std::size_t kAccumulators = 4;
// The CPU foresees the next row, unless a mask chose it.
constexpr std::size_t kRowsAhead = 2;
constexpr std::size_t kLineFloats = 16;
static_assert(kRowsAhead <= kMaxTileRows);

struct Dot {
  Floats sum[kAccumulators] = {};
  Floats norm[kAccumulators] = {};
  IQDB_INLINE void add(std::size_t a, Floats q, Floats x) {
    sum[a] += q * x;
    norm[a] += x * x;
  }
  IQDB_INLINE void write(float* sums, float* norms) const {
    *sums = horizontal_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
    *norms = horizontal_sum((norm[0] + norm[1]) + (norm[2] + norm[3]));
  }
};

struct Squares {
  Floats sum[kAccumulators] = {};
  IQDB_INLINE void add(std::size_t a, Floats q, Floats x) {
    const Floats difference = q - x;
    sum[a] += difference * difference;
  }
  IQDB_INLINE void write(float* sums, float*) const {
    *sums = horizontal_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
  }
};

struct Absolute {
  Floats sum[kAccumulators] = {};
  IQDB_INLINE void add(std::size_t a, Floats q, Floats x) { sum[a] += absolute(q - x); }
  IQDB_INLINE void write(float* sums, float*) const {
    *sums = horizontal_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
  }
};

struct Bits {
  Ints minus[kAccumulators] = {};
  IQDB_INLINE void add(std::size_t a, Floats q, Floats x) { minus[a] += bits(q) != bits(x); }
  IQDB_INLINE void write(float* sums, float*) const {
    // At most 65,536 components: exact in f32.
    const Ints total = (minus[0] + minus[1]) + (minus[2] + minus[3]);
    *sums = horizontal_sum(__builtin_convertvector(-total, Floats));
  }
};

struct Totals {
  Floats sum[kAccumulators] = {};
  Floats size[kAccumulators] = {};
  IQDB_INLINE void add(std::size_t a, Floats, Floats x) {
    sum[a] += x;
    size[a] += absolute(x);
  }
  IQDB_INLINE void write(float* sums, float* sizes) const {
    *sums = horizontal_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
    *sizes = horizontal_sum((size[0] + size[1]) + (size[2] + size[3]));
  }
};

struct Norm {
  Floats norm[kAccumulators] = {};
  IQDB_INLINE void add(std::size_t a, Floats, Floats x) { norm[a] += x * x; }
  IQDB_INLINE void write(float*, float* norms) const {
    *norms = horizontal_sum((norm[0] + norm[1]) + (norm[2] + norm[3]));
  }
};

struct CentredNorm {
  Floats norm[kAccumulators] = {};
  IQDB_INLINE void add(std::size_t a, Floats c, Floats x) {
    const Floats difference = x - c;
    norm[a] += difference * difference;
  }
  IQDB_INLINE void write(float*, float* norms) const {
    *norms = horizontal_sum((norm[0] + norm[1]) + (norm[2] + norm[3]));
  }
};

// A term of two zeros adds nothing to any of the sums, so that tails are padded with zeros.
template <class Sum>
IQDB_INLINE void scan_rows(const float* query, const float* const* rows, std::size_t n_rows, std::size_t dim,
                           float* sums, float* norms) {
  constexpr std::size_t kStep = kAccumulators * kFloats;
  const std::size_t tail = dim % kFloats;
  const Floats query_tail = tail != 0 ? load_tail(query, dim, tail) : Floats{};
  for (std::size_t r = 0; r < n_rows; ++r) {
    const float* row = rows[r];
    const float* ahead = rows[r + kRowsAhead];
    if (ahead != row + kRowsAhead * dim) {
      for (std::size_t i = 0; i < dim; i += kLineFloats) __builtin_prefetch(ahead + i);
    }
    Sum sum;
    std::size_t i = 0;
    for (; i + kStep <= dim; i += kStep) {
      for (std::size_t a = 0; a < kAccumulators; ++a) {
        sum.add(a, load(query + i + a * kFloats), load(row + i + a * kFloats));
      }
    }
    for (; i + kFloats <= dim; i += kFloats) sum.add(0, load(query + i), load(row + i));
    if (tail != 0) sum.add(1, query_tail, load_tail(row, dim, tail));
    sum.write(sums + r, norms + r);
  }
}

}  // namespace

void scan(Pass pass, const float* query, const float* const* rows, std::size_t n_rows, std::size_t dim,
          float* sums, float* norms) {
  switch (pass) {
    case Pass::kDot:
      return scan_rows<Dot>(query, rows, n_rows, dim, sums, norms);
    case Pass::kSquares:
      return scan_rows<Squares>(query, rows, n_rows, dim, sums, norms);
    case Pass::kAbsolute:
      return scan_rows<Absolute>(query, rows, n_rows, dim, sums, norms);
    case Pass::kMinimum:
      return;  // one query is summed up by kAbsolute
    case Pass::kBits:
      return scan_rows<Bits>(query, rows, n_rows, dim, sums, norms);
  }
}

void norms(const float* const* rows, std::size_t n_rows, std::size_t dim, const float* centre, float* norms) {
  // Without a centre the query is not looked at; any readable row of the dimension will do.
  if (n_rows == 0) return;
  if (centre != nullptr) return scan_rows<CentredNorm>(centre, rows, n_rows, dim, norms, norms);
  scan_rows<Norm>(rows[0], rows, n_rows, dim, norms, norms);
}

void totals(const float* const* rows, std::size_t n_rows, std::size_t dim, float* sums, float* sizes) {
  if (n_rows != 0) scan_rows<Totals>(rows[0], rows, n_rows, dim, sums, sizes);
}

std::size_t first_non_finite(const float* x, std::size_t n) {
  constexpr std::int32_t kExponent = 0x7f800000;
  constexpr std::size_t kStep = 8 * kFloats;
  std::size_t i = 0;
  for (; i + kStep <= n; i += kStep) {
    Ints found = {};
    for (std::size_t a = 0; a < 8; ++a) found |= (bits(load(x + i + a * kFloats)) & kExponent) == kExponent;
    if (any(found)) break;
  }
  for (; i < n; ++i) {
    std::int32_t item;
    __builtin_memcpy(&item, x + i, 4);
    if ((item & kExponent) == kExponent) return i;
  }
  return n;
}

}  // namespace iqdb::IQDB_VARIANT
