#pragma once
// The one reader of checkpoints: to resume from, and as a source of weights.

#include <filesystem>
#include <memory>
#include <string>

#include "checkpoint/checkpoint_attributes.hpp"
#include "checkpoint/weight_source.hpp"
#include "io/checkpoint/checkpoint_file.hpp"

namespace llama3d {

/// A checkpoint, opened once: its headers, sizes and attributes are good. One object is for one thread.
class CheckpointContents : public WeightSource {
 public:
  /// Throws CheckpointError, naming what is wrong with it, for a folder that holds no whole checkpoint.
  /// Checksums of tensors are left to verify().
  explicit CheckpointContents(const std::filesystem::path& folder);

  /// The run that saved it; none where an import made it.
  const std::optional<RunRecord>& run() const { return run_; }
  TrainPosition position() const { return run_ ? run_->position : TrainPosition{}; }

  /// Throws unless a run of `model` can go on from here: ConfigurationError where it is another model's,
  /// CheckpointError where a tensor is missing or has another shape, also where it holds weights only.
  void expect_run_of(const ModelConfig& model) const;

  bool is_checkpoint() const override { return true; }
  void read(const std::string& name, const Rectangle& rectangle, void* out, DType out_dtype) const override;
  void verify(int part, int parts) const override { reader_.verify(part, parts); }
  /// The same as read() of any dataset, by its full name: "/optimizer/exp_avg/model.norm.weight".
  void read_dataset(const std::string& dataset, const Rectangle& rectangle, void* out,
                    DType out_dtype) const {
    reader_.read(dataset, rectangle, out, out_dtype);
  }

 protected:
  void refuse(const std::string& reason) const override;

 private:
  [[noreturn]] void refuse_to_resume(const std::string& reason, const char* advice = "use another one") const;

  CheckpointReader reader_;
  std::optional<RunRecord> run_;
};

/// One to resume from. Throws those errors, and ConfigurationError where there is a Hugging Face folder in
/// its place.
std::unique_ptr<CheckpointContents> open_to_resume(const std::filesystem::path& folder);

/// Checks, verifies and loads what this rank's slices need of weights and moments; gather the parameters
/// afterwards. `opened` is the checkpoint where this rank has it open already. Collective; errors as in
/// fail_together. `model` is the one the state is of.
std::unique_ptr<CheckpointContents> load_run(const std::filesystem::path& folder,
                                             std::unique_ptr<CheckpointContents> opened,
                                             const ModelConfig& model, ModelState& state,
                                             ControlPlane& control);

}  // namespace llama3d
