#include "comm/communicator.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <system_error>
#include <thread>
#include <utility>

#include "base/error.hpp"
#include "comm/labels.hpp"

namespace llama3d {
namespace {

/// Times an operation and holds callers to waiting once. The host was held by the start and by the wait; a
/// device's own times replace that where it has some.
class LoggedWork final : public Work {
 public:
  /// With what a device was to time. A group of one has nothing to time.
  LoggedWork(WorkHandle work, Label label, CommunicationLog& log, double begin, bool alone,
             OperationTiming timing)
      : work_(std::move(work)),
        label_(label),
        log_(&log),
        alone_(alone),
        timing_(timing),
        begin_(begin),
        held_(CommunicationLog::now() - begin) {}

  void wait(Stream& stream) override {
    LLAMA3D_EXPECT(work_ != nullptr, "{} is waited for a second time", label_.name);
    const double wait_begin = CommunicationLog::now();
    log_->activity().during(label_, [&] { work_->wait(stream); });
    const double end = CommunicationLog::now();
    if (auto operation = work_->device_operation()) {
      if (timing_.times) log_->interval().time(label_, timing_.in_sample, std::move(operation));
    } else if (!alone_) {
      log_->interval().time(label_, {begin_, end, held_ + end - wait_begin});
    }
    work_.reset();
  }

 private:
  WorkHandle work_;
  Label label_;
  CommunicationLog* log_;
  bool alone_;
  OperationTiming timing_;
  double begin_, held_;
};

/// Whether two tensors share memory. Tensors of a measuring arena have no memory to share.
bool overlap(const Tensor& a, const Tensor& b) {
  if (!a.data() || !b.data() || a.bytes() == 0 || b.bytes() == 0) return false;
  const auto* a_begin = static_cast<const std::byte*>(a.data());
  const auto* b_begin = static_cast<const std::byte*>(b.data());
  const std::less<const std::byte*> before;
  return before(a_begin, b_begin + b.bytes()) && before(b_begin, a_begin + a.bytes());
}

/// Checks that `whole` is `size` times `slice`, and that they share no memory unless slice is whole's own
/// one.
void expect_slice(const Tensor& slice, const Tensor& whole, int rank, int size, Label label) {
  LLAMA3D_EXPECT(slice && whole, "{}: a tensor is missing", label.name);
  LLAMA3D_EXPECT(slice.dtype() == whole.dtype(), "{}: {} and {}", label.name, name_of(slice.dtype()),
                 name_of(whole.dtype()));
  LLAMA3D_EXPECT(whole.elements() == slice.elements() * size, "{}: {} elements a rank and {} for {} ranks",
                 label.name, slice.elements(), whole.elements(), size);
  if (!overlap(slice, whole)) return;
  const auto* own =
      static_cast<const std::byte*>(whole.data()) + static_cast<std::size_t>(rank) * slice.bytes();
  LLAMA3D_EXPECT(slice.data() == own, "{}: in and out overlap other than by rank {}'s own slice", label.name,
                 rank);
}

std::int64_t bytes_of(const Tensor& tensor) {
  return static_cast<std::int64_t>(tensor.bytes());
}

}  // namespace

template <class Start>
WorkHandle Communicator::logged(Label label, std::int64_t bytes, Stream& stream, Start&& start) {
  const WorkRange range(stream, label.name.data());
  const double begin = CommunicationLog::now();
  timing_ = log_->start(label, bytes);
  WorkHandle work;
  log_->activity().during(label, [&] { work = start(); });
  if (auto operation = work->device_operation()) log_->activity().started(this, label, std::move(operation));
  return std::make_unique<LoggedWork>(std::move(work), label, *log_, begin, size_ == 1, timing_);
}

WorkHandle Communicator::all_reduce(const Tensor& tensor, ReduceOperation operation, Label label,
                                    Stream& stream) {
  LLAMA3D_EXPECT(tensor, "{}: a tensor is missing", label.name);
  return logged(label, 2 * (size_ - 1) * bytes_of(tensor) / size_, stream,
                [&] { return do_all_reduce(tensor, operation, stream); });
}

WorkHandle Communicator::all_gather(const Tensor& in, const Tensor& out, Label label, Stream& stream) {
  expect_slice(in, out, rank_, size_, label);
  return logged(label, (size_ - 1) * bytes_of(in), stream, [&] { return do_all_gather(in, out, stream); });
}

WorkHandle Communicator::reduce_scatter(const Tensor& in, const Tensor& out, Label label, Stream& stream) {
  expect_slice(out, in, rank_, size_, label);
  return logged(label, (size_ - 1) * bytes_of(out), stream,
                [&] { return do_reduce_scatter(in, out, stream); });
}

WorkHandle Communicator::broadcast(const Tensor& tensor, int root, Label label, Stream& stream) {
  LLAMA3D_EXPECT(tensor, "{}: a tensor is missing", label.name);
  LLAMA3D_EXPECT(0 <= root && root < size_, "{}: root {} of {} ranks", label.name, root, size_);
  return logged(label, (size_ - 1) * bytes_of(tensor) / size_, stream,
                [&] { return do_broadcast(tensor, root, stream); });
}

WorkHandle Communicator::exchange(std::span<const Transfer> transfers, Label label, Stream& stream) {
  std::int64_t sent = 0;
  for (const Transfer& transfer : transfers) {
    LLAMA3D_EXPECT(transfer.tensor, "{}: a tensor is missing", label.name);
    LLAMA3D_EXPECT(0 <= transfer.peer && transfer.peer < size_ && transfer.peer != rank_,
                   "{}: rank {} exchanges with rank {} of {}", label.name, rank_, transfer.peer, size_);
    if (transfer.direction == Transfer::Direction::send) sent += bytes_of(transfer.tensor);
  }
  return logged(label, sent, stream, [&] { return do_exchange(transfers, stream); });
}

std::shared_ptr<const DeviceOperation> Work::device_operation() const {
  return nullptr;
}

void Communicator::register_memory(const Tensor& memory) {
  activity().during(labels::control_register, [&] { do_register_memory(memory); });
}

void Communicator::unregister_memory() {
  activity().during(labels::control_register, [&] { do_unregister_memory(); });
}

void Communicator::do_register_memory(const Tensor&) {}

void Communicator::do_unregister_memory() {}

std::optional<std::string> Communicator::asynchronous_failure() {
  return std::nullopt;
}

void Communicator::abort() {}

bool abort_all(const std::vector<Communicator*>& communicators, double seconds) {
  struct Progress {
    std::atomic<std::size_t> left;
    std::promise<void> done;
  };
  if (communicators.empty()) return true;
  const auto progress = std::make_shared<Progress>();
  progress->left = communicators.size();
  auto all_done = progress->done.get_future();
  try {
    for (Communicator* communicator : communicators)
      std::thread([communicator, progress] {
        communicator->abort();
        if (--progress->left == 0) progress->done.set_value();
      }).detach();
  } catch (const std::system_error&) {
    return false;  // no thread to spare
  }
  return all_done.wait_for(std::chrono::duration<double>(seconds)) == std::future_status::ready;
}

namespace {

std::size_t index_of(Axis axis) {
  const auto* const found = std::ranges::find(collective_axes, axis);
  LLAMA3D_EXPECT(found != collective_axes.end(), "{} has no one communicator", name_of(axis));
  return static_cast<std::size_t>(found - collective_axes.begin());
}

}  // namespace

Communicator& GridCommunicators::operator[](Axis axis) const {
  const auto& communicator = by_axis_[index_of(axis)];
  LLAMA3D_EXPECT(communicator, "the communicator of {} is missing", name_of(axis));
  return *communicator;
}

void GridCommunicators::set(Axis axis, std::unique_ptr<Communicator> communicator) {
  by_axis_[index_of(axis)] = std::move(communicator);
}

std::vector<Communicator*> GridCommunicators::all() const {
  std::vector<Communicator*> members;
  const auto add = [&](const std::unique_ptr<Communicator>& member) {
    if (member) members.push_back(member.get());
  };
  add(world);
  std::ranges::for_each(by_axis_, add);
  for (const auto* member : {&pp_forward, &pp_backward, &embedding}) add(*member);
  return members;
}

}  // namespace llama3d
