// What every communicator does before it moves anything: contracts and counts. No MPI here.
#include <algorithm>
#include <array>
#include <boost/test/unit_test.hpp>
#include <chrono>
#include <limits>
#include <memory>
#include <string>
#include <thread>

#include "base/error.hpp"
#include "comm/labels.hpp"
#include "comm/local_communicator.hpp"
#include "comm/recording_communicator.hpp"
#include "mpi/group_data.hpp"
#include "mpi/mpi_session.hpp"
#include "support/immediate_stream.hpp"

using namespace llama3d;
using namespace llama3d::test;

namespace {

Tensor without_memory(DType dtype, std::int64_t elements) {
  return {nullptr, dtype, {elements}};
}

struct TestEvent final : Event {
  void synchronize() const override {}
};

struct RecordedGrid {
  explicit RecordedGrid(GridShape shape, int rank)
      : group(make_recording_communicators(ProcessGrid(shape, rank))) {}
  ImmediateStream stream;
  std::unique_ptr<GridCommunicators> group;
};

}  // namespace

BOOST_AUTO_TEST_CASE(recording_communicators_have_the_places_of_the_grid) {
  const GridShape shape{.tp = 4, .pp = 8, .dp = 8, .cp = 2};
  for (const int rank : {0, 5, 63, 64, 200, 447, 448, 511}) {
    const ProcessGrid grid(shape, rank);
    const auto group = make_recording_communicators(grid);
    BOOST_TEST(group->world->size() == 512);
    BOOST_TEST(group->world->rank() == rank);
    for (const Axis axis : collective_axes) {
      BOOST_TEST((*group)[axis].size() == shape.size(axis));
      BOOST_TEST((*group)[axis].rank() == grid.rank(axis));
    }
    BOOST_CHECK_THROW((*group)[Axis::pipeline], ContractViolation);  // it has channels
    BOOST_TEST(group->pp_forward->size() == 8);
    BOOST_TEST(group->pp_backward->rank() == grid.rank(Axis::pipeline));
    const bool at_an_end = grid.first_stage() || grid.last_stage();
    BOOST_REQUIRE_EQUAL(group->embedding != nullptr, at_an_end);
    if (at_an_end) BOOST_TEST(group->embedding->rank() == (grid.first_stage() ? 0 : 1));
    if (at_an_end) BOOST_TEST(group->embedding->size() == 2);
  }
  BOOST_TEST(!make_recording_communicators(ProcessGrid({.tp = 4, .pp = 1, .dp = 1}, 0))->embedding);
}

BOOST_AUTO_TEST_CASE(bytes_are_those_of_the_ring_algorithms) {
  RecordedGrid grid({.tp = 4, .pp = 2, .dp = 3}, 7);
  auto& [stream, group] = grid;
  const Tensor slice = without_memory(DType::bf16, 100), whole = without_memory(DType::bf16, 400);
  (*group)[Axis::tensor].all_gather(slice, whole, labels::tp_all_gather_input, stream)->wait(stream);
  (*group)[Axis::tensor].reduce_scatter(whole, slice, labels::tp_reduce_scatter_output, stream)->wait(stream);
  (*group)[Axis::tensor]
      .all_reduce(whole, ReduceOperation::sum, labels::tp_norm_gradients, stream)
      ->wait(stream);
  (*group)[Axis::data]
      .broadcast(without_memory(DType::fp32, 300), 1, labels::dp_gather_parameters, stream)
      ->wait(stream);
  const Transfer both[] = {{Transfer::Direction::send, slice, 1}, {Transfer::Direction::receive, whole, 1}};
  group->pp_forward->exchange(both, labels::pp_activation, stream)->wait(stream);

  CommunicationLog& log = group->log;
  BOOST_TEST(log.record(labels::tp_all_gather_input).bytes == 3 * 200);        // (n-1)/n of 800 bytes
  BOOST_TEST(log.record(labels::tp_reduce_scatter_output).bytes == 3 * 200);   // (n-1)/n of 800 bytes
  BOOST_TEST(log.record(labels::tp_norm_gradients).bytes == 2 * 3 * 200);      // twice that
  BOOST_TEST(log.record(labels::dp_gather_parameters).bytes == 2 * 1200 / 3);  // (n-1)/n of 1200 bytes
  BOOST_TEST(log.record(labels::pp_activation).bytes == 200);                  // what is sent, not received
  for (const auto& [label, record] : log.interval().counts()) BOOST_TEST(record.calls == 1);
  BOOST_TEST(log.interval().counts().size() == 5u);
}

BOOST_AUTO_TEST_CASE(labels_add_up_to_the_end_of_an_interval) {
  RecordedGrid grid({.tp = 2, .pp = 1, .dp = 1}, 0);
  auto& [stream, group] = grid;
  for (int i = 0; i < 3; ++i)
    (*group)[Axis::tensor]
        .all_reduce(without_memory(DType::fp32, 10), ReduceOperation::max, labels::tp_loss, stream)
        ->wait(stream);
  group->world->all_reduce(without_memory(DType::fp64, 3), ReduceOperation::sum, labels::world_totals, stream)
      ->wait(stream);
  BOOST_TEST(group->log.record(labels::tp_loss).calls == 3);
  BOOST_TEST(group->log.record(labels::tp_loss).bytes == 3 * 40);
  BOOST_TEST(group->log.record(labels::world_totals).bytes == 24);
  BOOST_TEST(group->log.record(labels::tp_embedding).calls == 0);
  BOOST_TEST(group->log.end_interval().counts().size() == 2u);
  BOOST_TEST(group->log.interval().counts().empty());
}

BOOST_AUTO_TEST_CASE(waiting_adds_to_the_seconds_and_names_the_operation) {
  /// Waits a while, and keeps what the log said meanwhile.
  class SlowWork final : public Work {
   public:
    explicit SlowWork(const CommunicationLog& log, std::string& seen) : log_(&log), seen_(&seen) {}
    void wait(Stream&) override {
      seen_->assign(log_->activity().current());
      const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(20);
      while (std::chrono::steady_clock::now() < end) continue;
    }

   private:
    const CommunicationLog* log_;
    std::string* seen_;
  };
  class SlowCommunicator final : public Communicator {
   public:
    explicit SlowCommunicator(CommunicationLog& log) : Communicator(0, 2, log), log_(&log) {}
    std::string seen;

   protected:
    WorkHandle slow() { return std::make_unique<SlowWork>(*log_, seen); }
    WorkHandle do_all_reduce(const Tensor&, ReduceOperation, Stream&) override { return slow(); }
    WorkHandle do_all_gather(const Tensor&, const Tensor&, Stream&) override { return slow(); }
    WorkHandle do_reduce_scatter(const Tensor&, const Tensor&, Stream&) override { return slow(); }
    WorkHandle do_broadcast(const Tensor&, int, Stream&) override { return slow(); }
    WorkHandle do_exchange(std::span<const Transfer>, Stream&) override { return slow(); }
    void do_register_memory(const Tensor&) override { seen = log_->activity().current(); }
    void do_unregister_memory() override { seen = log_->activity().current(); }

   private:
    CommunicationLog* log_;
  };
  CommunicationLog log;
  SlowCommunicator communicator(log);
  ImmediateStream stream;
  const auto work =
      communicator.all_reduce(without_memory(DType::fp32, 1), ReduceOperation::sum, labels::tp_loss, stream);
  const double begin = CommunicationLog::now();
  const TestEvent origin;
  BOOST_TEST(std::string(log.activity().current()).empty());
  BOOST_TEST(log.interval().spans({origin, 0}).empty());
  work->wait(stream);
  const auto spans = log.interval().spans({origin, begin});
  BOOST_REQUIRE_EQUAL(spans.size(), 1u);
  BOOST_TEST(spans[0].times.begin <= 0);
  BOOST_TEST(spans[0].times.end >= 0.02);
  LabelRecords records = log.end_interval().records({origin, begin});
  BOOST_TEST(records[labels::tp_loss].calls == 1);
  BOOST_TEST(records[labels::tp_loss].seconds >= 0.02);
  BOOST_TEST(records[labels::tp_loss].exposed_seconds >= 0.02);
  BOOST_TEST(records[labels::tp_loss].exposed_seconds <= records[labels::tp_loss].seconds);
  BOOST_TEST(communicator.seen == "tp.loss");
  BOOST_TEST(std::string(log.activity().current()).empty());
  BOOST_CHECK_THROW(work->wait(stream), ContractViolation);

  communicator.register_memory(without_memory(DType::fp32, 1));
  BOOST_TEST(std::exchange(communicator.seen, "") == "control.register");
  communicator.unregister_memory();
  BOOST_TEST(communicator.seen == "control.register");
  BOOST_TEST(std::string(log.activity().current()).empty());
}

namespace {

/// An operation of a device, done when the test says so.
struct ManualOperation final : DeviceOperation {
  bool begun() const override { return has_begun; }
  bool done() const override { return is_done; }
  OperationTimes times(const Event&) const override { return {1, 1 + seconds, seconds - 1}; }
  bool has_begun = false, is_done = false;
  double seconds = 3;
};

/// A group of two whose operations a device carries out, in so many seconds.
class DeviceCommunicator final : public Communicator {
 public:
  explicit DeviceCommunicator(CommunicationLog& log) : Communicator(0, 2, log) {}
  double seconds = 0;
  int ends = 0;  ///< that were timed

 protected:
  WorkHandle do_all_reduce(const Tensor&, ReduceOperation, Stream&) override { return start(); }
  WorkHandle do_all_gather(const Tensor&, const Tensor&, Stream&) override { return start(); }
  WorkHandle do_reduce_scatter(const Tensor&, const Tensor&, Stream&) override { return start(); }
  WorkHandle do_broadcast(const Tensor&, int, Stream&) override { return start(); }
  WorkHandle do_exchange(std::span<const Transfer>, Stream&) override { return start(); }

 private:
  struct DeviceWork final : Work {
    void wait(Stream&) override {}
    std::shared_ptr<const DeviceOperation> device_operation() const override { return operation; }
    std::shared_ptr<ManualOperation> operation = std::make_shared<ManualOperation>();
  };
  WorkHandle start() {
    auto work = std::make_unique<DeviceWork>();
    // Nobody may ask for the times of one that is not timed, and one in the sample needs the end before.
    const bool known = timing().times && (!timing().in_sample || previous_end_timed_);
    work->operation->seconds = known && timing().end ? seconds : std::numeric_limits<double>::quiet_NaN();
    ends += timing().end;
    previous_end_timed_ = timing().end;
    return work;
  }
  bool previous_end_timed_ = false;
};

}  // namespace

BOOST_AUTO_TEST_CASE(times_of_a_device_replace_those_of_the_host) {
  CommunicationInterval interval;
  interval.count(labels::pp_gradient, 8);
  interval.count(labels::pp_gradient, 4);  // waited for later: its time is not in here
  interval.time(labels::pp_gradient, false, std::make_shared<ManualOperation>());
  const TestEvent origin;
  const LabelRecords records = interval.records({origin, 1e9});
  BOOST_TEST(records.at(labels::pp_gradient).seconds == 3);
  BOOST_TEST(records.at(labels::pp_gradient).exposed_seconds == 2);
  BOOST_TEST(records.at(labels::pp_gradient).bytes == 12);
}

BOOST_AUTO_TEST_CASE(a_sample_is_timed_where_operations_are_frequent_and_tells_of_all) {
  CommunicationLog log;
  DeviceCommunicator communicator(log);
  ImmediateStream stream;
  const TestEvent origin;
  const auto move = [&](Label label, double seconds) {
    communicator.seconds = seconds;
    communicator.all_reduce(without_memory(DType::fp32, 1), ReduceOperation::sum, label, stream)
        ->wait(stream);
  };
  // Layers with gathers of two kinds, then a head's, as long as ten others.
  const auto step = [&](int layers, int micro_batches) {
    for (int i = 0; i < micro_batches; ++i) {
      move(labels::pp_activation, 5);
      for (int layer = 0; layer < layers; ++layer) {
        for (const double seconds : {2, 3}) move(labels::tp_all_gather_input, seconds);
        move(labels::tp_reduce_scatter_output, 4);
      }
      move(labels::tp_all_gather_input, 25);
    }
  };
  const auto timed = [&](Label label) {
    return std::ranges::count(log.interval().spans({origin, 0}), label, &OperationSpan::label);
  };
  // The last has about four gathers a step in its sample, too few for a mean with one as long as ten.
  for (const auto& [layers, micro_batches, steps, percent] :
       {std::array{7, 8, 50, 5}, std::array{16, 4, 100, 5}, std::array{16, 1, 100, 10}}) {
    const int gathers = (2 * layers + 1) * micro_batches, scatters = layers * micro_batches;
    const int sampled = (gathers + scatters) / 8;
    LabelRecords sum;
    for (int i = 0; i < steps; ++i) {
      communicator.ends = 0;
      step(layers, micro_batches);
      BOOST_TEST(timed(labels::pp_activation) == micro_batches);
      const auto all_timed = timed(labels::tp_all_gather_input) + timed(labels::tp_reduce_scatter_output);
      BOOST_TEST(all_timed >= sampled - 1);
      BOOST_TEST(all_timed <= sampled + 1 + 1 + 2);  // rounded up, and the first of each label
      BOOST_TEST(communicator.ends <= 2 * (sampled + 4) + micro_batches);
      for (const auto& [label, record] : log.end_interval().records({origin, 0})) sum[label] += record;
    }
    const int all = steps * micro_batches;
    const double seconds = all * (layers * (2 + 3) + 25);
    const auto near = boost::test_tools::tolerance(0.01 * percent);
    BOOST_TEST(sum[labels::tp_all_gather_input].calls == steps * gathers);
    BOOST_TEST(sum[labels::tp_all_gather_input].bytes == steps * gathers * 4);
    BOOST_TEST(sum[labels::tp_all_gather_input].seconds == seconds, near);
    BOOST_TEST(sum[labels::tp_all_gather_input].exposed_seconds == seconds - steps * gathers, near);
    // All alike: no sample is wrong.
    BOOST_TEST(sum[labels::tp_reduce_scatter_output].seconds == all * layers * 4,
               boost::test_tools::tolerance(1e-12));
    BOOST_TEST(sum[labels::pp_activation].seconds == all * 5);
  }

  log.time_all(true);
  step(7, 2);
  BOOST_TEST(timed(labels::tp_all_gather_input) == 2 * 15);
  BOOST_TEST(log.end_interval().records({origin, 0})[labels::tp_all_gather_input].seconds ==
             2 * (7 * 5 + 25));
  log.time_all(false);
  // The first of an interval is always timed and tells of no other, unless there is nothing else.
  for (int interval = 0; interval < 50; ++interval) {
    move(labels::tp_reduce_scatter_output, 7);
    for (int i = 0; i < 30; ++i) move(labels::tp_reduce_scatter_output, 1);
    BOOST_TEST(log.end_interval().records({origin, 0})[labels::tp_reduce_scatter_output].seconds == 37);
  }
  for (int i = 0; i < 2; ++i) move(labels::tp_reduce_scatter_output, 7);
  BOOST_TEST(log.end_interval().records({origin, 0})[labels::tp_reduce_scatter_output].seconds == 14);
}

BOOST_AUTO_TEST_CASE(the_longest_wait_is_found_on_the_host_and_on_devices) {
  Activity activity;
  const auto pause = [] { std::this_thread::sleep_for(std::chrono::milliseconds(5)); };
  BOOST_TEST(!activity.longest());
  activity.watched(true);
  const auto first = std::make_shared<ManualOperation>(), second = std::make_shared<ManualOperation>(),
             other = std::make_shared<ManualOperation>();
  const int queue = 0, other_queue = 0;
  activity.at({7, 2});
  activity.started(&queue, labels::tp_loss, first);
  activity.started(&queue, labels::tp_embedding, second);
  activity.at({8, 0});
  activity.started(&other_queue, labels::pp_activation, other);
  BOOST_TEST(!activity.longest());  // nothing has begun: this rank is still computing
  first->has_begun = second->has_begun = true;
  BOOST_TEST(activity.longest()->label == labels::tp_loss);
  pause();
  other->has_begun = true;
  const auto waiting = activity.longest();
  BOOST_TEST(waiting->label == labels::tp_loss);
  BOOST_TEST(waiting->seconds >= 0.005);
  BOOST_TEST(waiting->position.step == 7);
  BOOST_TEST(waiting->position.micro_batch == 2);
  first->is_done = second->is_done = true;
  BOOST_TEST(activity.longest()->label == labels::pp_activation);
  other->is_done = true;
  BOOST_TEST(!activity.longest());
  activity.enter(labels::control_max);
  pause();
  BOOST_TEST(activity.longest()->label == labels::control_max);
  BOOST_TEST(activity.longest()->seconds >= 0.005);
  activity.leave();
  BOOST_TEST(!activity.longest());
}

BOOST_AUTO_TEST_CASE(wrong_sizes_types_and_peers_are_refused) {
  RecordedGrid grid({.tp = 4, .pp = 2, .dp = 1}, 2);
  auto& [stream, group] = grid;
  HostTensor memory(DType::fp32, 40);
  const Tensor whole = memory.tensor();
  const Label label = labels::tp_embedding;
  const auto gather = [&](const Tensor& in, const Tensor& out) {
    (*group)[Axis::tensor].all_gather(in, out, label, stream);
  };
  const auto scatter = [&](const Tensor& in, const Tensor& out) {
    (*group)[Axis::tensor].reduce_scatter(in, out, label, stream);
  };
  const auto send_to = [&](int peer) {
    const Transfer transfer{Transfer::Direction::send, whole, peer};
    group->pp_forward->exchange({&transfer, 1}, label, stream);
  };
  BOOST_CHECK_NO_THROW(gather(whole.slice(20, 30), whole));   // this rank's own slice
  BOOST_CHECK_NO_THROW(scatter(whole, whole.slice(20, 30)));  // likewise
  BOOST_CHECK_THROW(gather(whole.slice(10, 20), whole), ContractViolation);
  BOOST_CHECK_THROW(scatter(whole, whole.slice(19, 29)), ContractViolation);
  BOOST_CHECK_THROW(gather(without_memory(DType::fp32, 11), whole), ContractViolation);
  BOOST_CHECK_THROW(scatter(whole, without_memory(DType::fp32, 9)), ContractViolation);
  BOOST_CHECK_THROW(gather(without_memory(DType::int32, 10), whole), ContractViolation);
  BOOST_CHECK_THROW(gather({}, whole), ContractViolation);
  BOOST_CHECK_THROW((*group)[Axis::tensor].all_reduce({}, ReduceOperation::sum, label, stream),
                    ContractViolation);
  BOOST_CHECK_THROW((*group)[Axis::tensor].broadcast(whole, 4, label, stream), ContractViolation);
  BOOST_CHECK_THROW((*group)[Axis::tensor].broadcast(whole, -1, label, stream), ContractViolation);
  BOOST_CHECK_NO_THROW(send_to(1));
  BOOST_CHECK_THROW(send_to(0), ContractViolation);  // itself
  BOOST_CHECK_THROW(send_to(2), ContractViolation);
}

BOOST_AUTO_TEST_CASE(a_group_of_one_copies_where_in_and_out_differ) {
  const auto group = make_local_communicators();
  BOOST_TEST(!group->embedding);
  ImmediateStream stream;
  for (const DType dtype : {DType::fp32, DType::bf16, DType::fp64, DType::int32}) {
    HostTensor in(dtype, 33), gathered(dtype, 33), scattered(dtype, 33);
    for (int i = 0; i < 33; ++i) in.set(i, contribution(0, i));
    (*group)[Axis::tensor]
        .all_gather(in.tensor(), gathered.tensor(), labels::tp_all_gather_input, stream)
        ->wait(stream);
    (*group)[Axis::data]
        .reduce_scatter(in.tensor(), scattered.tensor(), labels::dp_reduce_gradients, stream)
        ->wait(stream);
    HostTensor alone(dtype, 33);
    (*group)[Axis::context]
        .all_gather(in.tensor(), alone.tensor(), labels::world_totals, stream)
        ->wait(stream);
    group->world->all_reduce(in.tensor(), ReduceOperation::sum, labels::world_totals, stream)->wait(stream);
    group->world->broadcast(in.tensor(), 0, labels::world_totals, stream)->wait(stream);
    (*group)[Axis::tensor]
        .all_gather(in.tensor(), in.tensor(), labels::tp_all_gather_input, stream)
        ->wait(stream);
    group->pp_forward->exchange({}, labels::pp_activation, stream)->wait(stream);
    const auto expected = [](std::int64_t i) { return contribution(0, i); };
    BOOST_TEST(in.mismatches(expected) == 0);
    BOOST_TEST(gathered.mismatches(expected) == 0);
    BOOST_TEST(scattered.mismatches(expected) == 0);
    BOOST_TEST(alone.mismatches(expected) == 0);
  }
  for (const auto& [label, record] : group->log.interval().counts()) BOOST_TEST(record.bytes == 0);
}

BOOST_AUTO_TEST_CASE(the_comparison_sees_one_wrong_element) {
  for (const DType dtype : {DType::fp32, DType::bf16, DType::fp64, DType::int32}) {
    HostTensor tensor(dtype, 1001);
    BOOST_TEST(tensor.mismatches([](std::int64_t i) { return contribution(3, i); }) == 1001);
    for (int i = 0; i < 1001; ++i) tensor.set(i, contribution(3, i));
    BOOST_TEST(tensor.mismatches([](std::int64_t i) { return contribution(3, i); }) == 0);
    tensor.set(500, contribution(3, 500) + 1);
    BOOST_TEST(tensor.mismatches([](std::int64_t i) { return contribution(3, i); }) == 1);
  }
}
