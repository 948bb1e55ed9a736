#include "mpi/mpi_session.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <exception>

#include "base/error.hpp"
#include "comm/labels.hpp"
#include "comm/local_communicator.hpp"
#include "mpi/mpi_calls.hpp"
#include "mpi/mpi_communicator.hpp"
#include "mpi/mpi_control_plane.hpp"

namespace llama3d {
namespace {

[[noreturn]] void refuse_lone_task(const char* variable, const char* tasks) {
  throw ConfigurationError(fmt::format(
      "{} is {} but MPI sees a job of one rank (the launcher and the MPI library do not speak the same "
      "protocol); start with `srun --mpi=pmix` or mpirun, or a single task with `srun --mpi=pmix -n 1`",
      variable, tasks));
}

/// Open MPI 4 ends the process, with a page of text, when it was started by srun without PMI: say so before.
void expect_process_management() {
#if defined(OMPI_MAJOR_VERSION) && OMPI_MAJOR_VERSION < 5
  for (const char* offered : {"PMIX_RANK", "PMIX_NAMESPACE", "PMI_RANK", "PMI_FD", "OMPI_COMM_WORLD_SIZE"})
    if (std::getenv(offered)) return;
  const char* tasks = std::getenv("SLURM_NTASKS");
  if (std::getenv("SLURM_STEPID") && tasks && std::atoi(tasks) > 1) refuse_lone_task("SLURM_NTASKS", tasks);
#endif
}

/// Throws when the launcher's variables speak of several tasks but MPI sees one. mpirun's word outweighs that
/// of the Slurm allocation it runs in.
void expect_one_job(int world_size) {
  if (world_size > 1) return;
  for (const char* variable : {"OMPI_COMM_WORLD_SIZE", "SLURM_NTASKS"}) {
    const char* tasks = std::getenv(variable);
    if (!tasks) continue;
    if (std::atoi(tasks) > 1) refuse_lone_task(variable, tasks);
    return;
  }
}

std::unique_ptr<Communicator> make_world(int size, CommunicationLog& log) {
  if (size == 1) return std::make_unique<LocalCommunicator>(log);
  return std::make_unique<MpiCommunicator>(duplicate_comm(MPI_COMM_WORLD), log);
}

std::unique_ptr<Communicator> make_group(const ProcessGrid& grid, Axis axis, CommunicationLog& log) {
  if (grid.size(axis) == 1) return std::make_unique<LocalCommunicator>(log);
  return std::make_unique<MpiCommunicator>(split_comm(MPI_COMM_WORLD, grid.color(axis), grid.rank(axis)),
                                           log);
}

/// Collective over the world; none for a rank that is in no such group.
std::unique_ptr<Communicator> make_embedding_group(const ProcessGrid& grid, CommunicationLog& log) {
  if (grid.size(Axis::pipeline) == 1) return nullptr;
  const int color = grid.in_embedding_group() ? grid.color(Axis::pipeline) : MPI_UNDEFINED;
  CommHandle ends = split_comm(MPI_COMM_WORLD, color, grid.rank(Axis::pipeline));
  return ends ? std::make_unique<MpiCommunicator>(std::move(ends), log) : nullptr;
}

}  // namespace

MpiSession::MpiSession(int& argc, char**& argv) : exceptions_at_start_(std::uncaught_exceptions()) {
  expect_process_management();
  int provided = MPI_THREAD_SINGLE;
  check_mpi(MPI_Init_thread(&argc, &argv, MPI_THREAD_SERIALIZED, &provided), "MPI_Init_thread");
  try {
    check_mpi(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    check_mpi(MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    int size = 0;
    check_mpi(MPI_Comm_size(MPI_COMM_WORLD, &size), "MPI_Comm_size");
    expect_one_job(size);
    if (provided < MPI_THREAD_SERIALIZED)
      throw ConfigurationError(fmt::format(
          "this MPI library gives thread level {} (llama3d needs MPI_THREAD_SERIALIZED, level {}); use a "
          "build of MPI with thread support",
          provided, static_cast<int>(MPI_THREAD_SERIALIZED)));
    control_ = std::make_unique<MpiControlPlane>();
  } catch (...) {
    // What is wrong here is wrong on every rank, so all of them come here.
    MPI_Finalize();
    throw;
  }
}

MpiSession::~MpiSession() {
  if (std::uncaught_exceptions() > exceptions_at_start_) return;
  control_.reset();
  MPI_Finalize();
}

std::string MpiSession::library_version() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  check_mpi(MPI_Get_library_version(text.data(), &length), "MPI_Get_library_version");
  const std::string version(text.data(), static_cast<std::size_t>(length));
  return version.substr(0, version.find_first_of(std::string("\n\0", 2)));
}

std::unique_ptr<GridCommunicators> MpiSession::make_communicators(const ProcessGrid& grid) {
  LLAMA3D_EXPECT(grid.shape().world() == control_->size() && grid.rank() == control_->rank(),
                 "grid {} for rank {}, on rank {} of {}", grid.shape().to_string(), grid.rank(),
                 control_->rank(), control_->size());
  auto group = std::make_unique<GridCommunicators>();
  CommunicationLog& log = group->log;
  control_->activity().during(labels::control_connect, [&] {
    group->world = make_world(grid.shape().world(), log);
    for (const Axis axis : collective_axes) group->set(axis, make_group(grid, axis, log));
    group->pp_forward = make_group(grid, Axis::pipeline, log);
    group->pp_backward = make_group(grid, Axis::pipeline, log);
    group->embedding = make_embedding_group(grid, log);
  });
  return group;
}

}  // namespace llama3d
