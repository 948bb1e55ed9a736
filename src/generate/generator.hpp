#pragma once
// Continues prompts: one rank's part of it, allocated and wired. Nothing here knows of text or files.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "generate/sampler.hpp"
#include "parallel/runtime.hpp"
#include "plan/inference_plan.hpp"

namespace llama3d {

class ModelState;

struct GenerationRequest {
  std::uint64_t number = 0;           ///< of the prompt in the job; random draws depend on it
  std::vector<std::uint32_t> prompt;  ///< not empty
};

/// Tokens and seconds of a run of prompts on this rank.
struct GenerationReport {
  std::int64_t prompt_tokens = 0, new_tokens = 0;
  /// New tokens that a prompt's own step gave do not count as decoded.
  std::int64_t decoded_tokens = 0;
  double prompt_seconds = 0, decode_seconds = 0;
};

struct DecodingOptions {
  SamplingOptions sampling = {};
  std::int64_t max_new_tokens = 256;
  std::int64_t vocabulary = 0;  ///< only ids below; 0: the model's
};

/// The receiver of new tokens, on the first rank of the tp group.
struct TokenConsumer {
  /// True: the sequence ends with this token.
  std::function<bool(const GenerationRequest& request, std::uint32_t token)> append;
  /// The token told last was the sequence's last, for whatever reason.
  std::function<void(const GenerationRequest& request)> finish;
};

class Generator {
 public:
  /// Collective: takes all memory and has the job's watchdog look at the communication to the generator's
  /// end. `communicators` are those of a grid whose tp groups the plan is for; `runtime` must outlive the
  /// generator.
  Generator(InferencePlan plan, Runtime& runtime, std::unique_ptr<GridCommunicators> communicators);
  Generator(const Generator&) = delete;
  Generator& operator=(const Generator&) = delete;

  /// The weights, to be loaded or initialized.
  ModelState& state() { return *state_; }

  /// Continues every prompt, as many at once as the plan has sequences: one that ends makes room for the
  /// next. A sequence ends when the consumer says so, after max_new_tokens, or at the plan's capacity.
  /// Collective over the tp group, with the same requests on all its ranks.
  GenerationReport run(std::span<const GenerationRequest> requests, const DecodingOptions& options,
                       const TokenConsumer& consumer);

  /// The parameter arena, laid out by plan().table.
  const Tensor& weights() const { return memory_.weights; }
  InferenceModel& model() { return *model_; }
  Stream& stream() { return *stream_; }
  const InferencePlan& plan() const { return plan_; }
  bool leads() const { return plan_.grid.rank(Axis::tensor) == 0; }

 private:
  class Batch;
  /// Runs the rows and returns the tokens chosen after them, of these sequences; `choose(row of logits, i)`
  /// on the leader says which, negative when its sequence ends.
  std::vector<std::int32_t> step(
      const InferenceRows& rows,
      const std::function<std::int32_t(std::span<const float> logits, std::size_t i)>& choose);
  std::span<const float> logits_of(std::int64_t row, std::int64_t rows);
  void share(std::vector<std::int32_t>& tokens);

  InferencePlan plan_;
  Runtime* runtime_;
  InferenceArenas memory_;  ///< outlives the communicators
  std::unique_ptr<GridCommunicators> communicators_;
  std::unique_ptr<Stream> stream_;
  ModelStateMemory state_memory_;
  std::unique_ptr<ModelState> state_;
  std::unique_ptr<InferenceModel> model_;
  DeviceMemory host_logits_, host_tokens_;
  std::vector<float> row_;  ///< logits of one row, all shards
  std::int64_t steps_ = 0;
  Watch watch_;
  FailureGuard guard_{communicators_, runtime_->device};
};

}  // namespace llama3d
