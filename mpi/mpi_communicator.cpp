#include "mpi/mpi_communicator.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.hpp"
#include "comm/finished_work.hpp"

namespace llama3d {
namespace {

/// One tag for all: the order of messages between two ranks is their meaning.
constexpr int transfer_tag = 0;

extern "C" void llama3d_bf16_sum(void* in, void* inout, int* length, MPI_Datatype*) {
  const auto* a = static_cast<const bf16*>(in);
  auto* b = static_cast<bf16*>(inout);
  for (int i = 0; i < *length; ++i) b[i] = bf16(static_cast<float>(a[i]) + static_cast<float>(b[i]));
}

extern "C" void llama3d_bf16_max(void* in, void* inout, int* length, MPI_Datatype*) {
  const auto* a = static_cast<const bf16*>(in);
  auto* b = static_cast<bf16*>(inout);
  for (int i = 0; i < *length; ++i)
    if (static_cast<float>(a[i]) > static_cast<float>(b[i])) b[i] = a[i];
}

OpHandle create_operation(MPI_User_function* function) {
  MPI_Op operation = MPI_OP_NULL;
  check_mpi(MPI_Op_create(function, /*commute=*/1, &operation), "MPI_Op_create");
  return OpHandle(operation);
}

MPI_Datatype type_of(DType dtype) {
  switch (dtype) {
    case DType::fp32: return MPI_FLOAT;
    case DType::bf16: return MPI_UINT16_T;  // two bytes to MPI; sums and maxima have operations of their own
    case DType::fp64: return MPI_DOUBLE;
    case DType::int32: return MPI_INT32_T;
  }
  return MPI_DATATYPE_NULL;
}

std::byte* at(const Tensor& tensor, std::int64_t element) {
  return static_cast<std::byte*>(tensor.data()) + static_cast<std::size_t>(element) * size_of(tensor.dtype());
}

int rank_in(const CommHandle& comm) {
  int rank = 0;
  check_mpi(MPI_Comm_rank(comm.get(), &rank), "MPI_Comm_rank");
  return rank;
}

int size_of_group(const CommHandle& comm) {
  int size = 0;
  check_mpi(MPI_Comm_size(comm.get(), &size), "MPI_Comm_size");
  return size;
}

/// Calls visit(first element, elements) for each piece.
template <class Visit>
void for_pieces(std::int64_t elements, std::int64_t limit, Visit&& visit) {
  for (std::int64_t first = 0; first < elements; first += limit)
    visit(first, static_cast<int>(std::min(limit, elements - first)));
}

/// Requests of one operation, and what it needs until they are done. Destroyed without a wait (only while an
/// exception ends the run) it leaves the requests to MPI and its scratch busy.
class MpiWork final : public Work {
 public:
  explicit MpiWork(const char* call) : call_(call) {}

  /// Where the next MPI call puts its request.
  MPI_Request* request() { return &requests_.emplace_back(MPI_REQUEST_NULL); }
  void keep(TypeHandle type) { types_.push_back(std::move(type)); }
  /// When done, `scratch` holds the contents of `out`.
  void finish_by_copy(ScratchBuffer& scratch, const Tensor& out) {
    scratch_ = &scratch;
    out_ = out;
  }

  void wait(Stream&) override {
    wait_all(requests_, call_);
    types_.clear();
    if (!scratch_) return;
    std::memcpy(out_.data(), scratch_->memory.get(), out_.bytes());
    scratch_->busy = false;
  }

 private:
  const char* call_;
  std::vector<MPI_Request> requests_;
  std::vector<TypeHandle> types_;
  ScratchBuffer* scratch_ = nullptr;
  Tensor out_;
};

/// `elements` elements of `dtype`, the next such group `stride_elements` later.
TypeHandle strided_type(DType dtype, int elements, std::int64_t stride_elements) {
  MPI_Datatype run = MPI_DATATYPE_NULL, strided = MPI_DATATYPE_NULL;
  check_mpi(MPI_Type_contiguous(elements, type_of(dtype), &run), "MPI_Type_contiguous");
  const TypeHandle run_owner(run);
  const auto stride = static_cast<MPI_Aint>(stride_elements * static_cast<std::int64_t>(size_of(dtype)));
  check_mpi(MPI_Type_create_resized(run, 0, stride, &strided), "MPI_Type_create_resized");
  TypeHandle owner(strided);
  check_mpi(MPI_Type_commit(&strided), "MPI_Type_commit");
  return owner;
}

}  // namespace

MpiCommunicator::MpiCommunicator(CommHandle comm, CommunicationLog& log, std::int64_t piece_elements)
    : Communicator(rank_in(comm), size_of_group(comm), log),
      comm_(std::move(comm)),
      piece_elements_(piece_elements),
      bf16_sum_(create_operation(llama3d_bf16_sum)),
      bf16_max_(create_operation(llama3d_bf16_max)) {
  LLAMA3D_EXPECT(0 < piece_elements && piece_elements <= default_piece_elements, "pieces of {}",
                 piece_elements);
}

MpiCommunicator::~MpiCommunicator() = default;

MPI_Op MpiCommunicator::operation_for(ReduceOperation operation, DType dtype) const {
  const bool sum = operation == ReduceOperation::sum;
  if (dtype == DType::bf16) return sum ? bf16_sum_.get() : bf16_max_.get();
  return sum ? MPI_SUM : MPI_MAX;
}

ScratchBuffer& MpiCommunicator::take_scratch(std::size_t bytes) {
  // The smallest free buffer that is large enough, else the largest free one, grown.
  ScratchBuffer* best = nullptr;
  for (const auto& buffer : scratch_) {
    if (buffer->busy) continue;
    const bool fits = buffer->bytes >= bytes;
    if (!best || (fits ? best->bytes < bytes || buffer->bytes < best->bytes : best->bytes < buffer->bytes))
      best = buffer.get();
  }
  if (!best) best = scratch_.emplace_back(std::make_unique<ScratchBuffer>()).get();
  if (best->bytes < bytes) {
    best->memory = std::make_unique_for_overwrite<std::byte[]>(bytes);
    best->bytes = bytes;
  }
  best->busy = true;
  return *best;
}

WorkHandle MpiCommunicator::do_all_reduce(const Tensor& tensor, ReduceOperation operation, Stream& stream) {
  stream.synchronize();
  auto work = std::make_unique<MpiWork>("MPI_Iallreduce");
  for_pieces(tensor.elements(), piece_elements_, [&](std::int64_t first, int count) {
    check_mpi(MPI_Iallreduce(MPI_IN_PLACE, at(tensor, first), count, type_of(tensor.dtype()),
                             operation_for(operation, tensor.dtype()), comm_.get(), work->request()),
              "MPI_Iallreduce");
  });
  return work;
}

WorkHandle MpiCommunicator::do_all_gather(const Tensor& in, const Tensor& out, Stream& stream) {
  stream.synchronize();
  if (out.elements() == 0) return std::make_unique<FinishedWork>();
  if (out.elements() > piece_elements_) return gather_in_pieces(in, out);
  auto work = std::make_unique<MpiWork>("MPI_Iallgather");
  const void* send = in.data() == at(out, rank() * in.elements()) ? MPI_IN_PLACE : in.data();
  const int count = static_cast<int>(in.elements());
  check_mpi(MPI_Iallgather(send, count, type_of(in.dtype()), out.data(), count, type_of(in.dtype()),
                           comm_.get(), work->request()),
            "MPI_Iallgather");
  return work;
}

WorkHandle MpiCommunicator::gather_in_pieces(const Tensor& in, const Tensor& out) {
  auto work = std::make_unique<MpiWork>("MPI_Iallgather");
  const bool in_place = in.data() == at(out, rank() * in.elements());
  for_pieces(in.elements(), piece_elements_, [&](std::int64_t first, int count) {
    TypeHandle type = strided_type(in.dtype(), count, in.elements());
    const void* send = in_place ? MPI_IN_PLACE : at(in, first);
    check_mpi(MPI_Iallgather(send, count, type_of(in.dtype()), at(out, first), 1, type.get(), comm_.get(),
                             work->request()),
              "MPI_Iallgather");
    work->keep(std::move(type));
  });
  return work;
}

WorkHandle MpiCommunicator::do_reduce_scatter(const Tensor& in, const Tensor& out, Stream& stream) {
  stream.synchronize();
  if (in.elements() == 0) return std::make_unique<FinishedWork>();
  if (in.elements() > piece_elements_) return reduce_slices_in_pieces(in, out);
  auto work = std::make_unique<MpiWork>("MPI_Ireduce_scatter_block");
  void* receive = out.data();
  if (out.data() == at(in, rank() * out.elements())) {
    // MPI's own in-place form wants the result at the start of the buffer.
    ScratchBuffer& scratch = take_scratch(out.bytes());
    receive = scratch.memory.get();
    work->finish_by_copy(scratch, out);
  }
  check_mpi(MPI_Ireduce_scatter_block(in.data(), receive, static_cast<int>(out.elements()),
                                      type_of(in.dtype()), operation_for(ReduceOperation::sum, in.dtype()),
                                      comm_.get(), work->request()),
            "MPI_Ireduce_scatter_block");
  return work;
}

WorkHandle MpiCommunicator::reduce_slices_in_pieces(const Tensor& in, const Tensor& out) {
  auto work = std::make_unique<MpiWork>("MPI_Ireduce");
  const bool in_place = out.data() == at(in, rank() * out.elements());
  for (int root = 0; root < size(); ++root) {
    for_pieces(out.elements(), piece_elements_, [&](std::int64_t first, int count) {
      const bool mine = root == rank();
      const void* send = mine && in_place ? MPI_IN_PLACE : at(in, root * out.elements() + first);
      check_mpi(
          MPI_Ireduce(send, mine ? at(out, first) : nullptr, count, type_of(in.dtype()),
                      operation_for(ReduceOperation::sum, in.dtype()), root, comm_.get(), work->request()),
          "MPI_Ireduce");
    });
  }
  return work;
}

WorkHandle MpiCommunicator::do_broadcast(const Tensor& tensor, int root, Stream& stream) {
  stream.synchronize();
  auto work = std::make_unique<MpiWork>("MPI_Ibcast");
  for_pieces(tensor.elements(), piece_elements_, [&](std::int64_t first, int count) {
    check_mpi(
        MPI_Ibcast(at(tensor, first), count, type_of(tensor.dtype()), root, comm_.get(), work->request()),
        "MPI_Ibcast");
  });
  return work;
}

WorkHandle MpiCommunicator::do_exchange(std::span<const Transfer> transfers, Stream& stream) {
  stream.synchronize();
  auto work = std::make_unique<MpiWork>("MPI_Isend or MPI_Irecv");
  const auto start = [&](Transfer::Direction direction) {
    for (const Transfer& transfer : transfers) {
      if (transfer.direction != direction) continue;
      const Tensor& tensor = transfer.tensor;
      for_pieces(tensor.elements(), piece_elements_, [&](std::int64_t first, int count) {
        const MPI_Datatype type = type_of(tensor.dtype());
        if (direction == Transfer::Direction::receive)
          check_mpi(MPI_Irecv(at(tensor, first), count, type, transfer.peer, transfer_tag, comm_.get(),
                              work->request()),
                    "MPI_Irecv");
        else
          check_mpi(MPI_Isend(at(tensor, first), count, type, transfer.peer, transfer_tag, comm_.get(),
                              work->request()),
                    "MPI_Isend");
      });
    }
  };
  // Receives first, so that messages find their place when they come.
  start(Transfer::Direction::receive);
  start(Transfer::Direction::send);
  return work;
}

}  // namespace llama3d
