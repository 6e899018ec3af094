// Checksums of blocks over an array of an input, right ones but for those that the input says are damaged.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "arrays.hpp"
#include "checksum.hpp"

class CheckedBlocks {
 public:
  template <class T>
  CheckedBlocks(FuzzedDataProvider& feed, const Array<T>& array) {
    const std::span<const std::uint8_t> data{reinterpret_cast<const std::uint8_t*>(array.data()),
                                             array.size() * sizeof(T)};
    const std::size_t count = (data.size() + iqdb::kBlockBytes - 1) / iqdb::kBlockBytes;
    crcs_.resize(count);
    verified_.resize(count);
    const auto prefix = feed.ConsumeIntegral<std::uint32_t>();
    iqdb::crc32c_blocks(data, prefix, 0, crcs_.data());
    const auto damaged = feed.ConsumeIntegral<std::uint8_t>();
    damaged_ = damaged % 4 == 0 && count != 0;
    if (damaged_) crcs_[damaged % count] ^= 1U << damaged % 32;
    table_ = {data, crcs_, verified_.data(), prefix};
    wanted_ = feed.ConsumeBool();
  }

  // Null where the input says that everything is verified.
  const iqdb::BlockTable* table() const { return wanted_ ? &table_ : nullptr; }
  bool may_be_found() const { return wanted_ && damaged_; }

 private:
  std::vector<std::uint32_t> crcs_;
  std::vector<std::uint8_t> verified_;
  iqdb::BlockTable table_{};
  bool damaged_ = false;
  bool wanted_ = false;
};
