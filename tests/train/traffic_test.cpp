// The bytes that each label of Communicator moves in a step, on every rank, against closed formulas.
#include <boost/test/unit_test.hpp>

#include "comm/labels.hpp"
#include "support/mpi_fixture.hpp"
#include "train/test_run.hpp"

using namespace llama3d;
using namespace llama3d::test;

namespace {

constexpr std::int64_t element_bytes = 4;  // fp32 throughout
constexpr std::int64_t global_batch = 16, sequence = 7, micro_batch = 2;

struct Case {
  GridShape grid;
  ScheduleKind schedule = ScheduleKind::one_f_one_b;
  int chunks = 1;
  bool tied = false;
  Recompute recompute = Recompute::none;
};

std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

/// What a rank should move, from sizes alone.
struct Expected {
  std::map<std::string_view, std::int64_t> bytes;

  Expected(const Case& c, const ModelConfig& m, const ProcessGrid& grid) {
    const std::int64_t tp = c.grid.tp, pp = c.grid.pp, dp = c.grid.dp;
    const std::int64_t micro_batches = global_batch / micro_batch / dp;
    const std::int64_t rows = round_up(micro_batch * sequence, tp);
    const std::int64_t layers = m.layers / pp;  // the model's 8 layers split evenly on these grids
    const bool first = grid.first_stage(), last = grid.last_stage();

    // A gather or a scatter of the residual stream moves all but a rank's own share of T x C.
    const std::int64_t stream = (tp - 1) * rows * m.hidden * element_bytes / tp * micro_batches;
    // A layer's two inputs, once more where they are not kept; whole layers are done again up to their last
    // product.
    const bool full = c.recompute == Recompute::full;
    const std::int64_t again = c.recompute == Recompute::none                    ? 0
                               : full && c.schedule == ScheduleKind::zero_bubble ? 2
                                                                                 : 1;
    bytes["tp.all_gather.input"] = stream * (2 * (1 + again) * layers + last);
    bytes["tp.reduce_scatter.output"] = stream * (2 + (full ? again : 0)) * layers;
    bytes["tp.all_gather.gradient"] = stream * 2 * layers;
    bytes["tp.reduce_scatter.gradient"] = stream * (2 * layers + last);
    bytes["tp.embedding"] = first ? 2 * stream : 0;
    bytes["tp.loss"] = last ? (tp - 1) * rows * 3 * 4 * micro_batches : 0;

    const std::int64_t norms = round_up(m.hidden, 64) * (2 * layers + last);
    const std::int64_t norm_group = round_up(norms - (round_up(m.hidden, 64) - m.hidden), 64 * dp);
    bytes["tp.norm_gradients"] = 2 * (tp - 1) * norm_group * element_bytes / tp;

    const std::int64_t shard = rows / tp * m.hidden * element_bytes * micro_batches;
    bytes["pp.activation"] = shard * (c.chunks - last);
    bytes["pp.gradient"] = shard * (c.chunks - first);

    const std::int64_t vocabulary = round_up((m.vocabulary + tp - 1) / tp * m.hidden, 64 * dp);
    const bool tied_apart = c.tied && pp > 1;
    bytes["pp.tied_embedding"] = tied_apart && (first || last) ? vocabulary * element_bytes : 0;

    const std::int64_t c_ = m.hidden, f = m.feed_forward / tp, d = m.head_dim;
    const std::int64_t q = m.query_heads / tp * d, kv = m.key_value_heads / tp * d;
    const std::int64_t layer = round_up(
        round_up(round_up(round_up((q + 2 * kv) * c_, 64) + c_ * q, 64) + 2 * f * c_, 64) + c_ * f, 64 * dp);
    const std::int64_t heads = first + (last && (!c.tied || tied_apart));
    const std::int64_t parameters = layer * layers + norm_group + vocabulary * heads;
    bytes["dp.reduce_scatter.gradients"] = (dp - 1) * parameters * element_bytes / dp;
    bytes["dp.all_gather.parameters"] = bytes["dp.reduce_scatter.gradients"];

    const std::int64_t world = c.grid.world();
    bytes["world.totals"] = 2 * (world - 1) * 3 * 8 / world;
  }
};

void check_traffic(const Case& c) {
  RunShape shape;
  shape.model = small_model(c.tied);
  shape.grid = c.grid;
  shape.pipeline_schedule = c.schedule;
  shape.pipeline_chunks = c.chunks;
  shape.recompute = c.recompute;
  shape.pipeline_layers.assign(static_cast<std::size_t>(c.grid.pp * c.chunks), 8 / (c.grid.pp * c.chunks));
  shape.micro_batch_size = micro_batch;
  shape.global_batch_size = global_batch;
  shape.seq_length = sequence;
  TestRun run(shape, {});
  run.initialize(1);
  const GlobalBatch batch = random_batch(global_batch, sequence, shape.model.vocabulary, 5);
  run.engine().queue_step(run.micro_batches(batch), 1, 1e-3);
  LabelRecords moved = run.engine().take_report().communication;

  BOOST_TEST_CONTEXT(c.grid.to_string() << " " << name_of(c.schedule) << (c.tied ? " tied" : "") << " "
                                        << name_of(c.recompute)) {
    const Expected expected(c, shape.model, run.plan().grid);
    for (const auto& [label, bytes] : expected.bytes)
      BOOST_CHECK_MESSAGE(moved[Label{label}].bytes == bytes,
                          label << ": " << moved[Label{label}].bytes << " bytes, expected " << bytes);
    for (const auto& [label, record] : moved)
      BOOST_CHECK_MESSAGE(expected.bytes.contains(label.name), label.name << " is not in the formulas");
  }
}

}  // namespace

BOOST_AUTO_TEST_CASE(every_label_moves_what_its_formula_says) {
  const int ranks = control().size();
  if (ranks == 4) {
    check_traffic({{4, 1, 1}});
    check_traffic({{4, 1, 1}, ScheduleKind::one_f_one_b, 1, false, Recompute::cheap});
    check_traffic({{4, 1, 1}, ScheduleKind::one_f_one_b, 1, false, Recompute::full});
    check_traffic({{1, 4, 1}});
    check_traffic({{1, 1, 4}});
    check_traffic({{2, 2, 1}, ScheduleKind::interleaved, 2});
    check_traffic({{1, 2, 2}, ScheduleKind::gpipe, 1, true});
  } else {
    check_traffic({{2, 2, 2}});
    check_traffic({{2, 2, 2}, ScheduleKind::zero_bubble});
    check_traffic({{2, 2, 2}, ScheduleKind::zero_bubble, 1, false, Recompute::cheap});
    check_traffic({{2, 2, 2}, ScheduleKind::zero_bubble, 1, false, Recompute::full});
    check_traffic({{2, 2, 2}, ScheduleKind::interleaved, 2, true});
    check_traffic({{4, 2, 1}});
    check_traffic({{1, 4, 2}, ScheduleKind::one_f_one_b, 1, true});
  }
}
