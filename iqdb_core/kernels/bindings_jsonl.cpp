// parse_jsonl() and its result.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings.hpp"
#include "buffers.hpp"
#include "jsonl.hpp"
#include "jsonl_scanner.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace iqdb {
namespace {

template <class T>
using View = nb::ndarray<nb::memview, const T, nb::ndim<1>, nb::c_contig>;

// A memoryview of n items inside a batch, which it keeps alive.
template <class T>
View<T> view(const void* items, size_t n, nb::handle owner) {
  static constexpr T kNone{};  // an empty vector has no address, a buffer needs one
  return View<T>(n == 0 ? &kNone : static_cast<const T*>(items), {n}, owner);
}

template <class T>
nb::object view_object(const void* items, size_t n, nb::handle owner) {
  return nb::cast(view<T>(items, n, owner));
}

nb::object column_values(const JsonColumn& column, nb::handle owner) {
  const uint8_t* const values = column.values.data();
  const size_t bytes = column.values.size();
  switch (column.type) {
    case ColumnType::kInt64:
      return view_object<int64_t>(values, bytes / sizeof(int64_t), owner);
    case ColumnType::kFloat64:
      return view_object<double>(values, bytes / sizeof(double), owner);
    default:
      return view_object<uint8_t>(values, bytes, owner);
  }
}

// (key, type, rows, values, offsets or None) of every column.
nb::list columns(nb::handle_t<JsonlBatch> self) {
  nb::list list;
  for (const JsonColumn& column : nb::cast<const JsonlBatch&>(self).columns) {
    nb::object offsets = nb::none();
    if (column.type == ColumnType::kString) {
      offsets = view_object<uint64_t>(column.offsets.data(), column.offsets.size(), self);
    }
    list.append(nb::make_tuple(column.key, static_cast<int>(column.type),
                               view_object<uint32_t>(column.rows.data(), column.rows.size(), self),
                               column_values(column, self), offsets));
  }
  return list;
}

// A property that is a memoryview of one of the batch's arrays.
template <auto kMember>
auto array_property() {
  return [](nb::handle_t<JsonlBatch> self) {
    const auto& items = nb::cast<const JsonlBatch&>(self).*kMember;
    using Item = typename std::remove_cvref_t<decltype(items)>::value_type;
    return view<Item>(items.data(), items.size(), self);
  };
}

JsonlBatch py_parse_jsonl(BufferArg data_arg, uint64_t first_line, std::optional<std::string> id_field,
                          std::optional<std::string> vector_field, std::optional<std::string> metadata_field,
                          std::optional<std::vector<std::string>> columns, bool no_metadata,
                          bool scalars_only, uint64_t dim, int64_t max_rows, bool final,
                          uint64_t max_line_bytes) {
  const Buffer<const uint8_t> data(data_arg, "data");
  constexpr int64_t kMaxRows = std::numeric_limits<uint32_t>::max();
  constexpr uint64_t kMaxLineBytes = uint64_t{256} << 20;
  constexpr uint64_t kMaxDim = 65536;
  if (max_rows < 1 || max_rows > kMaxRows) throw nb::value_error("max_rows must be from 1 to 2^32-1");
  if (max_line_bytes < 1 || max_line_bytes > kMaxLineBytes) {
    throw nb::value_error("max_line_bytes must be from 1 to 2^28");
  }
  if (dim > kMaxDim) throw nb::value_error("dim must be at most 65536");
  const bool same = (id_field && (id_field == vector_field || id_field == metadata_field)) ||
                    (metadata_field && metadata_field == vector_field);
  if (same) throw nb::value_error("id_field, vector_field and metadata_field must differ");
  const JsonlOptions options{
      .first_line = first_line,
      .id_field = std::move(id_field),
      .vector_field = std::move(vector_field),
      .metadata_field = std::move(metadata_field),
      .columns = std::move(columns),
      .no_metadata = no_metadata,
      .scalars_only = scalars_only,
      .dim = dim,
      .max_rows = static_cast<size_t>(max_rows),
      .final = final,
      .max_line_bytes = max_line_bytes,
  };
  const nb::gil_scoped_release release;
  return parse_jsonl({reinterpret_cast<const char*>(data.data()), data.size()}, options);
}

// A JSON number as (float32, float64), None for what overflows; `portable`: by the C library.
std::pair<std::optional<float>, std::optional<double>> round_number(const std::string& text, bool portable) {
  const std::string line = text + '\n' + std::string(JsonScanner::kPadding, '\0');
  try {
    JsonScanner scanner(line.c_str());
    const Decimal number = scanner.number();
    scanner.end_of_line();
    if (portable) return {nearest_f32_of_text(number, true), nearest_f64_of_text(number, true)};
    return {nearest_f32(number), nearest_f64(number)};
  } catch (const JsonProblem& problem) {
    throw nb::value_error(problem.reason.c_str());
  }
}

// JsonlError of Python: a ValueError with the facts of the C++ exception as attributes.
PyObject* make_error_type(nb::module_& m) {
  nb::dict members;
  members["line"] = 0;
  members["column"] = 0;
  members["reason"] = "";
  PyObject* const type = PyErr_NewExceptionWithDoc(
      "iqdb_core._kernels.JsonlError",
      "A line that parse_jsonl() cannot take.\n\nAttributes:\n    line: Number of the line, from first_line "
      "on.\n"
      "    column: Place in the line, in bytes from 1.\n    reason: What is wrong there.",
      PyExc_ValueError, members.ptr());
  if (type == nullptr) nb::raise_python_error();
  m.attr("JsonlError") = nb::borrow(type);
  return type;  // one reference is kept for ever, for the translator
}

void translate(const std::exception_ptr& exception, void* type) {
  try {
    std::rethrow_exception(exception);
  } catch (const JsonlError& error) {
    const nb::object python_error = nb::borrow(static_cast<PyObject*>(type))(error.what());
    python_error.attr("line") = error.line;
    python_error.attr("column") = error.column;
    python_error.attr("reason") = error.reason;
    PyErr_SetObject(static_cast<PyObject*>(type), python_error.ptr());
  }
}

}  // namespace

void bind_jsonl(nb::module_& m) {
  nb::register_exception_translator(translate, make_error_type(m));

  nb::class_<JsonlBatch>(m, "JsonlBatch",
                         "The records of consecutive lines, in columns. Arrays are memoryviews.")
      .def_ro("n_rows", &JsonlBatch::rows)
      .def_ro("n_lines", &JsonlBatch::lines, "Lines consumed, blank ones included.")
      .def_ro("consumed_bytes", &JsonlBatch::consumed_bytes, "The next call's data start here.")
      .def_ro("dim", &JsonlBatch::dim, "Components of each vector; 0 when no record was seen yet.")
      .def_ro("has_ids", &JsonlBatch::has_ids, "Every record has an id; else the id arrays are empty.")
      .def_ro("ids_all_u64", &JsonlBatch::ids_all_u64, "All ids are integers, and ids_u64 holds them.")
      .def_prop_ro("vectors", array_property<&JsonlBatch::vectors>(), "float32[n_rows * dim]")
      .def_prop_ro("row_lines", array_property<&JsonlBatch::row_lines>(),
                   "uint64[n_rows]: number of the line of each row.")
      .def_prop_ro("id_kinds", array_property<&JsonlBatch::id_kinds>(),
                   "uint8[n_rows]: 0 integer, 1 bytes, 2 text.")
      .def_prop_ro("id_offsets", array_property<&JsonlBatch::id_offsets>(), "uint64[n_rows + 1]")
      .def_prop_ro("id_bytes", array_property<&JsonlBatch::id_bytes>(),
                   "uint8[id_offsets[-1]]; an integer has 8 bytes, little-endian.")
      .def_prop_ro("ids_u64", array_property<&JsonlBatch::ids_u64>(),
                   "uint64[n_rows] if ids_all_u64, else empty.")
      .def_prop_ro("has_metadata", array_property<&JsonlBatch::has_metadata>(),
                   "uint8[n_rows]: 1 where the record has a mapping, be it empty.")
      .def_prop_ro(
          "columns", &columns,
          nb::sig("def columns(self) -> list[tuple[str, int, memoryview, memoryview, memoryview | None]]"),
          "One (key, type, rows, values, offsets) for each key and type, sorted by them. Types: 1 null "
          "(no values), 2 bool (uint8), 3 int64, 4 float64, 5 string (UTF-8, with offsets).");

  m.def("parse_jsonl", &py_parse_jsonl, "data"_a, nb::kw_only(), "first_line"_a = 1,
        "id_field"_a = nb::none(), "vector_field"_a = nb::none(), "metadata_field"_a = nb::none(),
        "columns"_a = nb::none(), "no_metadata"_a = false, "scalars_only"_a = false, "dim"_a = 0,
        "max_rows"_a = int64_t{std::numeric_limits<uint32_t>::max()}, "final"_a = true,
        "max_line_bytes"_a = uint64_t{256} << 20,
        R"(Read records from JSON Lines (RFC 8259, one object a line, blank lines skipped).

Args:
    data: Bytes that start at the start of a line. They must not change during the call.
    first_line: The number of that line. A byte order mark is skipped before line 1.
    id_field: Key of the id: an integer 0..2^64-1, a string or {"hex": "00ff"}; None: no ids. Either
        all records have it or none.
    vector_field: Key of the vector, an array of numbers; None: lines are metadata alone, and a line
        may be null for a record without a mapping.
    metadata_field: Key of the object (or null) with the metadata; all other keys are skipped. None:
        the keys of the record beside id and vector are the metadata, and a record that has no such
        key has no mapping.
    columns: Keep these keys of the metadata only, whatever the others hold.
    no_metadata: Keep none.
    scalars_only: Pass over arrays and objects among the keys of the record (not of the metadata_field)
        instead of refusing them.
    dim: Components expected of every vector; 0: as many as the first has.
    max_rows: Stop after so many records.
    final: The data end here, so the last line is whole even without a line end. Otherwise it is left
        to the next call.
    max_line_bytes: Longer lines are refused.

A value of the metadata is a string, true, false, null, an integer of 64 bits (without fraction and
exponent), another number (float64), or {"float": F} with F "nan", "inf", "-inf" or "nan:" and the 16
hexadecimal digits of the bits. Numbers are rounded correctly, vector components to float32.

Returns:
    The records of as many lines as were complete; `consumed_bytes` says how far they go. It may be
    fewer lines when records have very many different keys.

Raises:
    JsonlError: a line is not as above, has a key twice, or exceeds a limit.)");

  m.def("_round_number", round_number, "text"_a, "portable"_a,
        "A JSON number as float32 and float64, None where it overflows; `portable`: by the C library.");
}

}  // namespace iqdb
