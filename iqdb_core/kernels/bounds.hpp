// How far an f32 sum of a filter pass can be from the exact value, and the limits that follow from it.
//
// The passes (scan.cpp, tiles.cpp) sum in f32; a row may be dropped only if its canonical distance
// (canonical.cpp) is certainly above the current limit T, the canonical k-th distance so far. The
// bounds are worst-case bounds of IEEE arithmetic (round to nearest, gradual underflow), after Higham,
// "Accuracy and Stability of Numerical Algorithms", 2nd ed., chapters 2 to 4:
//
//   u = 2^-24,  gamma(n) = n u / (1 - n u)
//   (2.8)  fl(x op y) = (x op y)(1 + d) + e,  |d| <= u,  |e| <= 2^-150, e = 0 for op = + and -
//   (3.5)  |fl(q.x) - q.x| <= gamma(n) sum |q[i] x[i]|, in any order of summation (section 4.2: a term
//          takes part in at most n roundings, the product's included; fused products take fewer)
//          <= gamma(n) |q| |x|  by Cauchy and Schwarz, plus n 2^-149 for underflow of the products.
//
// g = gamma(dim + 64) is used for every f32 sum here. The 64 spare roundings cover what is done with
// the sum afterwards in f32 (the norm's square root, three operations of the comparison), the rounding
// of the limits to f32, and the float64 error of the canonical distance, which is below dim 2^-53
// relative to the same quantities, less than u for every dim allowed. tiny = 2 (dim + 8) 2^-149 covers
// all underflow, the comparison's included.
//
// Dot product. The canonical distance is -q.x <= T, so q.x >= -T, and
//   sum >= -T - g |q| |x| - tiny =: a + b u,  u = |x|.
//
// Cosine. 1 - q.x/(|q||x|) <= T, so q.x >= (1 - T)|q||x|. u = |x| is computed with a relative error
// below g, and |1 - T| <= 1 where the limit excludes anything (T >= 2 excludes nothing and T < 0 is
// taken as 0), so
//   sum >= (1 - T)|q| u - 3 g |q| u - tiny =: a + b u,  a = -tiny.
//
// Euclidean distance of one query is summed as (q - x)^2: all terms have one sign, so the error is
// relative, gamma(dim + 2):
//   sum <= T^2 (1 + g) + tiny =: a.  Manhattan likewise, sum <= T (1 + g) + tiny.
// An overflow to infinity is covered too: the exact sum is then above FLT_MAX (1 - g), and a limit
// above that rounds to +inf, which drops nothing.
//
// Euclidean distance of a batch is a matrix product. A common offset c, the mean of the queries, is
// taken from the queries (q' = fl(q - c), whose rounding moves the query by at most u |q'| (1 + 2u) in
// length, hence T' = T + 2u|q'|) so that vectors far from the origin do not drown their distances in
// the error of large products. With y = x - c:
//   |q' - y|^2 = |q'|^2 + |y|^2 - 2 q'.x + 2 q'.c <= T'^2, so
//   q'.x >= (|q'|^2 + 2 q'.c - T'^2)/2 + |y|^2/2, and
//   sum >= a + v + b u,  v = (|y|^2/2)(1 - 2g),  b = -g |q'|,  u = |y| + |c| >= |x|,
//   a = (|q'|^2 + 2 q'.c - T'^2)/2 - 16u (|q'|^2 + 2 |q'||c| + T'^2) - tiny.
// The 2g in v covers the error of |y|^2 (gamma(dim + 2), relative) and v's roundings; the 16u in a
// that of the float64 sums, of a's rounding to f32 and of the addition to a.
//
// Manhattan distance of a batch: |q - x| = q + x - 2 min(q, x). A minimum is exact, and so is the sum
// of subnormal numbers. With |.|1 for the sum of absolute values and q1, x1 for the sums of components:
//   sum >= (q1 + x1 - T)/2 - gamma(dim) (|q|1 + |x|1) =: a + v,
//   a = (q1 - T)/2 - 2g |q|1 - 16u (|q|1 + |T|) - tiny,  v = x1/2 - 2g |x|1.
// x1 is computed with an error below gamma(dim) |x|1, halved here; what remains of the 2g covers the
// relative error of |x|1 and v's roundings.
//
// Hamming counts are exact.
//
// A query or row whose |.|^2 (Manhattan: |.|1) leaves [0, 1e30] (for cosine [1e-30, 1e30]) could overflow or
// lose its norm to underflow: its limit is -inf (or NaN), which drops nothing, so it is scored canonically.
#pragma once

#include <cstddef>
#include <vector>

#include "metric.hpp"
#include "table.hpp"

namespace iqdb {

class Bounds {
 public:
  // `batch` says which pass serves euclidean queries. `centre` is empty or the offset c.
  Bounds(Metric metric, std::size_t dim, bool batch, const std::vector<float>& centre);

  Pass pass() const { return pass_; }
  // The comparison of a pair is linear in terms of the row, u and v.
  bool has_row_terms() const { return pass_ == Pass::kDot || pass_ == Pass::kMinimum; }

  // What is needed of one query, q (or q', where there is a centre).
  struct Query {
    double norm;    // |q|, or |q|1 for kMinimum
    double offset;  // q'.c, or q1
    bool wild;      // leaves the range that the analysis covers
  };
  Query query(const float* q) const;

  // The limits of one query that let every row at a canonical distance <= `distance` through.
  void limits(const Query& query, double distance, float* a, float* b) const;

  // The terms of each row. For kDot `norms` are the f32 sums of squares (of y = x - c with a centre)
  // and `sums` is not used; for kMinimum `norms` are |x|1 and `sums` are x1.
  void rows(const float* norms, const float* sums, std::size_t n, float* u, float* v) const;

 private:
  Metric metric_;
  std::size_t dim_;
  Pass pass_;
  double gamma_;
  double tiny_;
  std::vector<double> centre_;
  double centre_norm_ = 0.0;
};

}  // namespace iqdb
