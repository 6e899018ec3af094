// What writing a single record takes: its vector as bytes, and a frame of the log out of its parts. Done in
// one call each, since behind a sync every call runs with cold caches.
#include <Python.h>
#include <nanobind/nanobind.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>

#include "bindings.hpp"
#include "buffers.hpp"
#include "byteorder.hpp"
#include "checksum.hpp"
#include "dispatch.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace iqdb {
namespace {

constexpr size_t kFrameHeaderBytes = 40;
constexpr size_t kFrameCrcOffset = 36;
// Letting other threads run costs more than a checksum of fewer bytes.
constexpr size_t kManyBytes = size_t{1} << 16;

// A new bytes object whose content is still to be written.
nb::object new_bytes(size_t size) {
  PyObject* const object = PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(size));
  if (object == nullptr) throw nb::python_error();
  return nb::steal(object);
}

uint8_t* content_of(const nb::object& bytes) {
  return reinterpret_cast<uint8_t*>(PyBytes_AS_STRING(bytes.ptr()));
}

// The copy is what is checked: another thread may be changing the original.
nb::object copy_vector(nb::handle vector, size_t dim) {
  Py_buffer view;
  if (PyObject_GetBuffer(vector.ptr(), &view, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS) != 0) {
    PyErr_Clear();
    return nb::none();
  }
  const bool plain = view.ndim == 1 && view.itemsize == sizeof(float) &&
                     static_cast<size_t>(view.len) == dim * sizeof(float) && dim != 0 &&
                     detail::item_kind(view.format) == detail::ItemKind::kFloat;
  nb::object bytes = nb::none();
  if (plain) {
    PyObject* const object = PyBytes_FromStringAndSize(static_cast<const char*>(view.buf), view.len);
    if (object != nullptr) bytes = nb::steal(object);
  }
  PyBuffer_Release(&view);
  if (!plain) return bytes;
  if (bytes.is_none()) throw nb::python_error();
  // The content of a bytes object is aligned for any scalar.
  const auto* const components = reinterpret_cast<const float*>(content_of(bytes));
  return kernels().first_non_finite(components, dim) == dim ? bytes : nb::none();
}

nb::object encode_frame(BufferArg header_arg, nb::sequence parts, uint32_t seed) {
  const Buffer<const uint8_t> header(header_arg, "header");
  header.expect_size(kFrameHeaderBytes);
  std::deque<Buffer<const uint8_t>> body;  // its elements stay where they are
  size_t size = kFrameHeaderBytes;
  for (const nb::handle part : parts) {
    if (PyObject_CheckBuffer(part.ptr()) == 0) throw nb::type_error("parts must be buffers");
    size += body.emplace_back(BufferArg{part.ptr()}, "part").size();
  }
  nb::object frame = new_bytes(size);
  uint8_t* const out = content_of(frame);
  const auto write = [&] {
    std::memcpy(out, header.data(), kFrameCrcOffset);
    uint8_t* end = out + kFrameHeaderBytes;
    for (const Buffer<const uint8_t>& part : body) {
      if (part.size() != 0) std::memcpy(end, part.data(), part.size());
      end += part.size();
    }
    const uint32_t crc =
        crc32c(crc32c(seed, out, kFrameCrcOffset), out + kFrameHeaderBytes, size - kFrameHeaderBytes);
    store_le(out + kFrameCrcOffset, crc);
  };
  if (size < kManyBytes) {
    write();
  } else {
    const nb::gil_scoped_release release;
    write();
  }
  return frame;
}

}  // namespace

void bind_records(nb::module_& m) {
  m.def("copy_vector", copy_vector, "vector"_a.none(), "dim"_a,
        nb::sig("def copy_vector(vector: object, dim: int) -> bytes | None"),
        "A copy of a float32[dim] buffer whose components are finite; None for anything else.");
  m.def(
      "encode_frame", encode_frame, "header"_a, "parts"_a, "seed"_a,
      nb::sig("def encode_frame(header: Buffer, parts: typing.Sequence[Buffer], seed: int) -> bytes"),
      "A log frame: the header of 40 bytes, whose last four become the checksum, and the parts of its body. "
      "`seed` is the CRC-32C of the database id.");
}

}  // namespace iqdb
