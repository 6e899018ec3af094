// Reads snapshots with the project's own checksums, on a machine of any byte order: every field by
// `load_le`, every block by `crc32c_block`. Prints one line a file: name, sections, blocks, rows, dim.
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "byteorder.hpp"
#include "checksum.hpp"

namespace {

int fail(const char* path, const char* what) {
  std::printf("%s: %s\n", path, what);
  return 1;
}

int read(const char* path) {
  std::ifstream in(path, std::ios::binary);
  const std::vector<char> content((std::istreambuf_iterator<char>(in)), {});
  const auto* data = reinterpret_cast<const uint8_t*>(content.data());
  using iqdb::load_le;
  if (content.size() < 4096 || std::memcmp(data, "IQDBPRST", 8) != 0) return fail(path, "no snapshot");
  if (load_le<uint32_t>(data + 8) != 3 || load_le<uint64_t>(data + 16) != content.size())
    return fail(path, "header");
  if (iqdb::crc32c(0, data, 4092) != load_le<uint32_t>(data + 4092)) return fail(path, "header_crc");
  const uint64_t at = load_le<uint64_t>(data + 64);
  const uint32_t count = load_le<uint32_t>(data + 72);
  if (iqdb::crc32c(0, data + at, 96 * count) != load_le<uint32_t>(data + 76))
    return fail(path, "section_table_crc");
  size_t blocks = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const uint8_t* entry = data + at + 96 * i;
    const uint64_t offset = load_le<uint64_t>(entry + 48), stored = load_le<uint64_t>(entry + 56);
    const uint8_t* table = data + load_le<uint64_t>(entry + 72);
    const size_t n = (stored + 4095) / 4096;
    if (iqdb::crc32c(0, table, 4 * n) != load_le<uint32_t>(entry + 80)) return fail(path, "checksums_crc");
    const uint32_t prefix = iqdb::crc32c(iqdb::crc32c(0, data + 48, 16), entry, 24);
    for (size_t block = 0; block < n; ++block) {
      const size_t size = block + 1 < n ? 4096 : stored - 4096 * block;
      const uint32_t crc = iqdb::crc32c_block(prefix, block, data + offset + 4096 * block, size);
      if (crc != load_le<uint32_t>(table + 4 * block)) return fail(path, "a block");
    }
    blocks += n;
  }
  std::printf("%s %u %zu %llu %u\n", path, count, blocks,
              static_cast<unsigned long long>(load_le<uint64_t>(data + 80)), load_le<uint32_t>(data + 88));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  int status = std::endian::native == std::endian::big ? 0 : 2;
  for (int i = 1; i < argc; ++i) status |= read(argv[i]);
  return status;
}
