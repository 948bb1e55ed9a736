#pragma once
// MPI calls as the rest of this module uses them: errors become exceptions, handles have owners, and waiting
// leaves the processor to others.

#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include <span>

#include "base/unique_handle.hpp"

namespace llama3d {

/// Throws RankLostError with MPI's own words unless `code`, returned by `call`, is MPI_SUCCESS.
void check_mpi(int code, const char* call);

/// Waits until all requests are done: tests some hundred times, yielding the processor in between, then
/// sleeps between tests. `call` started them, for the message when one failed.
void wait_all(std::span<MPI_Request> requests, const char* call);

/// Whether MPI is initialized and not yet finalized, and no exception is unwinding this thread. A rank that
/// unwinds alone leaves its handles to the end of the process: releasing them may wait for ranks that will
/// not come.
bool may_release_handles() noexcept;

struct CommTraits {
  using Handle = MPI_Comm;
  static inline const Handle invalid = MPI_COMM_NULL;
  static void release(Handle comm) noexcept {
    if (may_release_handles()) MPI_Comm_free(&comm);
  }
};
using CommHandle = UniqueHandle<CommTraits>;

struct OpTraits {
  using Handle = MPI_Op;
  static inline const Handle invalid = MPI_OP_NULL;
  static void release(Handle operation) noexcept {
    if (may_release_handles()) MPI_Op_free(&operation);
  }
};
using OpHandle = UniqueHandle<OpTraits>;

struct TypeTraits {
  using Handle = MPI_Datatype;
  static inline const Handle invalid = MPI_DATATYPE_NULL;
  static void release(Handle type) noexcept {
    if (may_release_handles()) MPI_Type_free(&type);
  }
};
using TypeHandle = UniqueHandle<TypeTraits>;

/// A communicator of the same ranks with its own message space. Collective over `comm`; so is split_comm.
CommHandle duplicate_comm(MPI_Comm comm);
/// The ranks of `comm` that gave the same color, ordered by key; empty for MPI_UNDEFINED.
CommHandle split_comm(MPI_Comm comm, int color, int key);

}  // namespace llama3d
