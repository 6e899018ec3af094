// Components to codes: what is heavy about encoding rows. See codes.hpp for what a code is.
#pragma once

#include <cstddef>
#include <cstdint>

namespace iqdb {

// Rows that are encoded side by side. What is stored of a sum of squares depends on the order in which it is
// added up, so one sum is a chain in which each step waits for the one before: a chain is a lane of a vector.
inline constexpr std::size_t kEncodedRows = 4;

// The components of each row times its factor, less the mean, times the scale, are rounded to the nearest
// integers from -kCodeReach to kCodeReach; codes are these and kCodeCentre.
struct EncodeTask {
  const float* const* rows;  // [kEncodedRows]
  std::size_t dim;
  std::size_t stride;     // bytes a code; behind the components stands kCodeCentre
  const double* factors;  // [kEncodedRows]
  const double* mean;     // [dim]
  double scale;
  std::uint8_t* const* codes;  // [kEncodedRows]; the same where rows are
  double* squares;             // [kEncodedRows] of the components times the factor, summed in their order
  double* residuals;           // [kEncodedRows] of what rounding took away, likewise
  std::int32_t* lengths;       // [kEncodedRows] the sum of squares of the code
  std::int32_t* centred;       // [kEncodedRows] the same of the code less kCodeCentre
};

}  // namespace iqdb
