// Compiled with -ffp-contract=off: words are stored, so every variant must round alike.
#include "ivf_words.hpp"

#include <cstddef>
#include <cstdint>

#include "simd.hpp"

namespace iqdb::IQDB_VARIANT {
namespace {

constexpr std::size_t kVectors = 4;  // of words whose keys are summed up at once
constexpr std::size_t kAtOnce = kVectors * kFloats;
static_assert(kWordLanes % kAtOnce == 0);

template <bool kAbsolute>
void nearest(const WordTask& task) {
  Ints first;
  for (std::size_t i = 0; i < kFloats; ++i) first[i] = static_cast<std::int32_t>(i);
  for (std::size_t n = 0; n < task.n; ++n) {
    const float* const point = task.points + n * task.dim;
    Floats least = broadcast(__builtin_inff());
    Ints where = first;
    for (std::size_t word = 0; word < task.lanes; word += kAtOnce) {
      Floats keys[kVectors];
#pragma GCC unroll 4
      for (std::size_t v = 0; v < kVectors; ++v) keys[v] = load(task.terms + word + v * kFloats);
      for (std::size_t i = 0; i < task.dim; ++i) {
        const float* const words = task.words + i * kMaxWords + word;
        const Floats x = broadcast(kAbsolute ? point[i] : -2.0f * point[i]);
#pragma GCC unroll 4
        for (std::size_t v = 0; v < kVectors; ++v) {
          const Floats w = load(words + v * kFloats);
          keys[v] += kAbsolute ? absolute(x - w) : x * w;
        }
      }
#pragma GCC unroll 4
      for (std::size_t v = 0; v < kVectors; ++v) {
        const Ints smaller = keys[v] < least;
        const Ints number = first + static_cast<std::int32_t>(word + v * kFloats);
        least = from_bits((bits(keys[v]) & smaller) | (bits(least) & ~smaller));
        where = (number & smaller) | (where & ~smaller);
      }
    }
    std::size_t best = 0;
    for (std::size_t i = 1; i < kFloats; ++i) {
      if (least[i] < least[best] || (least[i] == least[best] && where[i] < where[best])) best = i;
    }
    task.best[n] = static_cast<std::uint8_t>(where[best]);
    if (task.keys != nullptr) task.keys[n] = least[best];
  }
}

// The same for at most kHalfWords words, with a point in each lane: nothing is left to compare across lanes.
template <bool kAbsolute>
void nearest_of_few(const WordTask& task) {
  constexpr std::size_t kGroup = 8;
  static_assert(kHalfWords % kGroup == 0);
  for (std::size_t start = 0; start < task.n; start += kFloats) {
    const std::size_t count = task.n - start < kFloats ? task.n - start : kFloats;
    const float* point[kFloats];
    for (std::size_t lane = 0; lane < kFloats; ++lane)
      point[lane] = task.points + (start + (lane < count ? lane : count - 1)) * task.dim;
    Floats least = broadcast(__builtin_inff());
    Ints where = {};
    for (std::size_t word = 0; word < kHalfWords; word += kGroup) {
      Floats keys[kGroup];
#pragma GCC unroll 8
      for (std::size_t w = 0; w < kGroup; ++w) keys[w] = broadcast(task.terms[word + w]);
      for (std::size_t i = 0; i < task.dim; ++i) {
        Floats x;
        for (std::size_t lane = 0; lane < kFloats; ++lane) x[lane] = point[lane][i];
        if (!kAbsolute) x *= -2.0f;
        const float* const words = task.words + i * kMaxWords + word;
#pragma GCC unroll 8
        for (std::size_t w = 0; w < kGroup; ++w) {
          const Floats item = broadcast(words[w]);
          keys[w] += kAbsolute ? absolute(x - item) : x * item;
        }
      }
#pragma GCC unroll 8
      for (std::size_t w = 0; w < kGroup; ++w) {
        const Ints smaller = keys[w] < least;
        const Ints number = Ints{} + static_cast<std::int32_t>(word + w);
        least = from_bits((bits(keys[w]) & smaller) | (bits(least) & ~smaller));
        where = (number & smaller) | (where & ~smaller);
      }
    }
    for (std::size_t lane = 0; lane < count; ++lane) {
      task.best[start + lane] = static_cast<std::uint8_t>(where[lane]);
      if (task.keys != nullptr) task.keys[start + lane] = least[lane];
    }
  }
}

template <bool kAbsolute>
void values(const WordTableTask& task) {
  for (std::size_t part = 0; part < task.parts; ++part) {
    const float* const point = task.point + part * task.part_dim;
    const float* const words = task.words + part * task.part_dim * kMaxWords;
    Floats low = broadcast(__builtin_inff());
    Floats high = broadcast(-__builtin_inff());
    for (std::size_t word = 0; word < task.lanes; word += kAtOnce) {
      Floats sums[kVectors] = {};
      for (std::size_t i = 0; i < task.part_dim; ++i) {
        const Floats x = broadcast(point[i]);
#pragma GCC unroll 4
        for (std::size_t v = 0; v < kVectors; ++v) {
          const Floats w = load(words + i * kMaxWords + word + v * kFloats);
          sums[v] += kAbsolute ? absolute(x - w) : x * w;
        }
      }
#pragma GCC unroll 4
      for (std::size_t v = 0; v < kVectors; ++v) {
        store(task.values + part * kMaxWords + word + v * kFloats, sums[v]);
        low = sums[v] < low ? sums[v] : low;
        high = sums[v] > high ? sums[v] : high;
      }
    }
    task.lows[part] = low[0];
    task.highs[part] = high[0];
    for (std::size_t i = 1; i < kFloats; ++i) {
      if (low[i] < task.lows[part]) task.lows[part] = low[i];
      if (high[i] > task.highs[part]) task.highs[part] = high[i];
    }
  }
}

}  // namespace

void word_values(bool absolute, const WordTableTask& task) {
  return absolute ? values<true>(task) : values<false>(task);
}

void word_steps(const WordStepsTask& task) {
  constexpr float kTop = 65535.0f;
  for (std::size_t part = 0; part < task.parts; ++part) {
    const float low = task.lows[part];
    const float* const values = task.values + part * kMaxWords;
    std::uint16_t* const table = task.table + part * kMaxWords;
    for (std::size_t word = 0; word < task.lanes; ++word) {
      const float steps = (values[word] - low) * task.per_unit;
      const float limited = steps < kTop ? steps : kTop;  // NaN too
      table[word] = static_cast<std::uint16_t>(static_cast<std::int32_t>(limited));
    }
  }
}

void nearest_words(bool absolute, const WordTask& task) {
  if (task.lanes == kHalfWords) return absolute ? nearest_of_few<true>(task) : nearest_of_few<false>(task);
  return absolute ? nearest<true>(task) : nearest<false>(task);
}

}  // namespace iqdb::IQDB_VARIANT
