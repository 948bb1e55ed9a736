#include "checkpoint/weight_source.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "base/printable.hpp"
#include "checkpoint/checkpoint_contents.hpp"
#include "checkpoint/hugging_face_weights.hpp"
#include "checkpoint/model_state.hpp"
#include "comm/failure.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "io/posix/whole_folder.hpp"
#include "io/safetensors/safetensors.hpp"
#include "model/parameter_table.hpp"

namespace llama3d {
namespace {

namespace fs = std::filesystem;

constexpr const char* head = "lm_head.weight";

/// Tensors that folders hold and a model does without.
bool needless(const WeightTensor& tensor, const ModelConfig& model) {
  if (tensor.name.ends_with(".rotary_emb.inv_freq")) return true;
  return model.tied_embeddings && tensor.name == head &&
         tensor.shape == std::vector{model.vocabulary, model.hidden};
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  return fmt::format("{}", fmt::join(shape, " x "));
}

/// For who names a run, its folder of checkpoints, or a checkpoint whose replacement was cut off.
std::string advice_for(const fs::path& folder) {
  const auto checkpoints_in = [](const fs::path& directory) {
    try {
      std::error_code ignored;
      if (fs::is_directory(directory, ignored)) return list_checkpoints(directory);
    } catch (const CheckpointError&) {
      // The caller's error, about the folder named, comes first.
    }
    return std::vector<fs::path>();
  };
  for (const fs::path& directory : {folder, folder / "checkpoints"})
    if (const auto checkpoints = checkpoints_in(directory); !checkpoints.empty())
      return fmt::format("did you mean {}?", checkpoints.front().string());
  for (const fs::path& checkpoint : checkpoints_in(folder.parent_path()))
    if (checkpoint.stem() == folder.filename() && checkpoint.has_extension())
      return fmt::format("did you mean {}?", checkpoint.string());
  return "name a checkpoint's folder (step_...) or a Hugging Face folder";
}

}  // namespace

std::vector<WeightTensor> model_tensors(const ModelConfig& model) {
  const ParameterTable table(model, ProcessGrid({}, 0), {{0, model.layers}});
  std::vector<WeightTensor> tensors;
  for (const Parameter& p : table.parameters()) {
    std::vector<std::int64_t> shape = {p.shape[0]};
    if (p.shape.rank() == 2) shape.push_back(p.shape[1]);
    tensors.push_back({p.name, shape, DType::fp32});
  }
  return tensors;
}

const WeightTensor* WeightSource::find(const std::string& name) const {
  const auto found = std::lower_bound(
      tensors_.begin(), tensors_.end(), name,
      [](const WeightTensor& tensor, const std::string& wanted) { return tensor.name < wanted; });
  return found == tensors_.end() || found->name != name ? nullptr : &*found;
}

void WeightSource::check(const ModelConfig& model) const {
  for (const ConfigDifference& difference : differences(model_, model))
    if (difference.decides_tensors)
      throw ConfigurationError(fmt::format(
          "{} {} is of another model ({} is {}, here {}); leave `model` out, or give the one it was "
          "made with",
          is_checkpoint() ? "checkpoint" : "Hugging Face folder", folder_.string(), difference.key,
          difference.left, difference.right));
  const auto expected = model_tensors(model);
  std::set<std::string> names;
  for (const WeightTensor& tensor : expected) {
    names.insert(tensor.name);
    const WeightTensor* stored = find(tensor.name);
    if (!stored) refuse(fmt::format("tensor {} is missing", tensor.name));
    if (stored->shape != tensor.shape)
      refuse(fmt::format("tensor {} is {}, the model's is {}", tensor.name, shape_text(stored->shape),
                         shape_text(tensor.shape)));
  }
  for (const WeightTensor& tensor : tensors_)
    if (!names.contains(tensor.name) && !needless(tensor, model))
      refuse(fmt::format("tensor {} is none of the model's", printable(tensor.name)));
  for (const std::string& name : unusable_)
    if (names.contains(name)) refuse(fmt::format("tensor {} is neither F32, BF16 nor F16", name));
}

std::vector<std::string> model_doubts(const WeightSource& source, const ModelConfig& model) {
  std::vector<std::string> lines;
  for (const ConfigDifference& difference : differences(source.model(), model))
    if (!difference.decides_tensors)
      lines.push_back(fmt::format("{} is {} where the weights come from and {} in `model`, which counts",
                                  difference.key, difference.left, difference.right));
  return lines;
}

std::unique_ptr<WeightSource> open_weights(const fs::path& folder) {
  std::error_code ignored;
  if (fs::exists(folder / "checkpoint.h5", ignored)) return std::make_unique<CheckpointContents>(folder);
  if (fs::exists(folder / "config.json", ignored) || is_safetensors_folder(folder))
    return open_hugging_face(folder);
  const std::string reason = why_no_folder(folder);
  throw CheckpointError(fmt::format("no weights in {} ({}); {}", folder.string(),
                                    reason.empty() ? "neither checkpoint.h5 nor config.json" : reason,
                                    advice_for(folder)));
}

void load_weights(const WeightSource& source, const ModelConfig& model, ModelState& state,
                  ControlPlane& control) {
  fail_together(control, [&] {
    source.check(model);
    source.verify(control.rank(), control.size());
    state.load_weights(source);
  });
}

}  // namespace llama3d
