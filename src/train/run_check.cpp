#include "train/run_check.hpp"

#include <fmt/format.h>

#include <cstdint>

#include "base/printable.hpp"
#include "checkpoint/output_folder.hpp"
#include "checkpoint/weight_tokenizer.hpp"
#include "compute/kernels.hpp"
#include "io/safetensors/safetensors.hpp"
#include "train/run_record.hpp"

namespace llama3d {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void refuse_output_directory(const fs::path& directory, const std::string& reason) {
  throw ConfigurationError(
      fmt::format("--output-dir {}: can't be written to ({}); give a folder that can be made",
                  directory.string(), reason));
}

/// As far as can be told without making it.
void check_output_directory(const fs::path& directory) {
  if (directory.empty()) refuse_output_directory(directory, "no name given");
  std::error_code error;
  fs::path existing = fs::absolute(directory, error);
  while (!fs::exists(existing, error) && existing.has_relative_path()) existing = existing.parent_path();
  if (!fs::is_directory(existing, error))
    refuse_output_directory(directory, existing.string() + " is no folder");
  for (const fs::path& folder : {existing, directory / "checkpoints"})
    if (fs::exists(folder, error) && access(folder.c_str(), W_OK | X_OK) != 0)
      refuse_output_directory(directory, "no permission in " + folder.string());
}

/// A checkpoint named by hand with nothing left to do: a run would only put aside what is in its folder.
void refuse_done(const TrainSettings& settings, const TrainPosition& position) {
  if (position.step < settings.steps) return;
  throw ConfigurationError(
      fmt::format("--steps {}: --resume {} is at step {} already; give more steps, or an earlier checkpoint",
                  settings.steps, printable(settings.resume), position.step));
}

/// What of the weights that a run would start from decides over it, checksums of a checkpoint left out, which
/// take as long as loading it; a line for each doubt.
std::string check_weights(const TrainSettings& settings, const ModelConfig& model,
                          const TokenFileInfo& tokens) {
  if (checkpoint_to_resume(settings) || (!settings.resume.empty() && settings.resume != "auto")) return {};
  if (settings.load.empty()) {
    const std::string warning = sizes_alone_warning(settings);
    return warning.empty() ? warning : "\n" + warning;
  }
  const auto weights = open_weights(settings.load);
  if (!weights->is_checkpoint()) weights->verify(0, 1);
  std::string lines;
  for (const std::string& doubt : doubts(*weights, model, tokens)) lines += "\nwarning: " + doubt;
  return lines;
}

}  // namespace

std::string sizes_alone_warning(const TrainSettings& settings) {
  if (!is_safetensors_folder(settings.model)) return {};
  return fmt::format(
      "warning: --model {} gives the sizes alone, the weights begin at random; to start from its weights "
      "give "
      "--load {}",
      settings.model, settings.model);
}

Checkpoints make_checkpoints(const TrainSettings& settings, const RunShape& shape,
                             const TrainingBatches& batches, ControlPlane& control,
                             std::function<void(const std::string&)> note) {
  return {checkpoint_directory(settings), settings.keep_checkpoints,
          checkpoint_attributes(settings, shape, batches), control, std::move(note)};
}

void check_files(const TrainSettings& settings, const ModelConfig& model, const Checkpoints& checkpoints) {
  check_output_directory(settings.output_dir);
  if (settings.resume == "auto")
    checkpoints.check_newest();
  else if (!settings.resume.empty())
    refuse_done(settings, checkpoints.check(settings.resume));
  if (!settings.load.empty() && !checkpoint_to_resume(settings)) open_weights(settings.load)->check(model);
}

RunCheck check_run(const TrainSettings& settings, int world_size, bool assumed, const Device& device,
                   const Kernels& kernels) {
  const RunShape shape = run_shape(settings, world_size);
  // Ranks that were started on CPUs are taken to be this node's.
  const DeviceRoom room = assumed ? DeviceRoom{.bytes = SIZE_MAX, .host = SIZE_MAX}
                                  : DeviceRoom::of(device, device.kind() == "cpu" ? world_size : 1);
  MemoryPlan most = check_fits(shape, kernels, room);
  const TrainingBatches batches(settings, make_rank_plan(shape, 0, kernels));
  const OutputFolder output(settings.output_dir, "this host",
                            [](const std::string&) {});  // refuses one in use
  check_files(settings, shape.model,
              make_checkpoints(settings, shape, batches, *make_local_control_plane(), {}));
  return {std::move(most), batches.describe() + check_weights(settings, shape.model, batches.tokens())};
}

}  // namespace llama3d
