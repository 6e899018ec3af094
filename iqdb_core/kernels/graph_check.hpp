// Whether the links of a stored graph are what its format says, and which nodes a walk can come to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace iqdb {

inline constexpr std::size_t kGraphFaults = 4;

// What is wrong with places of `links`, by kind.
enum class GraphFault : std::size_t {
  kForeign,  // names a node that does not exist
  kSelf,     // names its own node
  kTwice,    // names a neighbour that an earlier place of the node names
  kHole,     // stands behind a place without a neighbour
};

struct GraphFaults {
  std::size_t count[kGraphFaults] = {};
  std::size_t first_node[kGraphFaults] = {};  // the first node with one; means nothing where count is 0
  std::size_t unreachable = 0;                // nodes to which no path leads from the entries
  std::size_t first_unreachable = 0;
};

// links[n][degree]. Nothing is trusted; numbers that name no node lead nowhere.
GraphFaults check_graph(const std::uint32_t* links, std::size_t n, std::size_t degree,
                        std::span<const std::uint32_t> entries, std::size_t threads);

}  // namespace iqdb
