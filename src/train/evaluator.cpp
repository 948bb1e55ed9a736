#include "train/evaluator.hpp"

#include <fmt/format.h>

#include <cmath>

#include "base/output.hpp"
#include "base/printable.hpp"
#include "checkpoint/weight_tokenizer.hpp"
#include "comm/failure.hpp"
#include "compute/kernels.hpp"
#include "train/batches.hpp"
#include "train/run_shape.hpp"

namespace llama3d {
namespace {

/// Fills in the model, which is returned, and what the settings leave to the weights.
ModelConfig complete(TrainSettings& settings, const WeightSource& source) {
  settings.valid_data = settings.data;
  settings.global_batch_size = 0;  // there are no steps
  if (settings.seq_length == 0) settings.seq_length = source.sequence();
  if (settings.seq_length == 0)
    throw ConfigurationError(
        fmt::format("`seq_length`: not given (and {} does not say in what lengths it was trained); give one",
                    settings.load));
  const ModelConfig model = settings.model.empty() ? source.model() : load_model_config(settings.model);
  source.check(model);
  return model;
}

}  // namespace

Evaluation evaluate_weights(TrainSettings settings, Runtime& runtime) {
  std::unique_ptr<WeightSource> source;
  std::optional<RankPlan> plan;
  std::optional<TrainingBatches> batches;
  RunShape shape;
  fail_together(runtime.control, [&] {
    if (settings.load.empty())
      throw ConfigurationError(
          "`load`: no weights given; name a checkpoint's folder or a Hugging Face folder");
    source = open_weights(settings.load);
    const ModelConfig model = complete(settings, *source);
    shape = run_shape(settings, model, runtime.control.size());
    shape.training = false;
  });
  // Before memory is planned: communicators take some of the device's.
  auto communicators = runtime.make_communicators(ProcessGrid(shape.grid, runtime.control.rank()));
  fail_together(runtime.control, [&] {
    Kernels& kernels = runtime.device.kernels();
    check_fits(shape, kernels, DeviceCapacity::of(runtime.device, runtime.control.node_size()));
    plan.emplace(make_rank_plan(shape, runtime.control.rank(), kernels));
    batches.emplace(settings, *plan);
  });
  expect_same_data(*batches, settings, runtime.control);
  Engine engine(std::move(*plan), {}, runtime, std::move(communicators));
  load_weights(*source, engine.plan().shape.model, engine.state(), runtime.control);
  if (runtime.control.rank() == 0)
    for (const std::string& doubt : doubts(*source, engine.plan().shape.model, batches->tokens()))
      print_log("warning: {}\n", printable(doubt, 4000));
  const Evaluation evaluation = evaluate_validation(engine, *batches, runtime.control);
  fail_together(runtime.control, [&] {
    if (evaluation.targets == 0)
      throw DataError(
          fmt::format("`data {}`: no token of the samples is a target (its loss mask leaves none); see "
                      "tokenize `loss_on`",
                      settings.data));
    if (!std::isfinite(evaluation.loss))
      throw NumericsError(
          fmt::format("`load {}`: the loss is not finite; the weights are damaged or diverged, or "
                      "`precision` is too low for them",
                      settings.load));
  });
  return evaluation;
}

Evaluation evaluate_validation(Engine& engine, const TrainingBatches& batches, ControlPlane& control) {
  double sum = 0, targets = 0;
  for (std::int64_t part = 0; part < batches.validation_parts(); ++part) {
    std::vector<BatchRows> rows;
    fail_together(control, [&] { rows = batches.read_validation(part); });
    const Evaluation evaluation = engine.evaluate(rows);
    if (evaluation.targets == 0) continue;
    sum += evaluation.loss * evaluation.targets;
    targets += evaluation.targets;
  }
  return {targets > 0 ? sum / targets : std::nan(""), targets};
}

}  // namespace llama3d
