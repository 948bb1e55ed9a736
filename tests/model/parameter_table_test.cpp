// What a rank's table says of its parameters, against the models' published counts and shapes.
#include "model/parameter_table.hpp"

#include <boost/test/unit_test.hpp>
#include <map>
#include <set>

#include "base/error.hpp"

using namespace llama3d;

namespace {

ModelConfig small(bool tied = false) {
  ModelConfig config;
  config.name = "small";
  config.vocabulary = 10;
  config.hidden = 8;
  config.feed_forward = 12;
  config.layers = 3;
  config.query_heads = 4;
  config.key_value_heads = 2;
  config.head_dim = 4;
  config.tied_embeddings = tied;
  return config;
}

struct Place {
  int tp = 0, pp = 0, dp = 0;
};

ParameterTable table_of(const ModelConfig& config, GridShape grid, Place at, std::int64_t chunks = 0) {
  return ParameterTable(config, ProcessGrid(grid, (at.pp * grid.dp + at.dp) * grid.tp + at.tp),
                        partition_layers(config, chunks ? chunks : grid.pp));
}

/// Calls f(place, table) for every rank of a grid with one data-parallel rank.
template <class F>
void for_each_rank(const ModelConfig& config, GridShape grid, F&& f) {
  for (int pp = 0; pp < grid.pp; ++pp)
    for (int tp = 0; tp < grid.tp; ++tp) f(Place{tp, pp, 0}, table_of(config, grid, {tp, pp, 0}));
}

/// Elements that exist, each counted on one rank alone.
std::int64_t counted(const ModelConfig& config, GridShape grid) {
  std::int64_t sum = 0;
  for_each_rank(config, grid, [&](Place at, const ParameterTable& table) {
    for (const Parameter& p : table.parameters())
      if (!p.tied_copy && (p.split != TensorSplit::replicated || at.tp == 0))
        sum += p.existing_rows * p.columns;
  });
  return sum;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(parameter_table)

BOOST_AUTO_TEST_CASE(the_ranks_of_any_grid_hold_the_published_number_of_parameters) {
  for (const auto& [name, parameters] :
       {std::pair{"llama3-8b", 8'030'261'248}, {"llama3.2-1b", 1'235'814'400}}) {
    const ModelConfig config = load_model_config(name);
    for (const GridShape& grid : {GridShape{1, 1, 1}, {8, 1, 1}, {1, 4, 1}, {2, 2, 1}, {4, 8, 1}})
      BOOST_TEST(counted(config, grid) == parameters, name << " on " << grid.to_string());
  }
}

BOOST_AUTO_TEST_CASE(names_and_shapes_are_those_of_hugging_face) {
  const std::map<std::string, std::vector<std::int64_t>> layer = {
      {"self_attn.q_proj.weight", {16, 8}},    {"self_attn.k_proj.weight", {8, 8}},
      {"self_attn.v_proj.weight", {8, 8}},     {"self_attn.o_proj.weight", {8, 16}},
      {"mlp.gate_proj.weight", {12, 8}},       {"mlp.up_proj.weight", {12, 8}},
      {"mlp.down_proj.weight", {8, 12}},       {"input_layernorm.weight", {8}},
      {"post_attention_layernorm.weight", {8}}};
  std::map<std::string, std::vector<std::int64_t>> expected = {
      {"model.embed_tokens.weight", {10, 8}}, {"lm_head.weight", {10, 8}}, {"model.norm.weight", {8}}};
  for (int i = 0; i < 3; ++i)
    for (const auto& [name, shape] : layer)
      expected["model.layers." + std::to_string(i) + "." + name] = shape;
  std::map<std::string, std::vector<std::int64_t>> actual;
  const ParameterTable table = table_of(small(), {1, 1, 1}, {0, 0, 0});
  for (const Parameter& p : table.parameters()) {
    std::vector<std::int64_t> shape = {p.shape[0]};
    if (p.shape.rank() == 2) shape.push_back(p.shape[1]);
    BOOST_TEST(actual.emplace(p.name, shape).second, p.name << " twice");
  }
  BOOST_CHECK(actual == expected);
}

// Shards of a parameter tile its global tensor, and rows beyond it are padding.
BOOST_AUTO_TEST_CASE(shards_tile_the_whole_tensor) {
  const ModelConfig config = small();
  for (const GridShape& grid : {GridShape{1, 1, 1}, {2, 1, 1}, {2, 3, 1}, {1, 2, 1}})
    BOOST_TEST_CONTEXT(grid.to_string()) {
      std::map<std::string, std::vector<int>> owners;
      for_each_rank(config, grid, [&](Place at, const ParameterTable& table) {
        for (const Parameter& p : table.parameters()) {
          if (p.split == TensorSplit::replicated && at.tp != 0) continue;
          auto& counts = owners[p.name];
          counts.resize(static_cast<std::size_t>(p.global_rows() * p.global_columns()));
          for (std::int64_t r = p.first_row; r < p.first_row + p.existing_rows; ++r)
            for (std::int64_t c = p.first_column; c < p.first_column + p.columns; ++c)
              ++counts.at(static_cast<std::size_t>(r * p.global_columns() + c));
        }
      });
      BOOST_TEST(owners.size() == 30u);
      for (const auto& [name, counts] : owners)
        BOOST_TEST(std::set<int>(counts.begin(), counts.end()) == std::set<int>{1}, name);
    }
}

BOOST_AUTO_TEST_CASE(column_parallel_matrices_split_rows_and_row_parallel_ones_columns) {
  const ParameterTable table = table_of(small(), {2, 1, 1}, {1, 0, 0});
  using enum ParameterRole;
  for (const auto role : {query, key, value, gate, up}) {
    const Parameter& p = *table.find(role, 1);
    BOOST_CHECK(p.split == TensorSplit::rows);
    BOOST_TEST(p.first_row == p.global_rows() / 2);
    BOOST_TEST(p.columns == p.global_columns());
  }
  for (const auto role : {attention_output, down}) {
    const Parameter& p = *table.find(role, 1);
    BOOST_CHECK(p.split == TensorSplit::columns);
    BOOST_TEST(p.first_column == p.global_columns() / 2);
    BOOST_TEST(p.rows == p.global_rows());
  }
  for (const auto role : {input_norm, post_attention_norm})
    BOOST_CHECK(table.find(role, 1)->split == TensorSplit::replicated);
}

BOOST_AUTO_TEST_CASE(a_vocabulary_that_tp_does_not_divide_is_padded) {
  ModelConfig config = small();
  config.vocabulary = 9;
  const ParameterTable last = table_of(config, {2, 1, 1}, {1, 0, 0});
  const Parameter& p = *last.find(ParameterRole::embedding);
  BOOST_TEST(p.rows == 5);
  BOOST_TEST(p.first_row == 5);
  BOOST_TEST(p.existing_rows == 4);
  BOOST_TEST(local_vocabulary(config, 2) == 5);
}

BOOST_AUTO_TEST_CASE(stages_own_the_layers_of_their_chunks) {
  const ModelConfig config = [] {
    ModelConfig six = small();
    six.layers = 6;
    return six;
  }();
  const std::vector<LayerRange> four = {{0, 1}, {1, 3}, {3, 5}, {5, 6}};  // two chunks a stage
  const auto layers_of = [&](int stage) {
    const ParameterTable table(config, ProcessGrid({.pp = 2}, stage), four);
    std::set<std::int64_t> layers;
    for (const Parameter& p : table.parameters()) layers.insert(p.layer);
    return layers;
  };
  BOOST_CHECK(layers_of(0) == (std::set<std::int64_t>{-1, 0, 3, 4}));
  BOOST_CHECK(layers_of(1) == (std::set<std::int64_t>{-1, 1, 2, 5}));
  const ParameterTable first(config, ProcessGrid({.pp = 2}, 0), four),
      last(config, ProcessGrid({.pp = 2}, 1), four);
  BOOST_TEST(first.find(ParameterRole::embedding));
  BOOST_TEST(!first.find(ParameterRole::head));
  BOOST_TEST(!first.find(ParameterRole::final_norm));
  BOOST_TEST(!last.find(ParameterRole::embedding));
  BOOST_TEST(last.find(ParameterRole::head));
  BOOST_TEST(last.find(ParameterRole::final_norm));
}

BOOST_AUTO_TEST_CASE(norms_alone_do_not_decay) {
  const ParameterTable table = table_of(small(), {2, 1, 1}, {0, 0, 0});
  for (const ParameterGroup& group : table.groups()) {
    BOOST_TEST(group.tp_replicated == (group.kind == GroupKind::norms));
    for (const Parameter& p : table.parameters())
      if (p.offset >= group.begin && p.offset < group.end)
        BOOST_TEST(p.decays() == (group.kind != GroupKind::norms), p.name);
  }
}

BOOST_AUTO_TEST_CASE(fused_tensors_lie_side_by_side_and_nothing_overlaps) {
  const GridShape grid{2, 1, 3};
  const ParameterTable table = table_of(small(), grid, {1, 0, 2});
  const auto at = [&](ParameterRole role) { return table.find(role, 2); };
  using enum ParameterRole;
  BOOST_TEST(at(key)->offset == at(query)->offset + at(query)->elements());
  BOOST_TEST(at(value)->offset == at(key)->offset + at(key)->elements());
  BOOST_TEST(at(up)->offset == at(gate)->offset + at(gate)->elements());
  for (const auto role : {query, attention_output, gate, down})
    BOOST_TEST(at(role)->offset % ParameterTable::alignment == 0);
  std::int64_t end = 0;
  for (const ParameterGroup& group : table.groups()) {
    BOOST_TEST(group.begin == end);
    BOOST_TEST(group.elements() % (ParameterTable::alignment * grid.dp) == 0);
    end = group.end;
  }
  BOOST_TEST(end == table.arena_elements());
  std::map<std::int64_t, std::int64_t> pieces;
  for (const Parameter& p : table.parameters()) pieces[p.offset] = p.offset + p.elements();
  BOOST_TEST(pieces.size() == table.parameters().size());
  std::int64_t last = 0;
  for (const auto& [begin, after] : pieces) {
    BOOST_TEST(begin >= last);
    last = after;
  }
  BOOST_TEST(last <= table.arena_elements());
}

BOOST_AUTO_TEST_CASE(tied_embeddings_have_a_copy_on_the_last_of_several_stages) {
  const ParameterTable alone = table_of(small(true), {1, 1, 1}, {0, 0, 0});
  BOOST_TEST(!alone.find(ParameterRole::head));
  const ParameterTable last = table_of(small(true), {1, 2, 1}, {0, 1, 0});
  const Parameter* copy = last.find(ParameterRole::head);
  BOOST_TEST_REQUIRE(copy);
  BOOST_TEST(copy->tied_copy);
  BOOST_TEST(copy->name == "model.embed_tokens.weight");
  for (const ParameterGroup& group : last.groups())
    BOOST_TEST(group.tied_copy == (group.kind == GroupKind::head));
}

BOOST_AUTO_TEST_CASE(a_tp_that_does_not_divide_is_refused_by_name) {
  for (const int tp : {3, 4})  // neither divides two key-value heads
    BOOST_CHECK_EXCEPTION(
        table_of(small(), {tp, 1, 1}, {0, 0, 0}), ConfigurationError, [&](const Error& error) {
          return std::string(error.what())
                     .find("`tp_size " + std::to_string(tp) + "` does not divide the 2 key-value heads") == 0;
        });
}

BOOST_AUTO_TEST_SUITE_END()
