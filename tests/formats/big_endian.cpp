// Reads golden databases, snapshot and log, on a machine of any byte order. Written from
// formats/snapshot-3.md and formats/log-2.md; numbers are loaded by the project's `load_le`, and checksums
// and hashes are its own.
//
// Prints for each path a line "PATH sections blocks rows dim", then a line "digest HEX records" and a line a
// record: row, id, bits of the vector, metadata. A snapshot compressed with Zstandard ends after the first.
#include <bit>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "byteorder.hpp"
#include "checksum.hpp"
#include "xxh64.hpp"

namespace {

using Bytes = std::string;
using iqdb::crc32c;

struct Value {
  uint8_t type;
  Bytes bytes;
};

using Mapping = std::map<Bytes, Value>;

struct Record {
  uint8_t kind;
  Bytes id;
  Bytes vector;
  std::optional<Mapping> metadata;
};

const uint8_t* raw(const Bytes& bytes) {
  return reinterpret_cast<const uint8_t*>(bytes.data());
}

void require(bool condition, const char* what) {
  if (!condition) throw std::runtime_error(what);
}

template <class T>
T number(const Bytes& bytes, size_t at) {
  require(at + sizeof(T) <= bytes.size(), "a number beyond the end");
  return iqdb::load_le<T>(raw(bytes) + at);
}

Bytes part(const Bytes& bytes, size_t at, size_t size) {
  require(at <= bytes.size() && size <= bytes.size() - at, "a part beyond the end");
  return bytes.substr(at, size);
}

uint32_t crc(const Bytes& bytes, uint32_t before = 0) {
  return crc32c(before, raw(bytes), bytes.size());
}

size_t pad(size_t size, size_t to) {
  return (size + to - 1) / to * to;
}

Bytes read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// --- snapshot-3.md, sections 3 to 7: header, table, blocks, chunks ---------------------------------

struct Section {
  Bytes name;
  uint8_t codec;
  uint32_t chunk_bytes;
  uint64_t offset, stored_bytes, raw_bytes, checksums_offset;
  uint32_t checksums_crc;
};

// The LZ4 block format: a token of two lengths, literals, a distance back of two bytes.
Bytes lz4(const Bytes& in, size_t size) {
  Bytes out;
  size_t at = 0;
  const auto length = [&](size_t nibble) {
    size_t total = nibble;
    if (nibble == 15)
      for (uint8_t more = 255; more == 255; total += more) more = number<uint8_t>(in, at++);
    return total;
  };
  while (at < in.size()) {
    const uint8_t token = number<uint8_t>(in, at++);
    const size_t literals = length(token >> 4);
    out += part(in, at, literals);
    at += literals;
    if (at == in.size()) break;
    const size_t distance = number<uint16_t>(in, at);
    at += 2;
    require(distance > 0 && distance <= out.size(), "an LZ4 distance");
    for (size_t left = length(token & 15) + 4; left; --left) out += out[out.size() - distance];
  }
  require(out.size() == size, "an LZ4 chunk of another size");
  return out;
}

struct Snapshot {
  Bytes database_id, digest;
  uint64_t n_rows, identity;
  uint32_t dim, header_crc;
  uint8_t id_encoding;
  size_t n_sections, n_blocks = 0;
  bool zstd = false;
  std::map<Bytes, Bytes> sections;
};

Bytes section_bytes(const Section& section, const Bytes& stored) {
  if (section.codec == 0) return stored;
  const size_t chunks = (section.raw_bytes + section.chunk_bytes - 1) / section.chunk_bytes;
  const size_t at = stored.size() - 8 * (chunks + 1);
  Bytes out;
  for (size_t i = 0; i < chunks; ++i) {
    const auto start = number<uint64_t>(stored, at + 8 * i), stop = number<uint64_t>(stored, at + 8 * i + 8);
    const size_t size = std::min<uint64_t>(section.chunk_bytes, section.raw_bytes - out.size());
    const Bytes chunk = part(stored, start, stop - start);
    out += chunk.size() == size ? chunk : lz4(chunk, size);
  }
  return out;
}

Snapshot read_snapshot(const Bytes& data) {
  require(data.size() >= 4096 && part(data, 0, 8) == "IQDBPRST", "no snapshot");
  require(number<uint32_t>(data, 8) == 3 && number<uint64_t>(data, 16) == data.size(), "header");
  Snapshot found;
  found.header_crc = number<uint32_t>(data, 4092);
  require(crc(part(data, 0, 4092)) == found.header_crc, "header_crc");
  found.database_id = part(data, 48, 16);
  const auto at = number<uint64_t>(data, 64);
  found.n_sections = number<uint32_t>(data, 72);
  const auto table_crc = number<uint32_t>(data, 76);
  found.identity = uint64_t{table_crc} << 32 | found.header_crc;
  found.n_rows = number<uint64_t>(data, 80);
  found.dim = number<uint32_t>(data, 88);
  found.id_encoding = number<uint8_t>(data, 94);
  found.digest = part(data, 96, 16);
  require(crc(part(data, at, 96 * found.n_sections)) == table_crc, "section_table_crc");
  for (size_t i = 0; i < found.n_sections; ++i) {
    const Bytes entry = part(data, at + 96 * i, 96);
    const Section section{Bytes(entry.c_str()),        number<uint8_t>(entry, 25),
                          number<uint32_t>(entry, 28), number<uint64_t>(entry, 48),
                          number<uint64_t>(entry, 56), number<uint64_t>(entry, 64),
                          number<uint64_t>(entry, 72), number<uint32_t>(entry, 80)};
    const Bytes stored = part(data, section.offset, section.stored_bytes);
    const size_t blocks = pad(stored.size(), 4096) / 4096;
    const Bytes checksums = part(data, section.checksums_offset, 4 * blocks);
    require(crc(checksums) == section.checksums_crc, "checksums_crc");
    const uint32_t prefix = crc(found.database_id + part(entry, 0, 24));
    for (size_t block = 0; block < blocks; ++block) {
      const Bytes bytes = stored.substr(4096 * block, 4096);
      const uint32_t expected = number<uint32_t>(checksums, 4 * block);
      require(iqdb::crc32c_block(prefix, block, raw(bytes), bytes.size()) == expected, "a block");
    }
    found.n_blocks += blocks;
    // Without a decoder of Zstandard for this machine: whole, and no more can be said.
    if (section.codec == 2)
      found.zstd = true;
    else
      found.sections[section.name] = section_bytes(section, stored);
  }
  return found;
}

// --- snapshot-3.md, sections 8 and 9: ids, metadata ------------------------------------------------

std::vector<size_t> set_bits(const Bytes& words, size_t at, size_t count) {
  std::vector<size_t> found;
  for (size_t i = 0; i < count; ++i)
    if (number<uint64_t>(words, at + i / 64 * 8) >> i % 64 & 1) found.push_back(i);
  return found;
}

std::vector<Bytes> read_strings(const Bytes& data, size_t offsets_at, size_t texts_at, size_t count) {
  std::vector<Bytes> found;
  for (size_t i = 0; i < count; ++i) {
    const auto start = number<uint32_t>(data, offsets_at + 4 * i);
    found.push_back(part(data, texts_at + start, number<uint32_t>(data, offsets_at + 4 * i + 4) - start));
  }
  return found;
}

std::vector<Bytes> read_values(const Bytes& data, uint8_t type, uint8_t encoding, size_t count) {
  std::vector<Bytes> found(count);
  if (type == 2)
    for (auto& value : found) value.assign(1, '\0');
  if (type == 2)
    for (const size_t i : set_bits(data, 0, count)) found[i][0] = 1;
  if (type == 3 || type == 4)
    for (size_t i = 0; i < count; ++i) found[i] = part(data, 8 * i, 8);
  if (type == 5 && encoding == 0) return read_strings(data, 0, 4 * (count + 1), count);
  if (type == 5 && encoding == 1) {
    const size_t entries = number<uint32_t>(data, 0), texts = pad(8 + 4 * (entries + 1), 8);
    const auto strings = read_strings(data, 8, texts, entries);
    const size_t codes = pad(texts + number<uint32_t>(data, 8 + 4 * entries), 8);
    for (size_t i = 0; i < count; ++i) found[i] = strings.at(number<uint16_t>(data, codes + 2 * i));
  }
  return found;
}

std::vector<std::optional<Mapping>> read_group(const Bytes& blob) {
  const auto n_rows = number<uint32_t>(blob, 0), n_columns = number<uint32_t>(blob, 4);
  const auto has = number<uint8_t>(blob, 8);
  require(number<uint32_t>(blob, 12) == blob.size(), "blob_bytes");
  std::vector<std::optional<Mapping>> rows(n_rows);
  size_t keys_end = 16 + 32 * n_columns;
  if (n_columns) {
    const size_t last = 16 + 32 * (n_columns - 1);
    keys_end = number<uint32_t>(blob, last) + number<uint16_t>(blob, last + 4);
  }
  if (has == 0) rows.assign(n_rows, Mapping{});
  if (has == 1)
    for (const size_t row : set_bits(blob, pad(keys_end, 8), n_rows)) rows[row].emplace();
  for (size_t column = 0; column < n_columns; ++column) {
    const size_t at = 16 + 32 * column;
    const Bytes key = part(blob, number<uint32_t>(blob, at), number<uint16_t>(blob, at + 4));
    const auto type = number<uint8_t>(blob, at + 6), presence = number<uint8_t>(blob, at + 7);
    const size_t count = number<uint32_t>(blob, at + 8);
    const Bytes payload = part(blob, number<uint32_t>(blob, at + 16), number<uint32_t>(blob, at + 20));
    std::vector<size_t> present;
    if (presence == 0)
      for (size_t row = 0; row < n_rows; ++row) present.push_back(row);
    if (presence == 1) present = set_bits(payload, 0, n_rows);
    if (presence == 2)
      for (size_t i = 0; i < count; ++i) present.push_back(number<uint16_t>(payload, 2 * i));
    const size_t used = presence == 0 ? 0 : presence == 1 ? pad(n_rows, 64) / 8 : pad(2 * count, 8);
    const auto values = read_values(payload.substr(used), type, number<uint8_t>(blob, at + 12), count);
    require(present.size() == count, "presence");
    for (size_t i = 0; i < count; ++i) {
      require(rows.at(present[i]).has_value(), "a value without a mapping");
      require(rows[present[i]]->emplace(key, Value{type, values[i]}).second, "two values");
    }
  }
  return rows;
}

std::vector<Record> read_records(const Snapshot& snapshot) {
  const auto section = [&](const char* name) { return snapshot.sections.at(name); };
  const bool any = snapshot.sections.contains("meta.data");
  const Bytes vectors = section("vectors");
  const size_t width = size_t{4} * snapshot.dim;
  std::vector<Record> records;
  for (size_t row = 0; row < snapshot.n_rows; ++row) {
    Record record{0, {}, part(vectors, width * row, width), {}};
    if (snapshot.id_encoding == 0) {
      record.id = part(section("ids"), 8 * row, 8);
    } else {
      const Bytes offsets = section("ids.offsets");
      const auto start = number<uint64_t>(offsets, 8 * row);
      record.kind = number<uint8_t>(section("ids.kinds"), row);
      record.id = part(section("ids.bytes"), start, number<uint64_t>(offsets, 8 * row + 8) - start);
    }
    records.push_back(record);
  }
  for (size_t group = 0; any && group + 1 < section("meta.rows").size() / 8; ++group) {
    const auto start = number<uint64_t>(section("meta.groups"), 8 * group);
    const auto stop = number<uint64_t>(section("meta.groups"), 8 * group + 8);
    size_t row = number<uint64_t>(section("meta.rows"), 8 * group);
    for (auto& mapping : read_group(part(section("meta.data"), start, stop - start)))
      records.at(row++).metadata = mapping;
    require(row == number<uint64_t>(section("meta.rows"), 8 * group + 8), "meta.rows");
  }
  return records;
}

// --- log-2.md --------------------------------------------------------------------------------------

bool is_frame(const Bytes& log, size_t at, const Bytes& database_id) {
  if (at + 40 > log.size() || log.compare(at, 4, "IQFR") != 0) return false;
  const size_t body = number<uint32_t>(log, at + 4);
  if (body > log.size() - at - 40) return false;
  const uint32_t expected = number<uint32_t>(log, at + 36);
  return crc(part(log, at + 40, body), crc(part(log, at, 36), crc(database_id))) == expected;
}

std::vector<Record> ids_of(const Bytes& block, size_t count) {
  std::vector<Record> found(count);
  for (size_t i = 0; i < count; ++i) {
    if (number<uint32_t>(block, 0) == 0) {
      found[i].id = part(block, 8 + 8 * i, 8);
      continue;
    }
    const size_t kinds = 8 + 8 * (count + 1), payloads = pad(kinds + count, 8);
    const auto start = number<uint64_t>(block, 8 + 8 * i);
    found[i].kind = number<uint8_t>(block, kinds + i);
    found[i].id = part(block, payloads + start, number<uint64_t>(block, 16 + 8 * i) - start);
  }
  return found;
}

void apply_upsert(std::vector<Record>& records, std::vector<Record> changed, const Bytes& body,
                  uint32_t dim) {
  const size_t width = size_t{4} * dim;
  size_t at = 16 + number<uint64_t>(body, 0);
  for (auto& record : changed) {
    record.vector = part(body, at, width);
    at += width;
  }
  const Bytes block = body.substr(pad(at, 8));
  require(block.size() == number<uint64_t>(body, 8), "metadata_bytes");
  for (size_t first = 0, group = 0; !block.empty() && first < changed.size(); first += 16384, ++group) {
    const auto start = number<uint64_t>(block, 8 * group);
    size_t row = first;
    for (auto& mapping : read_group(part(block, start, number<uint64_t>(block, 8 * group + 8) - start)))
      changed.at(row++).metadata = mapping;
  }
  std::map<std::pair<uint8_t, Bytes>, size_t> places;
  for (size_t i = 0; i < records.size(); ++i) places[{records[i].kind, records[i].id}] = i;
  for (auto& record : changed) {
    const auto [place, is_new] = places.try_emplace({record.kind, record.id}, records.size());
    if (is_new)
      records.push_back(record);
    else
      records[place->second] = record;
  }
}

std::vector<Record> replay(std::vector<Record> records, const Snapshot& snapshot, const Bytes& log) {
  if (log.size() < 64 || part(log, 0, 8) != Bytes("IQDBWAL\0", 8)) return records;
  if (crc(part(log, 0, 60)) != number<uint32_t>(log, 60)) return records;
  require(number<uint32_t>(log, 8) == 2 && part(log, 16, 16) == snapshot.database_id, "log header");
  const std::vector<Record> before = records;
  bool stale = false;
  uint32_t previous = number<uint32_t>(log, 60);
  uint64_t sequence = 0;
  for (size_t at = 64; is_frame(log, at, snapshot.database_id);) {
    const Bytes body = part(log, at + 40, number<uint32_t>(log, at + 4));
    const auto type = number<uint8_t>(log, at + 28);
    const size_t count = number<uint32_t>(log, at + 32);
    require(number<uint64_t>(log, at + 8) == ++sequence && number<uint32_t>(log, at + 24) == previous,
            "chain");
    stale = type == 3 && number<uint64_t>(body, 0) == snapshot.identity;
    if (type != 3) {
      auto changed = ids_of(part(body, 16, number<uint64_t>(body, 0)), count);
      if (type == 1)
        apply_upsert(records, std::move(changed), body, snapshot.dim);
      else
        for (const auto& gone : changed)
          std::erase_if(records, [&](const Record& r) { return r.kind == gone.kind && r.id == gone.id; });
    }
    previous = number<uint32_t>(log, at + 36);
    at += 40 + body.size();
  }
  return stale ? before : records;
}

// --- snapshot-3.md, section 10, and what is printed --------------------------------------------------

iqdb::HashPair hashed(const Bytes& bytes) {
  return iqdb::hash_pair(raw(bytes), bytes.size());
}

template <class T>
Bytes little(T value) {
  Bytes bytes(sizeof(T), '\0');
  iqdb::store_le(bytes.data(), value);
  return bytes;
}

iqdb::HashPair hash_of(const Record& record) {
  const auto id = hashed(Bytes(1, static_cast<char>(record.kind)) + record.id),
             vector = hashed(record.vector);
  iqdb::HashPair metadata;
  if (record.metadata) {
    metadata = hashed("");
    for (const auto& [key, value] : *record.metadata)
      metadata += hashed(little(static_cast<uint32_t>(key.size())) + key +
                         Bytes(1, static_cast<char>(value.type)) + value.bytes);
  }
  return {hashed(little(id.h0) + little(vector.h0) + little(metadata.h0)).h0,
          hashed(little(id.h1) + little(vector.h1) + little(metadata.h1)).h1};
}

void print_hex(const Bytes& bytes) {
  for (const char c : bytes) std::printf("%02x", static_cast<uint8_t>(c));
}

void print(size_t row, const Record& record) {
  std::printf("%zu\t", row);
  if (record.kind == 0)
    std::printf("int %llu", static_cast<unsigned long long>(number<uint64_t>(record.id, 0)));
  else
    std::printf(record.kind == 1 ? "bytes " : "str "), print_hex(record.id);
  std::printf("\t");
  for (size_t i = 0; i < record.vector.size(); i += 4) {
    const auto value = std::bit_cast<float>(number<uint32_t>(record.vector, i));
    std::printf("%s%08x", i ? " " : "", std::bit_cast<uint32_t>(value));
  }
  std::printf("\t%s", record.metadata ? "" : "none");
  if (record.metadata)
    for (const auto& [key, value] : *record.metadata) {
      print_hex(key);
      if (value.type == 1) std::printf(":null;");
      if (value.type == 2) std::printf(":bool %d;", value.bytes[0]);
      if (value.type == 3)
        std::printf(":int64 %lld;", static_cast<long long>(number<uint64_t>(value.bytes, 0)));
      if (value.type == 4)
        std::printf(":float64 %016llx;", static_cast<unsigned long long>(number<uint64_t>(value.bytes, 0)));
      if (value.type == 5) std::printf(":string "), print_hex(value.bytes), std::printf(";");
    }
  std::printf("\n");
}

void read(const std::string& path) {
  const Snapshot snapshot = read_snapshot(read_file(path));
  std::printf("%s %zu %zu %llu %u\n", path.c_str(), snapshot.n_sections, snapshot.n_blocks,
              static_cast<unsigned long long>(snapshot.n_rows), snapshot.dim);
  if (snapshot.zstd) return;
  const auto records = replay(read_records(snapshot), snapshot, read_file(path + ".wal"));
  iqdb::HashPair digest;
  for (const auto& record : records) digest += hash_of(record);
  std::printf("digest %016llx%016llx %zu\n", static_cast<unsigned long long>(digest.h0),
              static_cast<unsigned long long>(digest.h1), records.size());
  for (size_t row = 0; row < records.size(); ++row) print(row, records[row]);
}

}  // namespace

int main(int argc, char** argv) {
  int status = std::endian::native == std::endian::big ? 0 : 2;
  for (int i = 1; i < argc; ++i) {
    try {
      read(argv[i]);
    } catch (const std::exception& error) {
      std::printf("%s: %s\n", argv[i], error.what());
      status |= 1;
    }
  }
  return status;
}
