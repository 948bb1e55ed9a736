// That communication is started before, and waited for after, the computations it is to hide behind.
#include <algorithm>
#include <boost/test/unit_test.hpp>

#include "train/engine.hpp"
#include "train/journal.hpp"

using namespace llama3d;
using namespace llama3d::test;

namespace {

using What = JournalEntry::What;

constexpr std::int64_t sequence = 64;

RunShape shape_of(GridShape grid) {
  RunShape shape;
  shape.model = load_model_config("llama3-tiny");
  shape.grid = grid;
  shape.global_batch_size = 2 * grid.dp;
  shape.seq_length = sequence;
  return shape;
}

/// The first rank of a grid, whose other ranks do not exist.
class JournalRun {
 public:
  explicit JournalRun(const RunShape& shape, std::deque<double> measured = {}) {
    device_.measured = std::move(measured);
    RankPlan plan = make_rank_plan(shape, 0, device_.kernels());
    auto communicators = make_journal_communicators(plan.grid, journal_);
    engine_.emplace(std::move(plan), OptimizerOptions(), runtime_, std::move(communicators));
    engine_->state().initialize(1, 0.02);
  }

  /// What a step that follows another does: from its begin, with what the other left, to the last wait.
  Journal second_step() {
    const auto rows = static_cast<std::size_t>(sequence);
    BatchRows batch{std::vector<std::int32_t>(rows, 7), std::vector<std::int32_t>(rows, 8),
                    std::vector<std::int32_t>(rows, 0), std::vector<std::int32_t>(rows, sequence),
                    std::vector<std::int32_t>(rows)};
    for (std::size_t i = 0; i < rows; ++i) batch.position[i] = static_cast<std::int32_t>(i);
    const std::vector<BatchRows> batches(static_cast<std::size_t>(engine_->plan().pipeline.micro_batches),
                                         batch);
    engine_->queue_step(batches, 1, 1e-3);
    journal_.clear();
    engine_->queue_step(batches, 2, 1e-3);
    engine_->take_report();
    engine_->take_report();
    return journal_;
  }

  /// The parameter group of a weight, its gradient or a group's tensor.
  const ParameterGroup& group_of(const void* data) const {
    const ModelStateMemory& state = engine_->memory().state;
    for (const Tensor* arena : {&state.parameters, &state.gradients}) {
      const auto at = static_cast<const std::byte*>(data) - static_cast<const std::byte*>(arena->data());
      const std::int64_t element = at / static_cast<std::int64_t>(size_of(arena->dtype()));
      for (const ParameterGroup& group : engine_->plan().table.groups())
        if (at >= 0 && group.begin <= element && element < group.end) return group;
    }
    throw ContractViolation("an address outside the model");
  }
  std::size_t groups() const { return engine_->plan().table.groups().size(); }
  const OverlapChoice& overlap() const { return engine_->overlap(); }

 private:
  Journal journal_;
  JournalDevice device_{journal_};
  std::unique_ptr<ControlPlane> control_ = make_local_control_plane();
  Runtime runtime_{device_, *control_, {}};
  std::optional<Engine> engine_;
};

/// Places in a journal, ascending, of the entries for which `is` holds.
template <class Is>
std::vector<std::size_t> places(const Journal& journal, Is&& is) {
  std::vector<std::size_t> found;
  for (std::size_t i = 0; i < journal.size(); ++i)
    if (is(journal[i])) found.push_back(i);
  return found;
}

bool is_gemm(const JournalEntry& entry) {
  return entry.what == What::gemm;
}

/// How many operations of this name have a GEMM between their start and their wait, of how many.
struct Hidden {
  int operations = 0, behind_gemms = 0;
  friend std::ostream& operator<<(std::ostream& out, const Hidden& hidden) {
    return out << hidden.behind_gemms << " of " << hidden.operations;
  }
};
Hidden hidden(const Journal& journal, const std::string& operation) {
  Hidden result;
  for (auto start = journal.begin(); start != journal.end(); ++start) {
    if (start->what != What::start || start->operation != operation) continue;
    const auto wait = std::find_if(start, journal.end(), [&](const JournalEntry& entry) {
      return entry.what == What::wait && entry.operation == operation && entry.number == start->number;
    });
    BOOST_REQUIRE((wait != journal.end()));
    ++result.operations;
    result.behind_gemms += std::any_of(start, wait, is_gemm);
  }
  return result;
}

}  // namespace

BOOST_AUTO_TEST_CASE(gradients_leave_while_earlier_layers_are_computed) {
  const RunShape shape = shape_of({1, 1, 2});
  JournalRun run(shape);
  const Journal journal = run.second_step();
  const auto gemms = places(journal, is_gemm);
  const auto starts = places(journal, [](const JournalEntry& entry) {
    return entry.what == What::start && entry.operation == "dp.reduce_scatter";
  });
  const auto waits = places(journal, [](const JournalEntry& entry) {
    return entry.what == What::wait && entry.operation == "dp.reduce_scatter";
  });
  BOOST_REQUIRE_EQUAL(starts.size(), run.groups());
  BOOST_REQUIRE_EQUAL(waits.size(), run.groups());
  BOOST_TEST(waits.front() > gemms.back());
  int layers = 0;
  for (const std::size_t start : starts) {
    const ParameterGroup& group = run.group_of(journal[start].data);
    if (group.kind != GroupKind::layer) continue;
    ++layers;
    // As soon as its own gradients are there, those of the last micro-batch, and no sooner.
    BOOST_TEST(std::none_of(gemms.begin(), gemms.end(), [&](std::size_t p) {
      return p > start && journal[p].operation == "weight" &&
             run.group_of(journal[p].data).layer == group.layer;
    }));
    const auto before = std::find_if(gemms.rbegin(), gemms.rend(), [&](std::size_t p) { return p < start; });
    BOOST_REQUIRE((before != gemms.rend()));
    BOOST_TEST(run.group_of(journal[*before].data).layer == group.layer);
    const auto after = std::find_if(gemms.begin(), gemms.end(), [&](std::size_t p) { return p > start; });
    BOOST_TEST((after == gemms.end()) == (group.layer == 0));
    if (after != gemms.end()) BOOST_TEST(run.group_of(journal[*after].data).layer == group.layer - 1);
  }
  BOOST_TEST(layers == shape.model.layers);
}

BOOST_AUTO_TEST_CASE(parameters_come_while_earlier_layers_are_computed) {
  for (const bool offload : {false, true}) {
    RunShape shape = shape_of({1, 1, 2});
    shape.offload_optimizer = offload;
    JournalRun run(shape);
    const Journal journal = run.second_step();
    const auto first_gemm = places(journal, is_gemm).front();
    const auto waits = places(journal, [](const JournalEntry& entry) {
      return entry.what == What::wait && entry.operation == "dp.all_gather";
    });
    // Those of the step before, whose starts are not in the journal, and at the end its own.
    BOOST_REQUIRE_EQUAL(waits.size(), 2 * run.groups());
    int layers = 0;
    for (std::size_t i = 0; i < run.groups(); ++i) {
      const std::size_t wait = waits[i];
      const ParameterGroup& group = run.group_of(journal[wait].data);
      if (group.kind != GroupKind::layer) continue;
      ++layers;
      BOOST_REQUIRE(is_gemm(journal[wait + 1]));
      BOOST_TEST(run.group_of(journal[wait + 1].data).layer == group.layer);
      BOOST_TEST((wait > first_gemm) == (group.layer > 0));
      if (wait > first_gemm) BOOST_TEST(run.group_of(journal[wait - 1].data).layer == group.layer - 1);
    }
    BOOST_TEST(layers == shape.model.layers);
    // What is needed first starts first: norms, then the embedding and the layers.
    const auto starts = places(journal, [](const JournalEntry& entry) {
      return entry.what == What::start && entry.operation == "dp.all_gather";
    });
    BOOST_REQUIRE_EQUAL(starts.size(), run.groups());
    BOOST_TEST((run.group_of(journal[starts[0]].data).kind == GroupKind::norms));
    BOOST_TEST((run.group_of(journal[starts[1]].data).kind == GroupKind::embedding));
    for (std::size_t i = 2; i < starts.size(); ++i) {
      const ParameterGroup& group = run.group_of(journal[starts[i]].data);
      BOOST_TEST((group.kind == GroupKind::layer ? group.layer : shape.model.layers) ==
                 static_cast<std::int64_t>(i) - 2);
    }
  }
}

BOOST_AUTO_TEST_CASE(tensor_parallel_operations_run_beside_gemms) {
  constexpr int blocks = 4;
  RunShape shape = shape_of({2, 1, 1});
  shape.tp_overlap_blocks = blocks;
  const Journal beside = JournalRun(shape).second_step();
  shape.tp_overlap = false;
  const Journal waited = JournalRun(shape).second_step();
  for (const char* operation : {"tp.all_gather", "tp.reduce_scatter"}) {
    // All but the first or the last block of a GEMM's, and more where there are other GEMMs to do.
    const Hidden most = hidden(beside, operation), none = hidden(waited, operation);
    BOOST_TEST(blocks * most.behind_gemms >= (blocks - 1) * most.operations, operation << " " << most);
    BOOST_TEST(none.operations > 0);
    BOOST_TEST(none.behind_gemms == 0);
  }
}

BOOST_AUTO_TEST_CASE(the_number_of_blocks_is_the_fastest_measured) {
  RunShape shape = shape_of({2, 1, 1});
  shape.model.layers = 1;
  shape.seq_length = 2048;
  shape.model.max_positions = shape.seq_length;
  shape.tp_overlap_blocks = 0;
  const auto chosen = [&](std::deque<double> seconds) {
    return JournalRun(shape, std::move(seconds)).overlap();
  };
  BOOST_TEST(chosen({4e-3, 3e-3, 2e-3, 5e-3}).overlap.blocks == 4);
  BOOST_TEST(chosen({4e-3, 5e-3, 6e-3, 3e-3}).overlap.blocks == 8);
  BOOST_TEST(chosen({4e-3, 5e-3, 6e-3, 7e-3}).overlap.blocks == 1);
  // Hardly faster is not worth more blocks.
  BOOST_TEST(chosen({4e-3, 3.9e-3, 3.89e-3, 7e-3}).overlap.blocks == 1);
  const OverlapChoice choice = chosen({6e-3, 3e-3, 4e-3, 5e-3});
  BOOST_TEST(choice.trials.size() == 4);
  BOOST_TEST(choice.to_string() == "2 blocks (a layer with 1: 1.00 ms, 2: 0.50 ms, 4: 0.67 ms, 8: 0.83 ms)");
}
