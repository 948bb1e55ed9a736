#include "mpi/communicator.hpp"

#include <chrono>
#include <functional>
#include <utility>

#include "base/error.hpp"

namespace llama3d {
namespace {

class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(Clock::now() - begin_).count(); }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point begin_ = Clock::now();
};

/// Adds the host's time in `wait` to the label's record, and holds callers to waiting once.
class LoggedWork final : public Work {
 public:
  LoggedWork(WorkHandle work, Label label, CommunicationLog& log)
      : work_(std::move(work)), label_(label), log_(&log) {}

  void wait(Stream& stream) override {
    LLAMA3D_EXPECT(work_ != nullptr, "{} is waited for a second time", label_.name);
    const Stopwatch watch;
    log_->enter(label_);
    work_->wait(stream);
    work_.reset();
    log_->leave();
    log_->add_wait(label_, watch.seconds());
  }

 private:
  WorkHandle work_;
  Label label_;
  CommunicationLog* log_;
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

void CommunicationLog::add(Label label, std::int64_t bytes, double seconds) {
  LabelRecord& record = records_[label];
  ++record.calls;
  record.bytes += bytes;
  record.seconds += seconds;
}

void CommunicationLog::add_wait(Label label, double seconds) {
  records_[label].seconds += seconds;
}

LabelRecord CommunicationLog::record(Label label) const {
  const auto found = records_.find(label);
  return found == records_.end() ? LabelRecord{} : found->second;
}

template <class Start>
WorkHandle Communicator::logged(Label label, std::int64_t bytes, Start&& start) {
  const Stopwatch watch;
  log_->enter(label);
  WorkHandle work = start();
  log_->leave();
  log_->add(label, bytes, watch.seconds());
  return std::make_unique<LoggedWork>(std::move(work), label, *log_);
}

WorkHandle Communicator::all_reduce(const Tensor& tensor, ReduceOperation operation, Label label,
                                    Stream& stream) {
  LLAMA3D_EXPECT(tensor, "{}: a tensor is missing", label.name);
  return logged(label, 2 * (size_ - 1) * bytes_of(tensor) / size_,
                [&] { return do_all_reduce(tensor, operation, stream); });
}

WorkHandle Communicator::all_gather(const Tensor& in, const Tensor& out, Label label, Stream& stream) {
  expect_slice(in, out, rank_, size_, label);
  return logged(label, (size_ - 1) * bytes_of(in), [&] { return do_all_gather(in, out, stream); });
}

WorkHandle Communicator::reduce_scatter(const Tensor& in, const Tensor& out, Label label, Stream& stream) {
  expect_slice(out, in, rank_, size_, label);
  return logged(label, (size_ - 1) * bytes_of(out), [&] { return do_reduce_scatter(in, out, stream); });
}

WorkHandle Communicator::broadcast(const Tensor& tensor, int root, Label label, Stream& stream) {
  LLAMA3D_EXPECT(tensor, "{}: a tensor is missing", label.name);
  LLAMA3D_EXPECT(0 <= root && root < size_, "{}: root {} of {} ranks", label.name, root, size_);
  return logged(label, (size_ - 1) * bytes_of(tensor) / size_,
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
  return logged(label, sent, [&] { return do_exchange(transfers, stream); });
}

}  // namespace llama3d
