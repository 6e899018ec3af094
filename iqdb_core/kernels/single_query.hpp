// What searches with one query have in common: from Python and back by the shortest way.
#pragma once

#include <Python.h>
#include <nanobind/nanobind.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace iqdb {

// float32[dim], C-contiguous, or nothing.
class QueryView {
 public:
  QueryView(nanobind::handle object, std::size_t dim) {
    if (PyObject_CheckBuffer(object.ptr()) == 0) return;
    if (PyObject_GetBuffer(object.ptr(), &view_, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS) != 0) {
      PyErr_Clear();
      return;
    }
    is_usable_ = view_.ndim == 1 && view_.shape[0] == static_cast<Py_ssize_t>(dim) && view_.itemsize == 4 &&
                 view_.format != nullptr && std::strcmp(view_.format, "f") == 0 &&
                 reinterpret_cast<std::uintptr_t>(view_.buf) % alignof(float) == 0;
  }
  ~QueryView() {
    if (view_.obj != nullptr) PyBuffer_Release(&view_);
  }
  QueryView(const QueryView&) = delete;
  QueryView& operator=(const QueryView&) = delete;

  const float* data() const { return is_usable_ ? static_cast<const float*>(view_.buf) : nullptr; }

 private:
  Py_buffer view_{};
  bool is_usable_ = false;
};

// An int in 1..most; anything else is for others to convert or to refuse.
inline bool count_of(nanobind::handle value, std::size_t most, std::size_t* out) {
  if (!PyLong_CheckExact(value.ptr())) return false;
  int overflow = 0;
  const long long number = PyLong_AsLongLongAndOverflow(value.ptr(), &overflow);
  if (overflow != 0 || number < 1 || static_cast<unsigned long long>(number) > most) return false;
  *out = static_cast<std::size_t>(number);
  return true;
}

template <class Item, class Make>
nanobind::object list_of(const std::vector<Item>& items, const Make& make) {
  nanobind::object list = nanobind::steal(PyList_New(static_cast<Py_ssize_t>(items.size())));
  if (!list.is_valid()) nanobind::raise_python_error();
  for (std::size_t i = 0; i < items.size(); ++i) {
    PyObject* const item = make(items[i]);
    if (item == nullptr) nanobind::raise_python_error();
    PyList_SET_ITEM(list.ptr(), static_cast<Py_ssize_t>(i), item);
  }
  return list;
}

// (list of int, list of float)
inline nanobind::object hits_of(const std::vector<std::int64_t>& rows, const std::vector<double>& distances) {
  return nanobind::make_tuple(list_of(rows, PyLong_FromLongLong), list_of(distances, PyFloat_FromDouble));
}

}  // namespace iqdb
