#pragma once
// Whether a person watches what this process prints.

namespace llama3d {

/// True when standard error ends at a terminal: its own, or, for a process that mpirun started on its own
/// host and therefore writes to a pipe, mpirun's.
bool stderr_is_terminal();

}  // namespace llama3d
