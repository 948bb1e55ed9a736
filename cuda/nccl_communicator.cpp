#include "cuda/nccl_communicator.hpp"

#include <exception>
#include <utility>

#include "cuda/check.hpp"

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

/// The moments of one operation.
struct OperationEvents {
  CudaEvent ready;                 ///< on the caller's stream: what the operation waits for on this rank
  CudaEvent begin, end;            ///< on the communicator's stream
  CudaEvent held_begin, held_end;  ///< on the stream that waits: computing stands still in between
};

class OperationPool {
 public:
  explicit OperationPool(int ordinal) : ordinal_(ordinal) {}

  std::unique_ptr<OperationEvents> take() {
    const std::scoped_lock lock(mutex_);
    if (free_.empty()) return std::make_unique<OperationEvents>();
    auto events = std::move(free_.back());
    free_.pop_back();
    return events;
  }
  void give(std::unique_ptr<OperationEvents> events) {
    const std::scoped_lock lock(mutex_);
    free_.push_back(std::move(events));
  }
  int ordinal() const { return ordinal_; }

 private:
  int ordinal_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<OperationEvents>> free_;
};

class NcclOperation final : public DeviceOperation {
 public:
  explicit NcclOperation(std::shared_ptr<OperationPool> pool)
      : pool_(std::move(pool)), events_(pool_->take()) {}
  ~NcclOperation() override { pool_->give(std::move(events_)); }

  OperationEvents& events() { return *events_; }
  bool begun() const override { return passed(events_->begin); }
  bool done() const override { return passed(events_->end); }
  OperationTimes times(const Event& origin) const override {
    const auto after_origin = [&](const CudaEvent& event) { return seconds_between(origin, event); };
    return {after_origin(events_->begin), after_origin(events_->end),
            seconds_between(events_->held_begin, events_->held_end)};
  }

 private:
  bool passed(const CudaEvent& event) const {
    // A thread that has not named its GPU would start up another one. An error of the GPU is for the thread
    // that computes to report: nothing waits for other ranks then.
    return cudaSetDevice(pool_->ordinal()) != cudaSuccess ||
           cudaEventQuery(event.handle()) != cudaErrorNotReady;
  }

  std::shared_ptr<OperationPool> pool_;
  std::unique_ptr<OperationEvents> events_;
};

namespace {

class NcclWork final : public Work {
 public:
  explicit NcclWork(std::shared_ptr<NcclOperation> operation) : operation_(std::move(operation)) {}
  void wait(Stream& stream) override {
    OperationEvents& events = operation_->events();
    stream.record(events.held_begin);
    stream.wait(events.end);
    stream.record(events.held_end);
  }
  std::shared_ptr<const DeviceOperation> device_operation() const override { return operation_; }

 private:
  std::shared_ptr<NcclOperation> operation_;
};

}  // namespace

NcclCommunicator::NcclCommunicator(NcclCommHandle comm, CommunicationLog& log, int ordinal,
                                   StreamPriority priority)
    : Communicator(rank_of(comm), size_of_group(comm), log),
      comm_(std::move(comm)),
      stream_(priority),
      pool_(std::make_shared<OperationPool>(ordinal)) {}

NcclCommunicator::~NcclCommunicator() {
  if (std::uncaught_exceptions() > 0) return;
  if (aborted_) {
    comm_.detach();
    return;
  }
  for (void* registration : registrations_) ncclCommDeregister(comm_.get(), registration);
}

void NcclCommunicator::register_memory(const Tensor& memory) {
  if (memory.bytes() == 0) return;
  void* registration = nullptr;
  check_nccl(ncclCommRegister(comm_.get(), memory.data(), memory.bytes(), &registration),
             "registering memory with NCCL");
  if (registration) registrations_.push_back(registration);
}

std::optional<std::string> NcclCommunicator::asynchronous_failure() {
  const std::scoped_lock lock(abort_mutex_);
  if (aborted_) return std::nullopt;
  ncclResult_t status = ncclSuccess;
  const ncclResult_t asked = ncclCommGetAsyncError(comm_.get(), &status);
  if (asked != ncclSuccess) status = asked;
  if (status == ncclSuccess || status == ncclInProgress) return std::nullopt;
  return words_of(status, comm_.get());
}

void NcclCommunicator::abort() {
  const std::scoped_lock lock(abort_mutex_);
  if (!std::exchange(aborted_, true)) ncclCommAbort(comm_.get());
}

template <class Call>
WorkHandle NcclCommunicator::launch(Stream& stream, Call&& call) {
  auto operation = std::make_shared<NcclOperation>(pool_);
  OperationEvents& events = operation->events();
  stream.record(events.ready);
  stream_.wait(events.ready);
  stream_.record(events.begin);
  call(stream_.handle());
  stream_.record(events.end);
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
