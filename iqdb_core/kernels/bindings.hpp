// The parts of the Python module, each bound in its own file.
#pragma once

#include <nanobind/nanobind.h>

namespace iqdb {

void bind_bits(nanobind::module_& m);
void bind_bytes(nanobind::module_& m);
void bind_codes(nanobind::module_& m);
void bind_filters(nanobind::module_& m);
void bind_graph(nanobind::module_& m);
void bind_graph_search(nanobind::module_& m);
void bind_ivf(nanobind::module_& m);
void bind_ivf_search(nanobind::module_& m);
void bind_jsonl(nanobind::module_& m);
void bind_plain(nanobind::module_& m);
void bind_records(nanobind::module_& m);

}  // namespace iqdb
