// The cache of keys and values, and attention to it, against the definition in double.
#include "compute/machines.hpp"

namespace llama3d::test {

namespace data = boost::unit_test::data;

namespace {

/// Rows of a call, on a machine.
struct CachedRows {
  CachedRows(Machine& m, const std::vector<std::int32_t>& slots, const std::vector<std::int32_t>& positions)
      : slot(m, {static_cast<std::int64_t>(slots.size())}, slots),
        position(m, {static_cast<std::int64_t>(slots.size())}, positions) {}
  CacheRows rows() const { return {slot, position}; }
  Buffer slot, position;
};

/// What attention_cached computes, from the definition, and the size of the terms of each row and head.
struct Attended {
  std::vector<double> out, scales;
};
Attended attended(const std::vector<float>& qkv, const std::vector<float>& cache, std::int64_t capacity,
                  const std::vector<std::int32_t>& slots, const std::vector<std::int32_t>& positions,
                  const AttentionShape& shape) {
  const auto size = static_cast<std::size_t>(shape.head_dim),
             heads = static_cast<std::size_t>(shape.query_heads),
             kv_heads = static_cast<std::size_t>(shape.key_value_heads),
             columns = static_cast<std::size_t>(shape.fused_columns()), width = 2 * kv_heads * size;
  std::vector<double> out(slots.size() * heads * size, 0), scales(slots.size() * heads, 0);
  for (std::size_t t = 0; t < slots.size(); ++t) {
    if (slots[t] < 0) continue;
    const std::size_t first = static_cast<std::size_t>(slots[t] * capacity) * width;
    for (std::size_t h = 0; h < heads; ++h) {
      const std::size_t key = first + h / (heads / kv_heads) * size, value = key + kv_heads * size;
      double* to = &out[(t * heads + h) * size];
      double total = 0, squares = 0;
      for (std::size_t s = 0; s <= static_cast<std::size_t>(positions[t]); ++s) {
        double score = 0;
        for (std::size_t d = 0; d < size; ++d)
          score += double{qkv[t * columns + h * size + d]} * cache[key + s * width + d];
        const double weight = std::exp(score / std::sqrt(static_cast<double>(size)));
        total += weight;
        for (std::size_t d = 0; d < size; ++d) {
          const double term = weight * cache[value + s * width + d];
          to[d] += term;
          squares += term * term;
        }
      }
      for (std::size_t d = 0; d < size; ++d) {
        squares += to[d] * to[d];
        to[d] /= total;
      }
      scales[t * heads + h] = std::sqrt(squares) / total;
    }
  }
  return {out, scales};
}

const std::vector<AttentionShape> shapes = {{1, 1, 2},   {6, 2, 20},  {4, 4, 64}, {32, 8, 64}, {8, 1, 128},
                                            {8, 2, 128}, {16, 1, 64}, {7, 1, 32}, {3, 1, 256}};

}  // namespace

BOOST_AUTO_TEST_SUITE(attention_cached)

BOOST_DATA_TEST_CASE(attends_to_the_entries_of_its_slot, data::make(machines()) * data::make(reals()),
                     machine, dtype) {
  Machine& m = machine.get();
  constexpr std::int64_t slot_count = 5, capacity = 700;
  const std::vector<std::int32_t> slots = {3, 0, -1, 1, 4, 2, 0}, positions = {0, 699, 5, 63, 64, 300, 17};
  const auto t = static_cast<std::int64_t>(slots.size());
  for (const auto& shape : shapes)
    BOOST_TEST_CONTEXT("heads " << shape.query_heads << "/" << shape.key_value_heads << " of "
                                << shape.head_dim) {
      const std::int64_t width = 2 * shape.key_value_heads * shape.head_dim;
      const auto queries = random_values(t * shape.fused_columns(), dtype, 51);
      auto entries = random_values(slot_count * capacity * width, dtype, 52);
      const auto expected = attended(queries, entries, capacity, slots, positions, shape);
      // What lies behind a slot's position must not be looked at.
      for (std::int64_t p = 18; p < capacity; ++p)
        for (std::int64_t c = 0; c < width; ++c)
          entries[static_cast<std::size_t>((3 * capacity + p) * width + c)] =
              std::numeric_limits<float>::quiet_NaN();
      const CachedRows rows(m, slots, positions);
      const Buffer qkv(m, dtype, {t, shape.fused_columns()}, queries),
          cache(m, dtype, {slot_count, capacity, width}, entries), out(m, dtype, {t, shape.output_columns()});
      m.kernels().attention_cached(qkv, rows.rows(), shape, cache, out, *m.stream);
      CHECK_AGREES("attention_cached out", out.read(), expected.out,
                   Rows{{t, shape.query_heads}, expected.scales}, tolerance(dtype, capacity));
    }
}

BOOST_DATA_TEST_CASE(a_long_cache_is_read_to_its_end, data::make(machines()) * data::make(reals()), machine,
                     dtype) {
  Machine& m = machine.get();
  const AttentionShape shape{4, 1, 128};
  constexpr std::int64_t capacity = 9000;
  const auto queries = random_values(shape.fused_columns(), dtype, 53);
  const auto entries = random_values(capacity * 256, dtype, 54);
  const Buffer qkv(m, dtype, {1, shape.fused_columns()}, queries),
      cache(m, dtype, {1, capacity, 256}, entries);
  for (const std::int32_t position : {0, 1, 4095, 8998, 8999}) {
    const CachedRows rows(m, {0}, {position});
    const Buffer out(m, dtype, {1, shape.output_columns()});
    m.kernels().attention_cached(qkv, rows.rows(), shape, cache, out, *m.stream);
    const Attended expected = attended(queries, entries, capacity, {0}, {position}, shape);
    CHECK_AGREES("attention_cached out", out.read(), expected.out, Rows{{1, 4}, expected.scales},
                 tolerance(dtype, capacity));
  }
}

namespace {

/// attention_cached of `queries` over a cache of these entries.
std::vector<float> attend(Machine& m, DType dtype, const AttentionShape& shape,
                          const std::vector<float>& queries, const CachedRows& rows,
                          const std::vector<float>& entries, std::int64_t capacity) {
  const std::int64_t t = static_cast<std::int64_t>(queries.size()) / shape.fused_columns(),
                     width = 2 * shape.key_value_heads * shape.head_dim,
                     slots = static_cast<std::int64_t>(entries.size()) / (capacity * width);
  const Buffer qkv(m, dtype, {t, shape.fused_columns()}, queries),
      cache(m, dtype, {slots, capacity, width}, entries), out(m, dtype, {t, shape.output_columns()});
  m.kernels().attention_cached(qkv, rows.rows(), shape, cache, out, *m.stream);
  return out.read();
}

/// Rows of one slot at the edges of what kernels take at once: 16 to 64 entries, and, where blocks share a
/// long cache, a part of at least 256.
std::vector<std::int32_t> edges(std::int64_t capacity) {
  std::vector<std::int32_t> positions;
  for (const std::int32_t edge : {1, 16, 32, 64, 128, 256, 512, 1024})
    for (const std::int32_t position : {edge - 1, edge, edge + 1})
      if (position < capacity && (positions.empty() || position > positions.back()))
        positions.push_back(position);
  if (positions.back() < capacity - 1) positions.push_back(static_cast<std::int32_t>(capacity - 1));
  return positions;
}

}  // namespace

// Values that are unit vectors show the weight of every entry by itself, exactly 0 behind a row's position.
BOOST_DATA_TEST_CASE(weights_are_those_of_the_entries_in_sight,
                     data::make(machines()) * data::make(reals()) *
                         data::make({std::int64_t{200}, std::int64_t{1100}}),
                     machine, dtype, capacity) {
  Machine& m = machine.get();
  const std::vector<std::int32_t> positions = edges(capacity), slots(positions.size(), 1);
  const auto t = static_cast<std::int64_t>(slots.size());
  for (const AttentionShape shape :
       {AttentionShape{2, 1, 20}, {8, 2, 64}, {3, 1, 64}, {4, 1, 128}, {1, 1, 256}})
    BOOST_TEST_CONTEXT("heads " << shape.query_heads << "/" << shape.key_value_heads << " of "
                                << shape.head_dim) {
      const std::int64_t size = shape.head_dim, width = 2 * shape.key_value_heads * size;
      const auto queries = random_values(t * shape.fused_columns(), dtype, 58);
      // The first slot is nobody's.
      auto entries = random_values(2 * capacity * width, dtype, 59);
      std::fill_n(entries.begin(), capacity * width, std::numeric_limits<float>::quiet_NaN());
      const CachedRows rows(m, slots, positions);
      for (std::int64_t first = 0; first < capacity; first += size) {
        for (std::int64_t entry = 0; entry < capacity; ++entry)
          for (std::int64_t c = width / 2; c < width; ++c)
            entries[static_cast<std::size_t>((capacity + entry) * width + c)] =
                entry - first == c % size ? 1 : 0;
        const Attended expected = attended(queries, entries, capacity, slots, positions, shape);
        // Exponents of a few units cost a few roundings of fp32.
        CHECK_AGREES("attention_cached weight of one entry",
                     attend(m, dtype, shape, queries, rows, entries, capacity), expected.out,
                     Rows{{t, shape.query_heads, size}},
                     most(DType::fp32) + (dtype == DType::bf16 ? 0x1p-8 : 0));
      }
    }
}

BOOST_DATA_TEST_CASE(a_changed_entry_reaches_nobody_out_of_sight,
                     data::make(machines()) * data::make(reals()) * data::make({false, true}), machine, dtype,
                     of_value) {
  Machine& m = machine.get();
  constexpr std::int64_t capacity = 600;
  std::vector<std::int32_t> positions = edges(capacity), slots;
  for (std::size_t i = 0; i < positions.size(); ++i) slots.push_back(static_cast<std::int32_t>(i % 2));
  const auto t = static_cast<std::int64_t>(slots.size());
  const CachedRows rows(m, slots, positions);
  for (const AttentionShape shape : {AttentionShape{4, 2, 16}, {4, 2, 64}, {8, 2, 128}}) {
    const std::int64_t size = shape.head_dim, width = 2 * shape.key_value_heads * size,
                       group = shape.query_heads / shape.key_value_heads;
    const auto queries = random_values(t * shape.fused_columns(), dtype, 60);
    const auto entries = random_values(2 * capacity * width, dtype, 61);
    const auto before = attend(m, dtype, shape, queries, rows, entries, capacity);
    for (const std::int64_t entry : {0, 63, 64, 256, 599})
      BOOST_TEST_CONTEXT("heads of " << size << ", entry " << entry) {
        // Of the second slot, the second head.
        auto changed = entries;
        const std::int64_t at =
            (capacity + entry) * width + (of_value ? shape.key_value_heads + 1 : 1) * size;
        for (std::int64_t d = 0; d < size; ++d) changed[static_cast<std::size_t>(at + d)] = 8;
        const auto after = attend(m, dtype, shape, queries, rows, changed, capacity);
        for (std::int64_t row = 0; row < t; ++row)
          for (std::int64_t head = 0; head < shape.query_heads; ++head) {
            const auto begin = static_cast<std::size_t>((row * shape.query_heads + head) * size);
            const bool same = std::equal(&before[begin], &before[begin] + size, &after[begin]);
            const auto i = static_cast<std::size_t>(row);
            const bool sees = slots[i] == 1 && positions[i] >= entry && head / group == 1;
            BOOST_TEST((same || sees), "row " << row << ", head " << head << " changes");
            // A lone key weighs 1, whatever it is; a large value shows however little it weighs.
            if (sees && of_value) BOOST_TEST(!same, "row " << row << ", head " << head << " stays");
          }
      }
  }
}

BOOST_DATA_TEST_CASE(no_rows_and_padding_alone, data::make(machines()) * data::make(reals()), machine,
                     dtype) {
  Machine& m = machine.get();
  const AttentionShape shape{2, 1, 64};
  const Buffer cache(m, dtype, {1, 4, 128});
  const CachedRows none(m, {}, {}), padding(m, {-1, -1}, {0, 99});
  m.kernels().cache_append(Buffer(m, dtype, {0, 256}), none.rows(), shape, cache, *m.stream);
  m.kernels().attention_cached(Buffer(m, dtype, {0, 256}), none.rows(), shape, cache,
                               Buffer(m, dtype, {0, 128}), *m.stream);
  const Buffer qkv(m, dtype, {2, 256}), out(m, dtype, {2, 128});
  m.kernels().cache_append(qkv, padding.rows(), shape, cache, *m.stream);
  m.kernels().attention_cached(qkv, padding.rows(), shape, cache, out, *m.stream);
  BOOST_CHECK(out.read() == std::vector<float>(256, 0));
}

BOOST_DATA_TEST_CASE(entries_go_where_their_rows_say, data::make(machines()) * data::make(reals()), machine,
                     dtype) {
  Machine& m = machine.get();
  // The last ones: as many packets as a block of a GPU has threads, and more.
  for (const AttentionShape shape :
       {AttentionShape{2, 1, 2}, {4, 2, 64}, {9, 9, 20}, {4, 4, 128}, {8, 8, 128}}) {
    const std::int64_t columns = shape.fused_columns(), width = 2 * shape.key_value_heads * shape.head_dim;
    const auto values = random_values(3 * columns, dtype, 55);
    auto expected = random_values(2 * 5 * width, dtype, 56);
    const Buffer cache(m, dtype, {2, 5, width}, expected);
    const CachedRows rows(m, {1, -1, 0}, {4, 2, 3});
    m.kernels().cache_append(Buffer(m, dtype, {3, columns}, values), rows.rows(), shape, cache, *m.stream);
    const auto place = [&](std::int64_t row, std::int64_t entry) {
      std::copy_n(values.begin() + row * columns + shape.output_columns(), width,
                  expected.begin() + entry * width);
    };
    place(0, 5 + 4);
    place(2, 3);
    BOOST_CHECK(cache.read() == expected);
  }
}

BOOST_DATA_TEST_CASE(a_filled_cache_gives_what_attention_gives, data::make(machines()) * data::make(reals()),
                     machine, dtype) {
  Machine& m = machine.get();
  const AttentionShape shape{8, 2, 64};
  constexpr std::int64_t t = 150;
  const Documents documents(m, {100, 50});
  const Buffer qkv(m, dtype, {t, shape.fused_columns()}, random_values(t * shape.fused_columns(), dtype, 57)),
      expected(m, dtype, {t, shape.output_columns()}), lse(m, DType::fp32, {8, t}),
      cache(m, dtype, {2, 128, 256}), out(m, dtype, {t, shape.output_columns()});
  m.kernels().attention_forward(qkv, documents.rows(), shape, expected, lse, *m.stream);
  std::vector<std::int32_t> slots(100, 1);
  slots.resize(t, 0);
  const CachedRows rows(m, slots, documents.positions);
  m.kernels().cache_append(qkv, rows.rows(), shape, cache, *m.stream);
  m.kernels().attention_cached(qkv, rows.rows(), shape, cache, out, *m.stream);
  CHECK_AGREES("attention_cached out", out.read(), expected.read(), Rows{{t, 8}}, 2 * tolerance(dtype, 100));
}

BOOST_DATA_TEST_CASE(a_cache_of_another_shape_is_refused, data::make(machines()), machine) {
  Machine& m = machine.get();
  const AttentionShape shape{1, 1, 16};
  const Buffer qkv(m, DType::fp32, {1, 48});
  const CachedRows good(m, {1}, {3});
  BOOST_CHECK_NO_THROW(
      m.kernels().cache_append(qkv, good.rows(), shape, Buffer(m, DType::fp32, {2, 4, 32}), *m.stream));
  BOOST_CHECK_THROW(
      m.kernels().cache_append(qkv, good.rows(), shape, Buffer(m, DType::fp32, {2, 4, 16}), *m.stream),
      ContractViolation);
}

// The host looks into its memory; a GPU's is not looked into.
BOOST_AUTO_TEST_CASE(places_outside_the_cache_are_refused) {
  Machine& m = oracle().get();
  const AttentionShape shape{1, 1, 16};
  const Buffer qkv(m, DType::fp32, {1, 48}), cache(m, DType::fp32, {2, 4, 32}), out(m, DType::fp32, {1, 16});
  const CachedRows good(m, {1}, {3});
  BOOST_CHECK_NO_THROW(m.kernels().cache_append(qkv, good.rows(), shape, cache, *m.stream));
  for (const auto& [slot, position] : {std::pair{2, 0}, {0, 4}, {0, -1}}) {
    const CachedRows bad(m, {slot}, {position});
    BOOST_CHECK_THROW(m.kernels().cache_append(qkv, bad.rows(), shape, cache, *m.stream), ContractViolation);
    BOOST_CHECK_THROW(m.kernels().attention_cached(qkv, bad.rows(), shape, cache, out, *m.stream),
                      ContractViolation);
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace llama3d::test
