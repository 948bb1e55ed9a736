#pragma once
// What the parallel test main offers to the test cases of its program.

#include "mpi/mpi_session.hpp"

namespace llama3d::test {

/// MPI, initialized by main before the first test case.
MpiSession& session();

/// The agreement of all ranks of the test; the same as session().control().
inline ControlPlane& control() {
  return session().control();
}

}  // namespace llama3d::test
