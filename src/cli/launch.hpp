#pragma once
// For programs: a whole training run from settings made in code. What `llama3d train` does once it has read
// its options.

#include <functional>
#include <string>

#include "cli/job.hpp"
#include "cli/machine_options.hpp"
#include "options/settings.hpp"

namespace llama3d {

/// Starts MPI, runs `body` on every rank and turns errors into one line and an exit status (base/error.hpp).
/// `comm_timeout`: seconds that a rank may wait for others, MPI's start and end included, 0: no limit.
/// Results that standard output does not take are an error.
int run_job(int& argc, char**& argv, double comm_timeout, const std::function<int(const Job&)>& body);

/// Trains within a job. Throws as train() does.
int train_in(const Job& job, const TrainSettings& settings, const MachineOptions& machine);

/// Both: for main. Returns the exit status; start the program with mpirun or srun, one process a GPU.
int launch_training(int& argc, char**& argv, const TrainSettings& settings,
                    const MachineOptions& machine = {});

}  // namespace llama3d
