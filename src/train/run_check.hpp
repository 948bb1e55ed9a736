#pragma once
// What can be told of a run before anything is allocated, loaded or written.

#include <filesystem>
#include <functional>
#include <string>

#include "checkpoint/checkpoints.hpp"
#include "train/batches.hpp"
#include "train/run_shape.hpp"

namespace llama3d {

/// Checks everything that can be checked without allocating or writing: settings, shapes, memory, data files.
/// Throws what training would. Ranks that are only `assumed` have other machines' memory, with which theirs
/// is not compared.
struct RunCheck {
  MemoryPlan memory;  ///< of the rank that needs most
  std::string data;   ///< what the token files hold, and doubts about them and the weights, for people
};
RunCheck check_run(const TrainSettings& settings, int world_size, bool assumed, const Device& device,
                   const Kernels& kernels);

/// Tells whoever names a Hugging Face folder as --model alone that its weights are not read; else empty.
std::string sizes_alone_warning(const TrainSettings& settings);
/// Of these the files and folders alone.
void check_files(const TrainSettings& settings, const ModelConfig& model, const Checkpoints& checkpoints);
/// The checkpoints of a run, in its output folder.
Checkpoints make_checkpoints(const TrainSettings& settings, const RunShape& shape,
                             const TrainingBatches& batches, ControlPlane& control,
                             std::function<void(const std::string&)> note);

}  // namespace llama3d
