#pragma once
// A run of a small model on any grid, with its weights and gradients as whole tensors.

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/weight_source.hpp"
#include "train/engine.hpp"

namespace llama3d::test {

struct GlobalTensor {
  std::int64_t rows = 0, columns = 0;
  std::vector<float> values;
};
/// By Hugging Face name.
using GlobalTensors = std::map<std::string, GlobalTensor>;

/// Tokens of a global batch, `samples` x `sequence` values each, sample by sample.
struct GlobalBatch {
  std::int64_t samples = 0, sequence = 0;
  std::vector<std::int32_t> ids, targets;
  std::vector<std::int32_t> document_start, document_end,
      position;  ///< as rows of the batch; empty: a document a sample
};

/// Random tokens below `vocabulary`; every fifth target is none, and documents end at random places.
GlobalBatch random_batch(std::int64_t samples, std::int64_t sequence, std::int64_t vocabulary,
                         std::uint64_t seed);

/// A tensor's elements, fp32 or bf16.
std::vector<float> read_tensor(const Tensor& tensor, Device& device, Stream& stream);
void write_tensor(const Tensor& tensor, const std::vector<float>& values, Device& device, Stream& stream);
/// The piece's elements, as they lie in the rank's arena.
std::vector<float> values_of(const OwnedPiece& piece, const GlobalTensors& tensors);

/// An engine on one rank alone or on all ranks of the test.
class TestRun {
 public:
  /// A grid over all ranks of the test program.
  TestRun(const RunShape& shape, const OptimizerOptions& options, const Engine::MakeStore& make_store = {});
  /// This process alone, whatever the test program's ranks: the reference. shape.grid must be one rank.
  static TestRun alone(const RunShape& shape, const OptimizerOptions& options);

  void initialize(std::uint64_t seed);
  void set_weights(const GlobalTensors& weights);
  void load(const WeightSource& source);
  /// This rank's.
  std::vector<BatchRows> micro_batches(const GlobalBatch& batch) const;
  StepResult step(const GlobalBatch& batch, std::int64_t step, double learning_rate);
  Evaluation evaluate(const GlobalBatch& batch);

  /// A tensor's elements, fp32 or bf16.
  std::vector<float> read(const Tensor& tensor);

  /// Whole tensors on every rank. Gradients are those of the mean loss of the last step, before clipping.
  GlobalTensors weights();
  GlobalTensors gradients(double targets);

  Engine& engine() { return *engine_; }
  const RankPlan& plan() const { return engine_->plan(); }
  /// What the plan had before its memory was taken, with the communicators there.
  const DeviceCapacity& capacity() const { return capacity_; }

 private:
  TestRun(const RunShape& shape, const OptimizerOptions& options, bool alone,
          const Engine::MakeStore& make_store);
  GlobalTensors gather(const Tensor& arena, bool state_arena, double scale);
  void write(const Tensor& tensor, const std::vector<float>& values);

  std::unique_ptr<Device> device_;
  std::unique_ptr<ControlPlane> local_control_;
  std::unique_ptr<Runtime> runtime_;
  DeviceCapacity capacity_;
  std::unique_ptr<Engine> engine_;
};

/// A small model whose sizes divide by 4 where they must and are odd elsewhere.
ModelConfig small_model(bool tied, const char* architecture = "llama");

/// Largest relative error norm over all tensors; infinity when names or shapes differ. `worst` gets the name.
double largest_error(const GlobalTensors& actual, const GlobalTensors& expected,
                     std::string* worst = nullptr);

}  // namespace llama3d::test
