#include "train/run_check.hpp"

#include <cstdint>
#include <optional>

#include "checkpoint/output_folder.hpp"
#include "checkpoint/weight_tokenizer.hpp"
#include "compute/kernels.hpp"
#include "train/batches.hpp"
#include "train/run_shape.hpp"
#include "train/start_decision.hpp"

namespace llama3d {
namespace {

/// Doubts that the run starts from what a person wants; checksums of a checkpoint are left out, which take as
/// long as loading it.
std::vector<std::string> doubts_about(const StartDecision& start, const TokenFileInfo& tokens) {
  std::vector<std::string> lines = start.doubts;
  if (!start.weights) return lines;
  if (!start.weights->is_checkpoint()) start.weights->verify(0, 1);
  for (const std::string& doubt : doubts(*start.weights, start.model, tokens)) lines.push_back(doubt);
  return lines;
}

}  // namespace

RunCheck check_run(const TrainSettings& settings, int rank, int world_size, bool assumed,
                   const Device& device, const Kernels& kernels) {
  check_output_folder(settings.output_dir);
  // Another rank would be kept out by the first one's lock.
  std::optional<OutputFolder> output;
  if (rank == 0) output.emplace(settings.output_dir, "this host", [](const std::string&) {});
  const StartDecision start = decide_start(settings);
  const RunShape shape = run_shape(settings, start.model, world_size);
  // Ranks that were started on CPUs are taken to be this node's.
  const DeviceCapacity capacity = assumed
                                      ? DeviceCapacity{.bytes = SIZE_MAX, .host = SIZE_MAX}
                                      : DeviceCapacity::of(device, device.kind() == "cpu" ? world_size : 1);
  RunCheck check{check_fits(shape, kernels, capacity), {}};
  const TrainingBatches batches(settings, make_rank_plan(shape, 0, kernels));
  check.data = batches.describe();
  for (const std::string& doubt : doubts_about(start, batches.tokens())) check.data += "\nwarning: " + doubt;
  return check;
}

}  // namespace llama3d
