// Links to the nodes that have the greatest inner products with a node.
//
// A graph of directions alone leads a walk to the nodes whose direction is the query's. Where lengths differ,
// the greatest inner products are those of longer vectors beside these, and directions do not lead to them.
// So each node also gets links to the nodes that would be its own hits: what is near a query in direction has
// nearly the same hits as the query (ip-NSW+, Liu et al., arXiv 1909.13459).
#pragma once

#include "graph_build.hpp"
#include "table.hpp"

namespace iqdb {

// Gives each fresh node up to m / 2 such links, in place of its last ones where its list is full. Does
// nothing where the lengths of all nodes are alike, or nodes are few. The result does not depend on
// `build.threads`.
void link_products(const Kernels& kernels, GraphBuild& build);

}  // namespace iqdb
