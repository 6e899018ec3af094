// Typed, checked views of Python objects that offer the buffer protocol.
#pragma once

#include <Python.h>
#include <nanobind/nanobind.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>

namespace iqdb {

// An argument that must offer the buffer protocol; the stub shows it as typing_extensions.Buffer.
struct BufferArg {
  PyObject* object = nullptr;
};

namespace detail {

enum class ItemKind : char { kFloat = 'f', kSigned = 'i', kUnsigned = 'u', kOther = 0 };

// PEP 3118 codes; a byte order other than the machine's is refused, whatever the item.
inline ItemKind item_kind(const char* format) {
  if (format == nullptr) return ItemKind::kUnsigned;  // no format: unsigned bytes
  const char foreign = std::endian::native == std::endian::little ? '>' : '<';
  if (*format == foreign || (*format == '!' && foreign == '>')) return ItemKind::kOther;
  if (*format == '@' || *format == '=' || *format == '<' || *format == '>') ++format;
  if (format[0] == '\0' || format[1] != '\0') return ItemKind::kOther;
  switch (format[0]) {
    case 'f':
    case 'd':
    case 'e':
      return ItemKind::kFloat;
    case 'b':
    case 'h':
    case 'i':
    case 'l':
    case 'q':
    case 'n':
      return ItemKind::kSigned;
    case 'B':
    case 'H':
    case 'I':
    case 'L':
    case 'Q':
    case 'N':
    case 'c':
    case '?':
      return ItemKind::kUnsigned;
    default:
      return ItemKind::kOther;
  }
}

template <class T>
constexpr ItemKind kind_of() {
  if constexpr (std::is_floating_point_v<T>) return ItemKind::kFloat;
  return std::is_signed_v<T> ? ItemKind::kSigned : ItemKind::kUnsigned;
}

template <class T>
std::string type_name() {
  const char* kind = std::is_floating_point_v<T> ? "float" : std::is_signed_v<T> ? "int" : "uint";
  return kind + std::to_string(8 * sizeof(T));
}

}  // namespace detail

// A view of T items, released with the object. Buffer<const T> reads, Buffer<T> writes and refuses
// a read-only object. Create and destroy it while holding the GIL; the items may be used without.
// Throws ValueError or TypeError with `name`, the argument's name, in the message.
//
// std::uint8_t (const or not) stands for raw bytes too: any contiguous buffer of one-byte items.
template <class T>
class Buffer {
  using Item = std::remove_const_t<T>;

 public:
  Buffer(BufferArg argument, const char* name) : name_(name) {
    const int writable = std::is_const_v<T> ? 0 : PyBUF_WRITABLE;
    if (PyObject_GetBuffer(argument.object, &view_, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS | writable) != 0) {
      PyErr_Clear();
      fail(std::is_const_v<T> ? "must be a C-contiguous buffer" : "must be a writable C-contiguous buffer");
    }
    const detail::ItemKind kind = detail::item_kind(view_.format);
    const bool same = kind == detail::kind_of<Item>() ||
                      (sizeof(Item) == 1 && !std::is_floating_point_v<Item> &&
                       (kind == detail::ItemKind::kUnsigned || kind == detail::ItemKind::kSigned));
    if (!same || view_.itemsize != static_cast<Py_ssize_t>(sizeof(Item))) {
      const std::string found = view_.format != nullptr ? view_.format : "B";
      release();
      throw nanobind::type_error((std::string(name) + " must hold " + detail::type_name<Item>() +
                                  " items, found items of format '" + found + "'")
                                     .c_str());
    }
    // The address of an empty buffer is never used, and may be anything.
    if (view_.len != 0 && reinterpret_cast<std::uintptr_t>(view_.buf) % alignof(Item) != 0) {
      release();
      fail("is not aligned to its items");
    }
  }
  ~Buffer() { release(); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* data() const { return static_cast<T*>(view_.buf); }
  std::size_t size() const { return static_cast<std::size_t>(view_.len) / sizeof(Item); }
  std::size_t ndim() const { return static_cast<std::size_t>(view_.ndim); }
  std::size_t shape(std::size_t axis) const { return static_cast<std::size_t>(view_.shape[axis]); }
  T* begin() const { return data(); }
  T* end() const { return data() + size(); }

  // The number of rows of a 2-D buffer [n, columns]. memoryview.cast() cannot make a shape with a 0
  // in it, so an empty 1-D buffer stands for no rows.
  std::size_t rows(std::size_t columns) const {
    if (ndim() == 1 && size() == 0) return 0;
    if (ndim() != 2) fail("must be a 2-D buffer, found " + std::to_string(ndim()) + " dimension(s)");
    if (shape(1) != columns && shape(0) != 0) {
      fail("must have " + std::to_string(columns) + " columns, found " + std::to_string(shape(1)));
    }
    return shape(0);
  }

  // Throws unless there are exactly `count` items (of any shape).
  const Buffer& expect_size(std::size_t count) const {
    if (size() != count) {
      fail("must have " + std::to_string(count) + " items, found " + std::to_string(size()));
    }
    return *this;
  }

  // Throws unless there are at least `count` items (of any shape).
  const Buffer& expect_at_least(std::size_t count) const {
    if (size() < count) {
      fail("must have at least " + std::to_string(count) + " items, found " + std::to_string(size()));
    }
    return *this;
  }

  [[noreturn]] void fail(const std::string& problem) const {
    throw nanobind::value_error((std::string(name_) + " " + problem).c_str());
  }

 private:
  void release() {
    if (view_.obj != nullptr) PyBuffer_Release(&view_);
  }

  const char* name_;
  Py_buffer view_{};
};

}  // namespace iqdb

namespace nanobind::detail {

template <>
struct type_caster<iqdb::BufferArg> {
  NB_TYPE_CASTER(iqdb::BufferArg, const_name("typing_extensions.Buffer"))

  bool from_python(handle source, uint8_t, cleanup_list*) noexcept {
    value.object = source.ptr();
    return PyObject_CheckBuffer(source.ptr()) != 0;
  }
  static handle from_cpp(iqdb::BufferArg value, rv_policy, cleanup_list*) noexcept {
    return handle(value.object).inc_ref();
  }
};

}  // namespace nanobind::detail
