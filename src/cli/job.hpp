#pragma once

#include "comm/health/watchdog.hpp"
#include "mpi/mpi_session.hpp"

namespace llama3d {

/// All ranks of a program that mpirun or srun started.
struct Job {
  MpiSession& session;
  ControlPlane& control;  ///< of the session
  Watchdog* watchdog;     ///< none for one rank
};

}  // namespace llama3d
