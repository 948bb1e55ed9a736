#include "train/evaluator.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "compute/kernels.hpp"
#include "train/batches.hpp"
#include "train/checkpoints.hpp"
#include "train/run_record.hpp"
#include "train/trainer.hpp"

namespace llama3d {
namespace {

/// Fills in what the settings leave to the checkpoint: sequence length and, returned, the model.
ModelConfig complete(TrainSettings& settings) {
  const CheckpointReader checkpoint(settings.load);
  try {
    const auto attributes = nlohmann::json::parse(checkpoint.attributes());
    if (settings.seq_length == 0) settings.seq_length = attributes.at("sequence");
    if (!settings.model.empty()) return load_model_config(settings.model);
    return parse_model_config(attributes.at("model_config").get<std::string>(), settings.load);
  } catch (const nlohmann::json::exception& e) {
    throw CheckpointError(
        fmt::format("checkpoint {} does not say what it holds ({}); give --model and --seq-length",
                    settings.load, e.what()));
  }
}

}  // namespace

Evaluation evaluate_checkpoint(TrainSettings settings, Runtime& runtime) {
  std::optional<RankPlan> plan;
  std::optional<TrainingBatches> batches;
  std::string attributes;
  fail_together(runtime.control, [&] {
    if (settings.load.empty())
      throw ConfigurationError("--load: no checkpoint given; name a checkpoint's folder");
    const ModelConfig model = complete(settings);
    const RunShape shape = run_shape(settings, model, runtime.control.size());
    attributes = checkpoint_attributes(settings, shape);
    plan.emplace(make_rank_plan(shape, runtime.control.rank(), runtime.device.kernels()));
    settings.valid_data = settings.data;
    batches.emplace(settings, *plan);
  });
  auto communicators = runtime.make_communicators(plan->grid);
  Engine engine(std::move(*plan), {}, runtime, std::move(communicators));
  ModelState state(engine.plan().table, engine.optimizer().slices(), engine.plan().grid,
                   engine.memory().state, runtime.device, engine.stream());
  Checkpoints({}, 0, attributes, runtime.control, [](const std::string&) {
  }).load(settings.load, state, false);
  engine.optimizer().gather_parameters();
  std::vector<BatchRows> rows;
  fail_together(runtime.control, [&] { rows = batches->read_validation(); });
  return engine.evaluate(rows);
}

}  // namespace llama3d
