#include "cuda/nccl/nccl_communicator.hpp"

#include <algorithm>
#include <exception>
#include <utility>

#include "cuda/device/check.hpp"

namespace llama3d::cuda {
namespace {

ncclDataType_t type_of(DType dtype) {
  switch (dtype) {
    case DType::fp32: return ncclFloat32;
    case DType::bf16: return ncclBfloat16;
    case DType::fp64: return ncclFloat64;
    case DType::int32: return ncclInt32;
  }
  throw ContractViolation("a type that NCCL does not know");
}

ncclRedOp_t operation_of(ReduceOperation operation) {
  return operation == ReduceOperation::sum ? ncclSum : ncclMax;
}

std::size_t count_of(const Tensor& tensor) {
  return static_cast<std::size_t>(tensor.elements());
}

int rank_of(const NcclCommHandle& comm) {
  int rank = 0;
  check_nccl(ncclCommUserRank(comm.get(), &rank), "asking for the rank");
  return rank;
}

int size_of_group(const NcclCommHandle& comm) {
  int size = 0;
  check_nccl(ncclCommCount(comm.get(), &size), "asking for the number of ranks");
  return size;
}

}  // namespace

/// Events, all timed or none, that are used again once nothing refers to them: none is created after the
/// first steps.
class EventPool : public std::enable_shared_from_this<EventPool> {
 public:
  explicit EventPool(bool timed) : timed_(timed) {}

  std::shared_ptr<CudaEvent> take() {
    std::unique_ptr<CudaEvent> event;
    {
      const std::scoped_lock lock(mutex_);
      if (!free_.empty()) {
        event = std::move(free_.back());
        free_.pop_back();
      }
    }
    if (!event) event = std::make_unique<CudaEvent>(timed_);
    return {event.release(), [pool = shared_from_this()](CudaEvent* used) {
              const std::scoped_lock lock(pool->mutex_);
              pool->free_.emplace_back(used);
            }};
  }

 private:
  bool timed_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<CudaEvent>> free_;
};

/// From when an operation could begin and its rank stood still for it. Events that are timed cost
/// microseconds, more where a stream waits for them or a kernel of NCCL comes behind: nothing waits for these
/// or for a timed end, and none is recorded on the communicator's stream but the ends.
struct TimingEvents {
  explicit TimingEvents(EventPool& timed) : ready(timed.take()), held(timed.take()) {}
  std::shared_ptr<CudaEvent> ready;  ///< on the caller's stream: its work before the operation has ended
  std::shared_ptr<CudaEvent> held;   ///< on the stream that waits: from here it stands still
};

/// One operation by the events that order it.
class NcclOperation final : public DeviceOperation {
 public:
  /// On the GPU of this ordinal, behind the operation that ends at `previous`. Events come from `ordering`,
  /// those that `timing` asks for from `timed`.
  NcclOperation(int ordinal, NcclEnd previous, OperationTiming timing, EventPool& ordering, EventPool& timed)
      : ordinal_(ordinal),
        previous_(std::move(previous)),
        ready_(ordering.take()),
        end_{ordering.take(), timing.end ? timed.take() : nullptr} {
    if (timing.times) timing_events_.emplace(timed);
  }

  CudaEvent& ready() { return *ready_; }
  const NcclEnd& end() const { return end_; }
  /// If it is timed.
  const std::optional<TimingEvents>& timing_events() const { return timing_events_; }

  bool begun() const override {
    return passed(*ready_) && (!previous_.reached || passed(*previous_.reached));
  }
  bool done() const override { return passed(*end_.reached); }
  OperationTimes times(const Event& origin) const override {
    LLAMA3D_EXPECT(timing_events_, "the times of an operation that is not timed");
    end_.timed->synchronize();  // it comes behind the event that was waited for
    const double end = seconds_between(origin, *end_.timed);
    // Where the end before is not timed, the queue is taken to have been empty.
    double begin = seconds_between(origin, *timing_events_->ready);
    if (previous_.timed) begin = std::max(begin, seconds_between(origin, *previous_.timed));
    return {begin, end, std::max(0.0, seconds_between(*timing_events_->held, *end_.timed))};
  }

 private:
  bool passed(const CudaEvent& event) const {
    // A thread that has not named its GPU would start up another one. An error of the GPU is for the thread
    // that computes to report: nothing waits for other ranks then.
    return cudaSetDevice(ordinal_) != cudaSuccess || cudaEventQuery(event.handle()) != cudaErrorNotReady;
  }

  int ordinal_;
  NcclEnd previous_;
  std::shared_ptr<CudaEvent> ready_;  ///< on the caller's stream: its work before the operation
  NcclEnd end_;
  std::optional<TimingEvents> timing_events_;
};

namespace {

class NcclWork final : public Work {
 public:
  explicit NcclWork(std::shared_ptr<NcclOperation> operation) : operation_(std::move(operation)) {}
  void wait(Stream& stream) override {
    if (const auto& timing_events = operation_->timing_events()) stream.record(*timing_events->held);
    stream.wait(*operation_->end().reached);
  }
  std::shared_ptr<const DeviceOperation> device_operation() const override { return operation_; }

 private:
  std::shared_ptr<NcclOperation> operation_;
};

}  // namespace

NcclCommunicator::NcclCommunicator(NcclCommHandle comm, std::shared_ptr<NcclTakedown> takedown,
                                   CommunicationLog& log, int ordinal, StreamPriority priority)
    : Communicator(rank_of(comm), size_of_group(comm), log),
      takedown_(std::move(takedown)),
      comm_(std::move(comm)),
      ordinal_(ordinal),
      stream_(priority),
      events_(std::make_shared<EventPool>(/*timed=*/false)),
      timed_events_(std::make_shared<EventPool>(/*timed=*/true)) {}

NcclCommunicator::~NcclCommunicator() {
  if (std::uncaught_exceptions() > 0) return;
  if (aborted_) {
    comm_.detach();
    return;
  }
  for (const ncclWindow_t window : windows_) ncclCommWindowDeregister(comm_.get(), window);
  takedown_->add(std::move(comm_), ordinal_);
}

void NcclCommunicator::do_register_memory(const Tensor& memory) {
  if (memory.bytes() == 0) return;
  ncclWindow_t window = nullptr;
  check_nccl(
      ncclCommWindowRegister(comm_.get(), memory.data(), memory.bytes(), &window, NCCL_WIN_COLL_SYMMETRIC),
      "registering memory with NCCL");
  if (window) windows_.push_back(window);
}

void NcclCommunicator::do_unregister_memory() {
  for (const ncclWindow_t window : std::exchange(windows_, {}))
    check_nccl(ncclCommWindowDeregister(comm_.get(), window), "taking memory back from NCCL");
}

std::optional<std::string> NcclCommunicator::asynchronous_failure() {
  // Whoever aborts may be held up, and the watchdog asks this.
  const std::unique_lock lock(abort_mutex_, std::try_to_lock);
  if (!lock || aborted_) return std::nullopt;
  ncclResult_t status = ncclSuccess;
  const ncclResult_t asked = ncclCommGetAsyncError(comm_.get(), &status);
  if (asked != ncclSuccess) status = asked;
  if (status == ncclSuccess || status == ncclInProgress) return std::nullopt;
  return words_of(status, comm_.get());
}

void NcclCommunicator::abort() {
  const std::scoped_lock lock(abort_mutex_);
  if (std::exchange(aborted_, true)) return;
  cudaSetDevice(ordinal_);  // in a thread of its own; without, NCCL would start up the first GPU
  ncclCommAbort(comm_.get());
}

template <class Call>
WorkHandle NcclCommunicator::launch(Stream& stream, Call&& call) {
  auto operation = std::make_shared<NcclOperation>(ordinal_, last_end_, timing(), *events_, *timed_events_);
  if (const auto& timing_events = operation->timing_events()) stream.record(*timing_events->ready);
  stream.record(operation->ready());
  stream_.wait(operation->ready());
  call(stream_.handle());
  last_end_ = operation->end();
  stream_.record(*last_end_.reached);
  if (last_end_.timed) stream_.record(*last_end_.timed);
  return std::make_unique<NcclWork>(std::move(operation));
}

WorkHandle NcclCommunicator::do_all_reduce(const Tensor& tensor, ReduceOperation operation, Stream& stream) {
  return launch(stream, [&](cudaStream_t queue) {
    check_nccl(ncclAllReduce(tensor.data(), tensor.data(), count_of(tensor), type_of(tensor.dtype()),
                             operation_of(operation), comm_.get(), queue),
               "ncclAllReduce");
  });
}

WorkHandle NcclCommunicator::do_all_gather(const Tensor& in, const Tensor& out, Stream& stream) {
  return launch(stream, [&](cudaStream_t queue) {
    check_nccl(ncclAllGather(in.data(), out.data(), count_of(in), type_of(in.dtype()), comm_.get(), queue),
               "ncclAllGather");
  });
}

WorkHandle NcclCommunicator::do_reduce_scatter(const Tensor& in, const Tensor& out, Stream& stream) {
  return launch(stream, [&](cudaStream_t queue) {
    check_nccl(ncclReduceScatter(in.data(), out.data(), count_of(out), type_of(in.dtype()), ncclSum,
                                 comm_.get(), queue),
               "ncclReduceScatter");
  });
}

WorkHandle NcclCommunicator::do_broadcast(const Tensor& tensor, int root, Stream& stream) {
  return launch(stream, [&](cudaStream_t queue) {
    check_nccl(ncclBroadcast(tensor.data(), tensor.data(), count_of(tensor), type_of(tensor.dtype()), root,
                             comm_.get(), queue),
               "ncclBroadcast");
  });
}

WorkHandle NcclCommunicator::do_exchange(std::span<const Transfer> transfers, Stream& stream) {
  return launch(stream, [&](cudaStream_t queue) {
    check_nccl(ncclGroupStart(), "ncclGroupStart");
    for (const Transfer& transfer : transfers) {
      const Tensor& tensor = transfer.tensor;
      const bool sends = transfer.direction == Transfer::Direction::send;
      check_nccl(sends ? ncclSend(tensor.data(), count_of(tensor), type_of(tensor.dtype()), transfer.peer,
                                  comm_.get(), queue)
                       : ncclRecv(tensor.data(), count_of(tensor), type_of(tensor.dtype()), transfer.peer,
                                  comm_.get(), queue),
                 sends ? "ncclSend" : "ncclRecv");
    }
    check_nccl(ncclGroupEnd(), "ncclGroupEnd");
  });
}

}  // namespace llama3d::cuda
