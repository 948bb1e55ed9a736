#pragma once
// MPI from start to end of the process, and what the rest of the program gets from it.

#include <memory>

#include "comm/communicator.hpp"
#include "comm/control_plane.hpp"
#include "comm/process_grid.hpp"

namespace llama3d {

/// Initializes MPI (thread level serialized) and finalizes it, once a process. Throws ConfigurationError when
/// a launcher started several tasks that MPI does not see as one job (SLURM_NTASKS or
/// OMPI_COMM_WORLD_SIZE above 1 with a world of one), naming `srun --mpi=pmix`.
class MpiSession {
 public:
  /// Waits for all ranks, and so does the end: see TimeLimit.
  MpiSession(int& argc, char**& argv);
  /// Finalizes unless an exception is in flight: then finalizing could wait for ever.
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  ControlPlane& control() { return *control_; }
  /// "Open MPI v4.1.4, ...": the library's own words, one line.
  static std::string library_version();

  /// The grid's communicators for tensors in host memory. Collective.
  std::unique_ptr<GridCommunicators> make_communicators(const ProcessGrid& grid);

 private:
  std::unique_ptr<ControlPlane> control_;
  int exceptions_at_start_ = 0;
};

}  // namespace llama3d
