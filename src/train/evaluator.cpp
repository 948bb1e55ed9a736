#include "train/evaluator.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "compute/kernels.hpp"
#include "train/batches.hpp"
#include "train/checkpoints.hpp"
#include "train/trainer.hpp"

namespace llama3d {
namespace {

ModelConfig recorded_model(const std::string& folder) {
  const CheckpointReader checkpoint(folder);
  try {
    return parse_model_config(
        nlohmann::json::parse(checkpoint.attributes()).at("model_config").get<std::string>(), folder);
  } catch (const nlohmann::json::exception& e) {
    throw CheckpointError(
        fmt::format("{}: no model configuration in it ({}); give --model", folder, e.what()));
  }
}

}  // namespace

Evaluation evaluate_checkpoint(TrainSettings settings, Runtime& runtime) {
  std::optional<RankPlan> plan;
  std::optional<TrainingBatches> batches;
  fail_together(runtime.control, [&] {
    if (settings.load.empty())
      throw ConfigurationError("--load: no checkpoint given; name a checkpoint's folder");
    const bool recorded = settings.model.empty();
    if (recorded) settings.model = "llama3-tiny";
    RunShape shape = run_shape(settings, runtime.control.size());
    if (recorded) shape.model = recorded_model(settings.load);
    plan.emplace(make_rank_plan(shape, runtime.control.rank(), runtime.device.kernels()));
    settings.valid_data = settings.data;
    batches.emplace(settings, *plan);
  });
  Engine engine(std::move(*plan), {}, runtime);
  ModelState state(engine.plan().table, engine.optimizer().slices(), engine.plan().grid,
                   engine.memory().state, runtime.device, engine.stream());
  Checkpoints({}, 0, runtime.control, [](const std::string&) {}).load(settings.load, state, false);
  engine.optimizer().gather_parameters();
  std::vector<BatchRows> rows;
  fail_together(runtime.control, [&] { rows = batches->read_validation(); });
  return engine.evaluate(rows);
}

}  // namespace llama3d
