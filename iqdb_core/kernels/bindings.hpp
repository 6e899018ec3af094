// The parts of the Python module, each bound in its own file, and a check that all of them need.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>
#include <cstdint>
#include <string>

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

inline std::size_t at_least_one(std::int64_t value, const char* name) {
  if (value < 1) {
    throw nanobind::value_error(
        (std::string(name) + " must be at least 1, found " + std::to_string(value)).c_str());
  }
  return static_cast<std::size_t>(value);
}

}  // namespace iqdb
