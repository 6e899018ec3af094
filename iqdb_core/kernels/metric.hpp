#pragma once

namespace iqdb {

// The numbers are those of the file format and of iqdb_core.types.DistanceMetric.tag.
enum class Metric : int { kCosine = 0, kDot = 1, kEuclidean = 2, kManhattan = 3, kHamming = 4 };
inline constexpr int kMetricCount = 5;

}  // namespace iqdb
