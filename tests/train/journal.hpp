#pragma once
// A machine that writes down in which order it is given GEMMs and communication.

#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "comm/communicator.hpp"
#include "comm/recording_communicator.hpp"
#include "compute/host/host_device.hpp"
#include "compute/host/host_kernels.hpp"
#include "mpi/mpi_session.hpp"

namespace llama3d::test {

struct JournalEntry {
  enum class What { start, wait, gemm };
  What what;
  std::string
      operation;     ///< "dp.all_gather", "tp.reduce_scatter", ...; "forward", "input", "weight" of a GEMM
  const void* data;  ///< whole tensor of a communication; weight of a GEMM, or its gradient
  int number;        ///< of a communication: the same for its start and its wait
};
using Journal = std::vector<JournalEntry>;

/// Computes on one thread of the host, and notes GEMMs.
class JournalKernels final : public host::HostKernels {
 public:
  explicit JournalKernels(Journal& journal) : HostKernels(1), journal_(&journal) {}

 protected:
  void do_linear_forward(const GemmOperand& x, const GemmOperand& w, const Tensor& y,
                         Stream& stream) override {
    note("forward", w.tensor);
    HostKernels::do_linear_forward(x, w, y, stream);
  }
  void do_linear_backward_input(const GemmOperand& dy, const GemmOperand& w, const Tensor& dx,
                                Stream& stream) override {
    note("input", w.tensor);
    HostKernels::do_linear_backward_input(dy, w, dx, stream);
  }
  void do_linear_backward_weight(const GemmOperand& dy, const GemmOperand& x, const Tensor& dw,
                                 Stream& stream) override {
    note("weight", dw);
    HostKernels::do_linear_backward_weight(dy, x, dw, stream);
  }

 private:
  void note(const char* pass, const Tensor& weight) {
    journal_->push_back({JournalEntry::What::gemm, pass, weight.data(), -1});
  }
  Journal* journal_;
};

/// The host, said to be asynchronous as a GPU is: what works beside it may be waited for later. Where
/// `measured` holds seconds, they are what is measured next between events.
class JournalDevice final : public Device {
 public:
  explicit JournalDevice(Journal& journal) : kernels_(journal) {}
  mutable std::deque<double> measured;

  std::string kind() const override { return host_->kind(); }
  std::string name() const override { return host_->name(); }
  std::optional<double> peak_flops(DType dtype) const override { return host_->peak_flops(dtype); }
  std::string peak_source() const override { return host_->peak_source(); }
  std::size_t memory_bytes() const override { return host_->memory_bytes(); }
  std::size_t memory_in_use() const override { return host_->memory_in_use(); }
  bool asynchronous() const override { return true; }
  Kernels& kernels() override { return kernels_; }
  std::unique_ptr<Stream> create_stream(StreamPriority priority) override {
    return host_->create_stream(priority);
  }
  std::unique_ptr<Event> create_event() override { return host_->create_event(); }
  double elapsed_seconds(const Event& begin, const Event& end) const override {
    if (measured.empty()) return host_->elapsed_seconds(begin, end);
    const double seconds = measured.front();
    measured.pop_front();
    return seconds;
  }
  DeviceMemory allocate(std::size_t bytes) override { return host_->allocate(bytes); }
  DeviceMemory allocate_host(std::size_t bytes) override { return host_->allocate_host(bytes); }
  void upload(const Tensor& to, const void* from, Stream& stream) override {
    host_->upload(to, from, stream);
  }
  void download(void* to, const Tensor& from, Stream& stream) override { host_->download(to, from, stream); }

 private:
  std::unique_ptr<Device> host_ = make_host_device(1);
  JournalKernels kernels_;
};

/// Moves nothing, and notes when collectives start and are waited for.
class JournalCommunicator final : public Communicator {
 public:
  JournalCommunicator(std::string name, Journal& journal, int rank, int size, CommunicationLog& log)
      : Communicator(rank, size, log), name_(std::move(name)), journal_(&journal) {}

 protected:
  WorkHandle do_all_reduce(const Tensor& tensor, ReduceOperation, Stream&) override {
    return start("all_reduce", tensor);
  }
  WorkHandle do_all_gather(const Tensor&, const Tensor& out, Stream&) override {
    return start("all_gather", out);
  }
  WorkHandle do_reduce_scatter(const Tensor& in, const Tensor&, Stream&) override {
    return start("reduce_scatter", in);
  }
  WorkHandle do_broadcast(const Tensor& tensor, int, Stream&) override { return start("broadcast", tensor); }
  WorkHandle do_exchange(std::span<const Transfer> transfers, Stream&) override {
    return start("exchange", transfers.front().tensor);
  }

 private:
  class JournalWork final : public Work {
   public:
    JournalWork(Journal& journal, JournalEntry entry) : journal_(&journal), entry_(std::move(entry)) {}
    void wait(Stream&) override { journal_->push_back(entry_); }

   private:
    Journal* journal_;
    JournalEntry entry_;
  };
  WorkHandle start(const char* operation, const Tensor& whole) {
    JournalEntry entry{JournalEntry::What::start, name_ + "." + operation, whole.data(), started_++};
    journal_->push_back(entry);
    entry.what = JournalEntry::What::wait;
    return std::make_unique<JournalWork>(*journal_, std::move(entry));
  }

  std::string name_;
  Journal* journal_;
  int started_ = 0;
};

/// Of a grid's rank whose collective groups note what they do.
inline std::unique_ptr<GridCommunicators> make_journal_communicators(const ProcessGrid& grid,
                                                                     Journal& journal) {
  auto groups = make_recording_communicators(grid);
  for (const Axis axis : collective_axes)
    if (grid.size(axis) > 1)
      groups->set(axis, std::make_unique<JournalCommunicator>(std::string(name_of(axis)), journal,
                                                              grid.rank(axis), grid.size(axis), groups->log));
  return groups;
}

}  // namespace llama3d::test
