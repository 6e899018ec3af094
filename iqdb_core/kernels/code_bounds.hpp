// How far a sum over codes can be from the distance that it stands for, and the limits that follow from it.
//
// The pass (code_tiles.cpp) sums S = sum z[j] c[j], an exact integer, of a row's code c and a query's code z.
// A row may be dropped only if its canonical distance (canonical.cpp) is certainly above the current limit T.
//
// Everything below is in the unit of the codes: vectors are multiplied by the model's scale s. Let x be the
// row as it was coded (of length s where the model has unit lengths), m the mean, C = c - 64 and
//   r >= |x - m - C|    how far the row is from what its code stands for,
//   y = q - m = t z + f  the query (of unit length where the rows are) as it is coded, with a step t of its
//   own, e >= |f|            how far the query is from that.
// By the triangle inequality |q - x| >= |t z - C| - e - r. So a row with |q - x| <= R has
//   |t z - C|^2 <= (R + e + r)^2,  and as sum z C = S - 64 sum z,
//   t^2 |z|^2 + |C|^2 - 2 t (S - 64 sum z) <= (R + e)^2 + 2 (R + e) r + r^2.
// With p = |C|^2 - r^2 and P = R + e that is
//   S >= (t^2 |z|^2 + 128 t sum z - P^2) / 2t + p / 2t - (P / t) r =: a + b p + c r.
// R follows from T:
//   euclidean      R = s T.
//   cosine         |q - x|^2 = 2 (1 - cos) for unit lengths, so R = s sqrt(2 T). Rows of length 0 are coded
//   as
//                  0, at s from the query, and have distance 1, for which R > s. T >= 2 excludes nothing, nor
//                  does a query of length 0.
//   inner product  the distance is -|q||x| cos <= T, so |q - x|^2 <= 2 s^2 h, h = 1 + T / (|q||x|). For T >=
//   0 nothing is
//                  excluded. Else h grows with |x|; with u <= 1 / |x| for the row in hand and H >= s sqrt(2
//                  h) for all rows, (R + e + r)^2 <= 2 s^2 h + 2 H (e + r) + (e + r)^2, so P = H + e in c and
//   S >= (t^2 |z|^2 + 128 t sum z - 2 s^2 - 2 H e - e^2) / 2t + p / 2t - (P / t) r - (s^2 T / (|q| t)) u
//     =: a + b p + c r + d u.
//
// Rounding. All float64 sums (of x, y, C, of canonical distances) are off by less than 2^16 2^-52 relative to
// the lengths involved: kSlack = 2^-32 of s (|x| + |m|) in r, of s (|q| + |m|) in e, and of R covers them. p
// and r are stored as f32: r rounded up; p = |C|^2 - r^2 of the stored r, less 2^-20 of itself, rounded down.
// S becomes f32 with an error below 2^-24 127 sum |z|, and the comparison's operations err by less than 2^-22
// of each of their terms: a and c are lowered by 2^-20 of theirs (a also by 2^-20 127 sum |z|), d shrinks by
// as much, p was shrunk. What overflows, or is NaN, drops nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "codes.hpp"
#include "metric.hpp"

namespace iqdb {

// The limits of one query: a row is dropped when S < a + b p + c r + d u.
struct CodeLimit {
  float a;
  float b;
  float c;
  float d;
};

class CodeBounds {
 public:
  // `least_u` is not above any row's u; 0 will always do. Only inner products look at it.
  CodeBounds(Metric metric, const CodeModel& model, std::size_t dim, float least_u);

  struct Query {
    double step;     // t
    double squares;  // t |z|^2 / 2 + 64 sum z
    double sizes;    // the sum of the sizes of its terms and of 127 |z|: what rounding errors are relative to
    double error;    // e
    double length;   // |q|
    bool wild;       // leaves what the analysis covers
  };

  // Codes a query with numbers of at most `reach` (<= 127); code[stride], zeros behind the components.
  Query encode(const float* query, int reach, std::int8_t* code) const;

  // The limits that let every row at a canonical distance <= `distance` through.
  CodeLimit limit(const Query& query, double distance) const;

  // Grows with the distance that a sum over codes stands for; an estimate, to look at near rows first.
  double estimate(const Query& query, double sum, double p, double u) const;

  // Whether rows have a term u.
  bool has_u() const { return metric_ == Metric::kDot; }

 private:
  Metric metric_;
  const CodeModel& model_;
  std::size_t dim_;
  double mean_norm_;
  double least_u_;
};

// p and r of a row, from the sums of squares of what rounding took away and of its code less kCodeCentre.
// `length` is |x|.
void code_bounds_of_row(const CodeModel& model, double mean_norm, double length, double residual,
                        std::int64_t squares, float* p, float* r);

double mean_norm(const CodeModel& model);

}  // namespace iqdb
