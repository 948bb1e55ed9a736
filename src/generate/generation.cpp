#include "generate/generation.hpp"

#include <algorithm>
#include <optional>

#include "base/sha256.hpp"
#include "checkpoint/model_state.hpp"

namespace llama3d {
namespace {

/// Rows that prompts may take together, even where each is short: enough for the GEMMs to run at full
/// speed.
constexpr std::int64_t prompt_rows = 2048;

InferenceShape shape_of(const GenerationSettings& settings, const ModelConfig& model,
                        const std::vector<std::vector<std::uint32_t>>& prompts, std::int64_t replicas) {
  std::int64_t longest = 0, total = 0;
  for (const auto& prompt : prompts) {
    const std::int64_t length = std::ssize(prompt);
    if (length >= model.max_positions)
      throw ConfigurationError(fmt::format(
          "a prompt of {} tokens leaves no room for an answer: {} has positions for {}; shorten it", length,
          model.name, model.max_positions));
    longest = std::max(longest, length);
    total += length;
  }
  InferenceShape shape;
  shape.model = model;
  shape.tp = settings.tp_size;
  shape.compute = settings.precision->compute;
  shape.sequences =
      std::clamp<std::int64_t>((std::ssize(prompts) + replicas - 1) / replicas, 1, settings.batch_size);
  shape.capacity = longest + std::min(settings.decoding.max_new_tokens, model.max_positions - longest);
  shape.rows = std::max({longest, shape.sequences, std::min(total, prompt_rows)});
  return shape;
}

/// Every rank computes on its own copy of the prompts, so all must have the same.
void expect_same_prompts(const std::vector<std::vector<std::uint32_t>>& prompts, ControlPlane& control) {
  std::string bytes;
  for (const auto& prompt : prompts) {
    bytes += fmt::format("{} ", prompt.size());
    bytes.append(reinterpret_cast<const char*>(prompt.data()), prompt.size() * sizeof(prompt[0]));
  }
  const std::string own = sha256(bytes), first = control.broadcast(own, 0);
  fail_together(control, [&] {
    if (own != first)
      throw DataError(
          "the prompts are not those of rank 0 (files that differ between nodes, or standard input, which "
          "only rank 0 "
          "has?); give every rank the same");
  });
}

}  // namespace

void check_settings(const GenerationSettings& s) {
  const auto at_least_one = [](const char* option, std::int64_t value) {
    if (value < 1)
      throw ConfigurationError(fmt::format("`{} {}`: must be at least 1", field_of(option), value));
  };
  if (s.load.empty())
    throw ConfigurationError("`load`: no weights given; name a checkpoint's folder or a Hugging Face folder");
  at_least_one("tp-size", s.tp_size);
  at_least_one("batch-size", s.batch_size);
  at_least_one("max-new-tokens", s.decoding.max_new_tokens);
  if (s.pp_size != 1)
    throw ConfigurationError(fmt::format(
        "`pp_size {}`: generation has no pipeline stages; use `pp_size` 1 and `tp_size`", s.pp_size));
  check_sampling(s.decoding.sampling);
}

ModelConfig model_of(const GenerationSettings& settings, const WeightSource& weights) {
  return settings.model.empty() ? weights.model() : load_model_config(settings.model);
}

GenerationReport generate(const GenerationSettings& settings, const WeightSource& weights,
                          std::vector<std::vector<std::uint32_t>> prompts, Runtime& runtime,
                          const TokenConsumer& consumer) {
  ControlPlane& control = runtime.control;
  expect_same_prompts(prompts, control);
  std::optional<ProcessGrid> grid;
  std::optional<InferencePlan> plan;
  fail_together(control, [&] {
    check_settings(settings);
    const ModelConfig model = model_of(settings, weights);
    weights.check(model);
    grid.emplace(ProcessGrid::derive(control.size(), {.tp = settings.tp_size}, control.rank()));
    plan.emplace(make_inference_plan(shape_of(settings, model, prompts, grid->size(Axis::data)),
                                     grid->rank(Axis::tensor), runtime.device.kernels()));
  });
  auto communicators = runtime.make_communicators(*grid);
  fail_together(control, [&] { check_fits(*plan, DeviceCapacity::of(runtime.device, control.node_size())); });
  std::vector<GenerationRequest> requests;
  const auto replicas = static_cast<std::size_t>(grid->size(Axis::data));
  for (auto i = static_cast<std::size_t>(grid->rank(Axis::data)); i < prompts.size(); i += replicas)
    requests.push_back({i, std::move(prompts[i])});
  Generator generator(std::move(*plan), runtime, std::move(communicators));
  load_weights(weights, generator.plan().shape.model, generator.state(), control);
  return generator.run(requests, settings.decoding, consumer);
}

}  // namespace llama3d
