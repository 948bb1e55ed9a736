#include "train/run_check.hpp"

#include <fmt/format.h>

#include <cstdint>

#include "base/printable.hpp"
#include "checkpoint/weight_source.hpp"
#include "compute/kernels.hpp"
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

}  // namespace

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
  check_files(settings, shape.model,
              make_checkpoints(settings, shape, batches, *make_local_control_plane(), {}));
  return {std::move(most), batches.describe()};
}

}  // namespace llama3d
