// Any grid and any schedule give the run of one process: losses, gradient norms and final weights.
#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <cmath>

#include "comm/labels.hpp"
#include "support/mpi_fixture.hpp"
#include "support/preconditions.hpp"
#include "support/test_device.hpp"
#include "train/test_run.hpp"

using namespace llama3d;
using namespace llama3d::test;

namespace {

// fp32 sums in another order differ by about the square root of their length times 6e-8; the bound
// leaves room for the few hundred terms here and for AdamW's amplification over the steps.
constexpr double tolerance = 1e-5;
// Ranks that share a GPU take turns, tens of milliseconds an operation.
int steps() {
  return gpus_shared(control().node_size()) ? 1 : 3;
}
const std::int64_t global_batch = gpu_required() ? 8 : 24;
constexpr std::int64_t sequence = 7;

struct Case {
  int tp, pp, dp;
  ScheduleKind schedule = ScheduleKind::one_f_one_b;
  int chunks = 1;
  std::int64_t micro_batch = 1;
  std::vector<int> layers = {};
  TensorParallelOverlap overlap = {};
};

RunShape shape_of(const Case& c, bool tied) {
  RunShape shape;
  shape.model = small_model(tied);
  shape.grid = {c.tp, c.pp, c.dp};
  shape.pipeline_schedule = c.schedule;
  shape.pipeline_chunks = c.chunks;
  shape.micro_batch_size = c.micro_batch;
  shape.global_batch_size = global_batch;
  shape.seq_length = sequence;
  shape.pipeline_layers = c.layers;
  shape.tp_overlap = c.overlap.enabled;
  shape.tp_overlap_blocks = c.overlap.blocks;
  return shape;
}

/// All grids of this many ranks, each with the schedules that can run on it.
std::vector<Case> cases_of(int ranks) {
  std::vector<Case> cases;
  for (int tp : {1, 2, 4})
    for (int pp = 1; pp <= ranks; ++pp) {
      if (ranks % (tp * pp) != 0) continue;
      const int dp = ranks / (tp * pp);
      if (global_batch % dp != 0) continue;
      cases.push_back({tp, pp, dp});
      if (pp == 1) continue;
      cases.push_back({tp, pp, dp, ScheduleKind::gpipe});
      cases.push_back({tp, pp, dp, ScheduleKind::zero_bubble});
      if (pp <= 4) cases.push_back({tp, pp, dp, ScheduleKind::interleaved, 2});
    }
  return cases;
}

/// Notes which micro-batch adds to gradients, and which one completes them.
class NotingStore final : public ParameterStore {
 public:
  NotingStore(ParameterStore& store, Activity*& activity, std::vector<std::int64_t>& gradients,
              std::vector<std::int64_t>& complete)
      : store_(store), activity_(activity), gradients_(gradients), complete_(complete) {}
  Tensor acquire(std::size_t group) override { return store_.acquire(group); }
  void release(std::size_t group) override { store_.release(group); }
  Tensor acquire_gradients(std::size_t group) override {
    if (activity_) gradients_.push_back(activity_->position().micro_batch);
    return store_.acquire_gradients(group);
  }
  void release_gradients(std::size_t group, bool complete) override {
    if (activity_ && complete) complete_.push_back(activity_->position().micro_batch);
    store_.release_gradients(group, complete);
  }

 private:
  ParameterStore& store_;
  Activity*& activity_;
  std::vector<std::int64_t>&gradients_, &complete_;
};

struct History {
  std::vector<double> losses, norms;
  double valid_loss = 0;
  GlobalTensors weights;
};

OptimizerOptions options() {
  OptimizerOptions options;
  options.gradient_clip = 0.5;
  // Elements here are about 1e-3: one whose gradient is nothing but rounding must not take a whole step.
  options.epsilon = 1e-5;
  return options;
}

History history_of(TestRun& run) {
  History history;
  run.initialize(7);
  for (int step = 1; step <= steps(); ++step) {
    const auto batch = random_batch(global_batch, sequence, run.plan().shape.model.vocabulary, 100 + step);
    const StepResult result = run.step(batch, step, 1e-3);
    history.losses.push_back(result.loss);
    history.norms.push_back(result.gradient_norm);
  }
  history.valid_loss =
      run.evaluate(random_batch(global_batch, sequence, run.plan().shape.model.vocabulary, 1)).loss;
  history.weights = run.weights();
  return history;
}

const History& reference(bool tied) {
  static std::map<bool, History> histories;
  const auto found = histories.find(tied);
  if (found != histories.end()) return found->second;
  TestRun run = TestRun::alone(shape_of({1, 1, 1, ScheduleKind::one_f_one_b, 1, 4}, tied), options());
  return histories[tied] = history_of(run);
}

std::string describe(const Case& c) {
  return fmt::format("{} {} micro-batch {}", GridShape{c.tp, c.pp, c.dp}.to_string(), name_of(c.schedule),
                     c.micro_batch);
}

void check_equal(const Case& c, bool tied) {
  BOOST_TEST_CONTEXT(describe(c) << (tied ? " tied" : "")) {
    BOOST_TEST_MESSAGE(describe(c));
    const History& expected = reference(tied);
    TestRun run(shape_of(c, tied), options());
    const History actual = history_of(run);
    for (int i = 0; i < steps(); ++i) {
      const auto step = static_cast<std::size_t>(i);
      BOOST_CHECK_LE(std::abs(actual.losses[step] - expected.losses[step]),
                     tolerance * expected.losses[step]);
      BOOST_CHECK_LE(std::abs(actual.norms[step] - expected.norms[step]), tolerance * expected.norms[step]);
    }
    BOOST_CHECK_LE(std::abs(actual.valid_loss - expected.valid_loss), tolerance * expected.valid_loss);
    std::string worst;
    const double error = largest_error(actual.weights, expected.weights, &worst);
    BOOST_CHECK_MESSAGE(error <= tolerance, worst << " differs by " << error);
    BOOST_CHECK_EQUAL(run.engine().executor().peak_slots(), run.plan().schedule.peak_live_activations);
  }
}

}  // namespace

BOOST_AUTO_TEST_CASE(every_grid_and_schedule_gives_the_run_of_one_process) {
  for (const Case& c : cases_of(control().size())) check_equal(c, false);
}

BOOST_AUTO_TEST_CASE(in_bf16_every_schedule_is_near_the_run_of_one_process,
                     *needs("several ranks", [] { return control().size() > 1; })) {
  const int ranks = control().size(), pp = ranks % 2 == 0 ? 2 : 1, tp = ranks % 4 == 0 ? 2 : 1;
  const auto losses_of = [](TestRun&& run) {
    const History history = history_of(run);
    std::vector<double> losses = history.losses;
    losses.push_back(history.valid_loss);
    return losses;
  };
  const auto shape_in_bf16 = [](const Case& c) {
    RunShape shape = shape_of(c, false);
    shape.precision = &precision_of(DType::bf16);
    return shape;
  };
  const auto expected = losses_of(TestRun::alone(shape_in_bf16({1, 1, 1}), options()));
  for (const ScheduleKind schedule : {ScheduleKind::one_f_one_b, ScheduleKind::gpipe,
                                      ScheduleKind::zero_bubble, ScheduleKind::interleaved}) {
    const Case c{tp, pp, ranks / tp / pp, schedule, schedule == ScheduleKind::interleaved ? 2 : 1};
    if (schedule != ScheduleKind::one_f_one_b && pp == 1) continue;
    BOOST_TEST_CONTEXT(describe(c)) {
      const auto actual = losses_of(TestRun(shape_in_bf16(c), options()));
      // As in the golden tests: sums over other parts of a layer round elsewhere, to eight bits.
      for (std::size_t i = 0; i < expected.size(); ++i)
        BOOST_CHECK_LE(std::abs(actual[i] - expected[i]), 2e-3 * expected[i]);
    }
  }
}

BOOST_AUTO_TEST_CASE(receives_ahead_give_the_same_run,
                     *needs("several ranks", [] { return control().size() > 1; })) {
  const int pp = control().size();
  const auto losses_of = [&](ScheduleKind schedule, ReceiveStart receives) {
    RunShape shape = shape_of({1, pp, 1, schedule}, false);
    shape.pipeline_receive_ahead = receives == ReceiveStart::ahead;
    TestRun run(shape, options());
    run.initialize(7);
    std::vector<double> losses;
    const auto step = [&](int number) {
      losses.push_back(run.step(random_batch(global_batch, sequence, 131, 100 + number), number, 1e-3).loss);
      return run.engine().executor().peak_slots();
    };
    // The first step's receives start when they are needed. What 1f1b holds tells the two apart.
    BOOST_CHECK_EQUAL(step(1), run.plan().schedule.peak_live_activations);
    BOOST_CHECK_EQUAL(step(2), run.plan().later_steps.peak_live_activations);
    step(3);
    if (schedule == ScheduleKind::one_f_one_b && run.plan().grid.rank(Axis::pipeline) == pp - 2)
      BOOST_CHECK_EQUAL(
          run.plan().later_steps.peak_live_activations > run.plan().schedule.peak_live_activations,
          receives == ReceiveStart::ahead);
    return losses;
  };
  for (const auto schedule : {ScheduleKind::one_f_one_b, ScheduleKind::gpipe, ScheduleKind::zero_bubble}) {
    const auto expected = losses_of(schedule, ReceiveStart::when_needed);
    const auto actual = losses_of(schedule, ReceiveStart::ahead);
    for (std::size_t i = 0; i < expected.size(); ++i)
      BOOST_CHECK_LE(std::abs(actual[i] - expected[i]), tolerance * expected[i]);
  }
}

BOOST_AUTO_TEST_CASE(tied_embeddings_stay_equal_on_both_stages) {
  const int ranks = control().size();
  if (ranks % 2 == 0) check_equal({1, 2, ranks / 2}, true);
  check_equal({1, ranks, 1, ScheduleKind::one_f_one_b}, true);
  if (ranks % 4 == 0) check_equal({2, 2, ranks / 4, ScheduleKind::zero_bubble}, true);
  if (ranks % 4 == 0) check_equal({2, 2, ranks / 4, ScheduleKind::interleaved, 2}, true);
}

BOOST_AUTO_TEST_CASE(a_rank_tells_the_micro_batch_it_is_at) {
  for (const auto schedule : {ScheduleKind::one_f_one_b, ScheduleKind::zero_bubble}) {
    std::vector<std::int64_t> gradients, complete;
    const RunShape shape = shape_of({1, control().size(), 1, schedule}, false);
    Activity* activity_of_run = nullptr;
    TestRun run(shape, options(), [&](ParameterStore& store, Device&, Stream&) {
      return std::make_unique<NotingStore>(store, activity_of_run, gradients, complete);
    });
    run.initialize(7);
    const auto batches = run.micro_batches(random_batch(global_batch, sequence, 131, 1));
    std::vector<MicroBatchRows> rows;
    for (const BatchRows& b : batches) rows.push_back({b.ids, b.targets, b.start, b.end, b.position});
    Activity& activity = run.engine().communicators().log.activity();
    activity_of_run = &activity;
    activity.at({5, -1});
    run.engine().optimizer().begin_step();
    run.engine().executor().train(run.plan().schedule, rows);
    // Every micro-batch adds to gradients, the last one completes them.
    for (std::int64_t m = 0; m < global_batch; ++m)
      BOOST_TEST(std::count(gradients.begin(), gradients.end(), m) > 0);
    BOOST_TEST(!complete.empty());
    for (const auto micro_batch : complete) BOOST_TEST(micro_batch == global_batch - 1);
    run.engine().optimizer().reduce_gradients();
    BOOST_TEST(activity.position().step == 5);
    run.step(random_batch(global_batch, sequence, 131, 1), 6, 1e-3);
    BOOST_TEST(activity.position().step == 6);
    BOOST_TEST(activity.position().micro_batch == -1);
    run.evaluate(random_batch(global_batch, sequence, 131, 1));
    BOOST_TEST(activity.position().micro_batch == -1);
  }
}

BOOST_AUTO_TEST_CASE(micro_batch_size_and_layer_counts_are_free) {
  const int ranks = control().size();
  if (ranks % 2 == 0) {
    // 3 x 7 rows do not divide by two: padded.
    const std::int64_t micro_batch = global_batch % (3 * ranks / 2) == 0 ? 3 : 1;
    check_equal({2, 1, ranks / 2, ScheduleKind::one_f_one_b, 1, micro_batch}, false);
    check_equal({1, 2, ranks / 2, ScheduleKind::zero_bubble, 1, micro_batch, {7, 1}}, false);
    check_equal({1, 2, ranks / 2, ScheduleKind::gpipe, 1, 1, {2, 6}}, false);
  }
  check_equal({1, 1, ranks, ScheduleKind::one_f_one_b, 1, 1}, false);
}

BOOST_AUTO_TEST_CASE(blocks_of_rows_do_not_matter,
                     *needs("an even number of ranks", [] { return control().size() % 2 == 0; })) {
  const int ranks = control().size(), pp = ranks % 4 == 0 ? 2 : 1;
  // 4 sequences of 7 rows, of which a rank of TP 2 has 14.
  for (const TensorParallelOverlap overlap : {TensorParallelOverlap{false, 1}, {true, 2}, {true, 7}})
    for (const ScheduleKind schedule : {ScheduleKind::one_f_one_b, ScheduleKind::zero_bubble})
      check_equal({2, pp, ranks / 2 / pp, schedule, 1, 4, {}, overlap}, pp == 1);
}

BOOST_AUTO_TEST_CASE(the_comparison_sees_one_changed_weight) {
  GlobalTensors changed = reference(false).weights;
  float& value = changed.begin()->second.values.front();
  value = value * 1.01f + 0.01f;
  BOOST_CHECK_GT(largest_error(changed, reference(false).weights), tolerance);
  changed.erase(changed.begin());
  BOOST_CHECK_GT(largest_error(changed, reference(false).weights), tolerance);
}

// Layers much narrower than the vocabulary, as in the small models of Llama 3: what a GEMM of bf16 needs
// is then decided by the logits.
BOOST_AUTO_TEST_CASE(a_vocabulary_much_wider_than_the_layers) {
  const Case c{1, 1, control().size()};
  RunShape shape = shape_of(c, false);
  shape.model.vocabulary = 20000;
  shape.precision = &precision_of(DType::bf16);
  shape.global_batch_size = c.dp;
  shape.seq_length = 48;
  const GlobalBatch batch = random_batch(shape.global_batch(), shape.seq_length, 20000, 1);
  const auto first_step = [&](TestRun run) {
    run.initialize(1);
    return run.step(batch, 1, 1e-3);
  };
  const StepResult result = first_step(TestRun(shape, options()));
  shape.grid = {1, 1, 1};
  shape.precision = &precision_of(DType::fp32);
  const StepResult expected = first_step(TestRun::alone(shape, options()));
  // Random weights know next to nothing of the tokens: the gradients tell models apart, not the loss. Each of
  // their factors rounds by 2^-9.
  BOOST_CHECK_LE(std::abs(result.loss / expected.loss - 1), 0x1p-9);
  BOOST_CHECK_LE(std::abs(result.gradient_norm / expected.gradient_norm - 1), 0x1p-7);
}
