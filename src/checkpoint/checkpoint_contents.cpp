#include "checkpoint/checkpoint_contents.hpp"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.hpp"
#include "base/json.hpp"
#include "checkpoint/model_state.hpp"
#include "comm/failure.hpp"
#include "io/safetensors/safetensors.hpp"

namespace llama3d {
namespace {

namespace fs = std::filesystem;

const std::string model_prefix = "/model/";

}  // namespace

CheckpointContents::CheckpointContents(const fs::path& folder) : reader_(folder) {
  folder_ = folder;
  try {
    CheckpointAttributes attributes = CheckpointAttributes::parse(reader_.attributes());
    model_ = std::move(attributes.model);
    origin_ = std::move(attributes.origin);
    run_ = std::move(attributes.run);
  } catch (const JsonError& error) {
    refuse(fmt::format("its attributes are damaged: {}", error.what()));
  } catch (const Error& error) {
    refuse(fmt::format("its attributes are damaged: {}", error.what()));
  }
  model_.name = folder.string();
  if (run_) {
    sequence_ = run_->sequence.value_or(0);
    step_ = run_->position.step;
    tokenizer_ = run_->tokenizer;
  }
  for (const DatasetInfo& info : reader_.datasets())
    if (info.name.starts_with(model_prefix))
      tensors_.push_back({info.name.substr(model_prefix.size()), info.shape, info.dtype});
}

void CheckpointContents::read(const std::string& name, const Rectangle& rectangle, void* out,
                              DType out_dtype) const {
  reader_.read(model_prefix + name, rectangle, out, out_dtype);
}

void CheckpointContents::refuse(const std::string& reason) const {
  throw CheckpointError(
      fmt::format("checkpoint {} cannot be loaded ({}); use another one", folder_.string(), reason));
}

void CheckpointContents::refuse_to_resume(const std::string& reason, const char* advice) const {
  throw CheckpointError(
      fmt::format("checkpoint {} cannot be resumed ({}); {}", folder_.string(), reason, advice));
}

void CheckpointContents::expect_run_of(const ModelConfig& model) const {
  for (const ConfigDifference& difference : differences(model_, model))
    throw ConfigurationError(fmt::format(
        "checkpoint {} is of another model ({} is {}, here {}); give the `model` it was made with",
        folder_.string(), difference.key, difference.left, difference.right));
  const auto& datasets = reader_.datasets();
  const bool has_optimizer = std::any_of(datasets.begin(), datasets.end(), [](const DatasetInfo& info) {
    return info.name.starts_with("/optimizer/");
  });
  if (!has_optimizer)
    refuse_to_resume("it holds weights only, no state of an optimizer", "start from it with `load`");
  for (const char* group : {"/model/", "/optimizer/exp_avg/", "/optimizer/exp_avg_sq/"})
    for (const WeightTensor& tensor : model_tensors(model)) {
      const DatasetInfo* info = reader_.find(group + tensor.name);
      if (!info) refuse_to_resume(fmt::format("no {}{}", group, tensor.name));
      if (info->shape != tensor.shape)
        refuse_to_resume(fmt::format("{} is {}, the model's is {}", info->name, fmt::join(info->shape, " x "),
                                     fmt::join(tensor.shape, " x ")));
    }
}

std::unique_ptr<CheckpointContents> open_to_resume(const fs::path& folder) {
  if (std::error_code ignored;
      !fs::exists(folder / "checkpoint.h5", ignored) && is_safetensors_folder(folder))
    throw ConfigurationError(fmt::format(
        "`resume {}`: a Hugging Face folder (it holds no training run that could go on); start a new "
        "run from its weights with `load`",
        folder.string()));
  return std::make_unique<CheckpointContents>(folder);
}

std::unique_ptr<CheckpointContents> load_run(const fs::path& folder,
                                             std::unique_ptr<CheckpointContents> opened,
                                             const ModelConfig& model, ModelState& state,
                                             ControlPlane& control) {
  fail_together(control, [&] {
    if (!opened) opened = open_to_resume(folder);
    opened->expect_run_of(model);
    opened->verify(control.rank(), control.size());
    state.load_states(*opened);
  });
  return opened;
}

}  // namespace llama3d
