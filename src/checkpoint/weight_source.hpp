#pragma once
// The source of a model's weights: a checkpoint's folder or a Hugging Face folder, told apart by what they
// hold.

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/tokenizer_name.hpp"
#include "checkpoint/weight_origin.hpp"
#include "comm/control_plane.hpp"
#include "io/checkpoint/checkpoint_piece.hpp"
#include "model/config.hpp"

namespace llama3d {

class ModelState;

/// A tensor of a model by its Hugging Face name, in its global shape.
struct WeightTensor {
  std::string name;
  std::vector<std::int64_t> shape;
  DType dtype = DType::fp32;  ///< bf16 or fp32, whichever holds what is stored exactly
};

/// Every tensor that weights of this model consist of; fp32.
std::vector<WeightTensor> model_tensors(const ModelConfig& model);

/// Opened, with its headers and sizes checked; tensors are read where they are asked for. Errors name the
/// folder and what is wrong with it: CheckpointError for a checkpoint, DataError for a Hugging Face folder.
class WeightSource {
 public:
  virtual ~WeightSource() = default;

  const std::filesystem::path& folder() const { return folder_; }
  const ModelConfig& model() const { return model_; }
  /// Tokens of a sequence in training; 0: unknown.
  std::int64_t sequence() const { return sequence_; }
  /// The step of the training here that made the weights; 0: they are as the origin had them.
  std::int64_t step() const { return step_; }
  const WeightOrigin& origin() const { return origin_; }
  /// The tokenizer of the tokens that the weights were last trained on here.
  const TokenizerName& tokenizer() const { return tokenizer_; }
  virtual bool is_checkpoint() const = 0;

  /// Throws ConfigurationError when `model` differs in what decides the tensors; otherwise the source's error
  /// when a tensor of it is missing, has another shape or type, or is none of the model's. Ignored are the
  /// rotary frequencies that old folders hold, and an output head beside tied embeddings, for verify().
  void check(const ModelConfig& model) const;

  /// Null when there is none of this name.
  const WeightTensor* find(const std::string& name) const;
  /// A rectangle, row-major in `out`, floating-point types converted into each other (to nearest even).
  virtual void read(const std::string& name, const Rectangle& rectangle, void* out,
                    DType out_dtype) const = 0;
  /// Share `part` of `parts` of the data against its checksums, where it has any; of a Hugging Face folder an
  /// output head beside tied embeddings, which it has to equal.
  virtual void verify(int part, int parts) const = 0;

 protected:
  /// Throws the source's error.
  [[noreturn]] virtual void refuse(const std::string& reason) const = 0;

  std::filesystem::path folder_;
  ModelConfig model_;
  std::int64_t sequence_ = 0;
  std::int64_t step_ = 0;
  WeightOrigin origin_;
  TokenizerName tokenizer_;
  std::vector<WeightTensor> tensors_;  ///< in name order
  std::vector<std::string> unusable_;  ///< names of tensors whose type can't be read
};

/// A line for each difference between the weights' model and this one that check() lets pass.
std::vector<std::string> model_doubts(const WeightSource& source, const ModelConfig& model);

/// Throws CheckpointError for a folder of neither kind.
std::unique_ptr<WeightSource> open_weights(const std::filesystem::path& folder);

/// Checks, verifies and loads what this rank's slices need; gather the parameters afterwards. Collective;
/// errors as in fail_together. `model` is the one the state is of.
void load_weights(const WeightSource& source, const ModelConfig& model, ModelState& state,
                  ControlPlane& control);

}  // namespace llama3d
