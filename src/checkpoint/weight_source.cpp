#include "checkpoint/weight_source.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "base/json.hpp"
#include "base/printable.hpp"
#include "checkpoint/model_state.hpp"
#include "comm/failure.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "io/posix/whole_folder.hpp"
#include "io/safetensors/safetensors.hpp"
#include "model/parameter_table.hpp"

namespace llama3d {
namespace {

namespace fs = std::filesystem;

constexpr const char* model_prefix = "/model/";
constexpr const char* embedding = "model.embed_tokens.weight";
constexpr const char* head = "lm_head.weight";

class CheckpointWeights : public WeightSource {
 public:
  explicit CheckpointWeights(const fs::path& folder) : reader_(folder) {
    folder_ = folder;
    try {
      const auto attributes = parse_json(reader_.attributes());
      model_ = parse_model_config(json_text_in(attributes, "model_config"), "its model_config");
      model_.name = folder.string();
      sequence_ = json_integer_in(attributes, "sequence", 0);
      step_ = json_integer_in(attributes, "step", 0);
      tokenizer_ = {json_text_in(attributes, "tokenizer", ""),
                    json_text_in(attributes, "tokenizer_sha256", "")};
      if (const auto* origin = find_json_member(attributes, "huggingface"))
        origin_ = WeightOrigin::parse(origin->dump(), "huggingface");
    } catch (const JsonError& error) {
      refuse(fmt::format("its attributes are damaged: {}", error.what()));
    } catch (const DataError& error) {
      refuse(fmt::format("its attributes are damaged: {}", error.what()));
    }
    const std::string prefix = model_prefix;
    for (const DatasetInfo& info : reader_.datasets())
      if (info.name.starts_with(prefix))
        tensors_.push_back({info.name.substr(prefix.size()), info.shape, info.dtype});
  }

  bool is_checkpoint() const override { return true; }
  void read(const std::string& name, const Rectangle& rectangle, void* out, DType out_dtype) const override {
    reader_.read(model_prefix + name, rectangle, out, out_dtype);
  }
  void verify(int part, int parts) const override { reader_.verify(part, parts); }

 protected:
  void refuse(const std::string& reason) const override {
    throw CheckpointError(
        fmt::format("checkpoint {} cannot be loaded ({}); use another one", folder_.string(), reason));
  }

 private:
  CheckpointReader reader_;
};

class HuggingFaceWeights : public WeightSource {
 public:
  explicit HuggingFaceWeights(const fs::path& folder) {
    folder_ = folder;
    if (std::error_code ignored; fs::exists(folder / "adapter_config.json", ignored))
      throw DataError(fmt::format(
          "Hugging Face folder {} cannot be used (it has an adapter, see its adapter_config.json, "
          "that would not be applied); merge the adapter into the weights, or take it out",
          folder.string()));
    origin_ = WeightOrigin::of_folder(folder);
    model_ = load_model_config((folder / "config.json").string());
    model_.name = folder.string();
    reader_ = std::make_unique<SafetensorsReader>(folder);
    for (const SafetensorsTensor& tensor : reader_->tensors()) {
      const std::string& type = tensor.dtype;
      if (type != "F32" && type != "BF16" && type != "F16") unusable_.push_back(tensor.name);
      tensors_.push_back({tensor.name, tensor.shape, type == "BF16" ? DType::bf16 : DType::fp32});
    }
  }

  bool is_checkpoint() const override { return false; }
  void read(const std::string& name, const Rectangle& rectangle, void* out, DType out_dtype) const override {
    reader_->read(name, rectangle, out, out_dtype);
  }
  void verify(int part, int parts) const override {
    if (!model_.tied_embeddings || !find(head)) return;
    const std::int64_t rows = model_.vocabulary, columns = model_.hidden;
    const std::int64_t end = rows * (part + 1) / parts,
                       at_once = std::max<std::int64_t>(1, (4 << 20) / columns);
    std::vector<float> left(static_cast<std::size_t>(at_once * columns)), right(left.size());
    for (std::int64_t row = rows * part / parts; row < end; row += at_once) {
      const Rectangle some{row, std::min(end, row + at_once), 0, columns};
      reader_->read(embedding, some, left.data(), DType::fp32);
      reader_->read(head, some, right.data(), DType::fp32);
      const auto [other, _] =
          std::mismatch(left.begin(), left.begin() + some.elements(), right.begin(),
                        [](float a, float b) { return a == b || (std::isnan(a) && std::isnan(b)); });
      if (const auto same = other - left.begin(); same < some.elements()) refuse_head(row + same / columns);
    }
  }

 protected:
  void refuse(const std::string& reason) const override {
    throw DataError(
        fmt::format("Hugging Face folder {} cannot be used ({}); give one with the weights of its "
                    "config.json",
                    folder_.string(), reason));
  }

 private:
  [[noreturn]] void refuse_head(std::int64_t row) const {
    throw DataError(fmt::format(
        "Hugging Face folder {} cannot be used (its config.json ties the embeddings, but {} is not {}: row "
        "{} "
        "differs); set tie_word_embeddings to false there to use both, as transformers does, or take {} out",
        folder_.string(), head, embedding, row, head));
  }

  std::unique_ptr<SafetensorsReader> reader_;
};

/// What folders hold that a model does without.
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
      // What is wrong with the folder named comes first.
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
          "{} {} is of another model ({} is {}, here {}); leave --model out, or give the one it was "
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
      lines.push_back(fmt::format("{} is {} where the weights come from and {} in --model, which counts",
                                  difference.key, difference.left, difference.right));
  return lines;
}

std::unique_ptr<WeightSource> open_weights(const fs::path& folder) {
  std::error_code ignored;
  if (fs::exists(folder / "checkpoint.h5", ignored)) return std::make_unique<CheckpointWeights>(folder);
  if (fs::exists(folder / "config.json", ignored) || is_safetensors_folder(folder))
    return std::make_unique<HuggingFaceWeights>(folder);
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
    state.load(source);
  });
}

}  // namespace llama3d
