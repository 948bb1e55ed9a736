// The model against Hugging Face transformers: logits, loss, every parameter's gradient, ten optimizer steps.
#include <algorithm>
#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>
#include <cmath>
#include <ostream>

#include "optim/learning_rate.hpp"
#include "support/mpi_fixture.hpp"
#include "support/relative_error.hpp"
#include "train/golden_file.hpp"

namespace llama3d {
std::ostream& operator<<(std::ostream& out, DType dtype) {
  return out << name_of(dtype);
}
}  // namespace llama3d

using namespace llama3d;
using namespace llama3d::test;

namespace {

/// Largest relative differences allowed; tests/golden/README.md has where they come from.
struct Tolerance {
  double loss, logits, gradients, weights;
};

Tolerance tolerance_of(DType compute, const std::string& file) {
  if (compute == DType::fp32) return {1e-5, 1e-5, 1e-5, 1e-5};
  // Gradients of biases of keys, and of norms of heads, are sums that nearly cancel.
  const bool cancels = file == "qwen2.h5" || file == "qwen3.h5";
  return {.loss = 2e-3,
          .logits = cancels ? 0.017 : 0.015,
          .gradients = cancels ? 0.051 : 0.035,
          .weights = 0.035};
}

struct Grid {
  int tp, pp, dp;
  ScheduleKind schedule = ScheduleKind::one_f_one_b;
};

/// Grids of the test's ranks on which every golden model runs.
std::vector<Grid> grids() {
  if (control().size() == 1) return {{1, 1, 1}};
  if (control().size() == 8)
    return {{2, 2, 2}, {2, 2, 2, ScheduleKind::gpipe}, {2, 2, 2, ScheduleKind::zero_bubble}};
  return {{2, 2, 1}, {2, 1, 2}, {1, 2, 2, ScheduleKind::zero_bubble}, {1, 1, 4}};
}

RunShape shape_of(const GoldenFile& golden, const Grid& grid, std::int64_t samples, std::int64_t sequence,
                  std::int64_t micro_batch, DType compute) {
  RunShape shape;
  shape.precision = &precision_of(compute);
  shape.model = golden.config();
  shape.grid = {grid.tp, grid.pp, grid.dp};
  shape.pipeline_schedule = grid.schedule;
  shape.micro_batch_size = micro_batch;
  shape.global_batch_size = samples;
  shape.seq_length = sequence;
  return shape;
}

double relative(double actual, double expected) {
  return std::abs(actual - expected) / std::abs(expected);
}

void check_pass(const std::string& file, const std::string& group, DType compute) {
  const Tolerance tolerance = tolerance_of(compute, file);
  const GoldenFile golden(file);
  const GlobalBatch batch = golden.batch(group);
  const std::string prefix = group.empty() ? "" : "/" + group;
  const GlobalTensors expected = golden.tensors(prefix + "/gradients");
  for (const Grid& grid : grids())
    BOOST_TEST_CONTEXT(file << " " << group << " on TP " << grid.tp << " PP " << grid.pp << " DP "
                            << grid.dp) {
      TestRun run(shape_of(golden, grid, batch.samples, batch.sequence, 1, compute), {});
      run.set_weights(golden.tensors("/weights"));
      const StepResult result = run.step(batch, 1, 0);
      BOOST_CHECK_LE(relative(result.loss, golden.values(prefix + "/loss").front()), tolerance.loss);
      const GlobalTensors gradients = run.gradients(result.targets);
      for (const auto& [name, tensor] : expected) {
        const double error = relative_error(std::span<const float>(gradients.at(name).values),
                                            std::span<const float>(tensor.values));
        BOOST_CHECK_MESSAGE(error <= tolerance.gradients, "gradient of " << name << " differs by " << error);
      }
      BOOST_CHECK_EQUAL(gradients.size(), expected.size());
    }
}

void check_logits(const std::string& file, const std::string& group, DType compute) {
  const Tolerance tolerance = tolerance_of(compute, file);
  const GoldenFile golden(file);
  const GlobalBatch batch = golden.batch(group);
  const auto expected = golden.values((group.empty() ? "" : "/" + group) + "/logits");
  TestRun run =
      TestRun::alone(shape_of(golden, {1, 1, 1}, batch.samples, batch.sequence, batch.samples, compute), {});
  run.set_weights(golden.tensors("/weights"));
  const Evaluation evaluation = run.evaluate(batch);
  BOOST_CHECK_LE(
      relative(evaluation.loss, golden.values((group.empty() ? "" : "/" + group) + "/loss").front()),
      tolerance.loss);
  std::vector<float> logits;
  run.engine().stage().visit_logits([&](std::int64_t, const Tensor& rows) {
    const auto values = run.read(rows);
    logits.insert(logits.end(), values.begin(), values.end());
  });
  const double error = relative_error(std::span<const float>(logits), std::span<const double>(expected));
  BOOST_CHECK_MESSAGE(error <= tolerance.logits, file << ": logits differ by " << error);
  // One row of them out of place would be seen.
  const auto row = logits.begin() + static_cast<std::ptrdiff_t>(logits.size() / 2);
  std::rotate(row, row + 1, row + golden.config().vocabulary);
  BOOST_CHECK_GT(relative_error(std::span<const float>(logits), std::span<const double>(expected)),
                 tolerance.logits);
}

void check_steps(const std::string& file, DType compute) {
  const Tolerance tolerance = tolerance_of(compute, file);
  const GoldenFile golden(file);
  const auto losses = golden.values("/losses"), norms = golden.values("/gradient_norms"),
             rates = golden.values("/learning_rates");
  OptimizerOptions options;
  options.beta1 = golden.attribute("beta1");
  options.beta2 = golden.attribute("beta2");
  options.epsilon = golden.attribute("epsilon");
  options.weight_decay = golden.attribute("weight_decay");
  options.gradient_clip = golden.attribute("grad_clip");
  LearningRateSchedule schedule;
  schedule.peak = golden.attribute("learning_rate");
  schedule.minimum = golden.attribute("min_learning_rate");
  schedule.warmup_steps = static_cast<std::int64_t>(golden.attribute("warmup_steps"));
  schedule.steps = static_cast<std::int64_t>(golden.attribute("steps"));
  for (const Grid& grid : grids())
    BOOST_TEST_CONTEXT(file << " on TP " << grid.tp << " PP " << grid.pp << " DP " << grid.dp) {
      const GlobalBatch first = golden.step_batch(1);
      TestRun run(shape_of(golden, grid, first.samples, first.sequence, 1, compute), options);
      run.set_weights(golden.tensors("/weights"));
      for (int step = 1; step <= 10; ++step) {
        const auto i = static_cast<std::size_t>(step - 1);
        const double rate = schedule.at(step);
        BOOST_CHECK_LE(relative(rate, rates[i]), 1e-12);
        const StepResult result = run.step(golden.step_batch(step), step, rate);
        BOOST_CHECK_LE(relative(result.loss, losses[i]), tolerance.loss);
        BOOST_CHECK_LE(relative(result.gradient_norm, norms[i]), tolerance.gradients);
      }
      std::string worst;
      const double error = largest_error(run.weights(), golden.tensors("/final_weights"), &worst);
      BOOST_CHECK_MESSAGE(error <= tolerance.weights, worst << " differs by " << error);
    }
}

}  // namespace

namespace data = boost::unit_test::data;
const auto precisions = data::make({DType::fp32, DType::bf16});

BOOST_DATA_TEST_CASE(gradients_of_grouped_query_attention, precisions, compute) {
  check_pass("untied_gqa.h5", "", compute);
}
BOOST_DATA_TEST_CASE(gradients_of_tied_embeddings_and_rope_scaling, precisions, compute) {
  check_pass("tied_llama3_rope.h5", "", compute);
}
BOOST_DATA_TEST_CASE(gradients_with_a_head_size_of_its_own, precisions, compute) {
  check_pass("head_dim.h5", "", compute);
}
BOOST_DATA_TEST_CASE(gradients_with_the_head_size_of_a_real_model, precisions, compute) {
  check_pass("head_64.h5", "", compute);
  check_pass("head_64.h5", "packed", compute);
}
BOOST_DATA_TEST_CASE(gradients_of_odd_sizes, precisions, compute) {
  check_pass("odd_packed.h5", "", compute);
}
BOOST_DATA_TEST_CASE(gradients_of_packed_documents, precisions, compute) {
  check_pass("odd_packed.h5", "packed", compute);
}

BOOST_DATA_TEST_CASE(gradients_of_biases, precisions, compute) {
  for (const char* group : {"", "packed"}) check_pass("qwen2.h5", group, compute);
}
BOOST_DATA_TEST_CASE(gradients_of_norms_of_heads, precisions, compute) {
  for (const char* group : {"", "packed"}) check_pass("qwen3.h5", group, compute);
}
BOOST_DATA_TEST_CASE(gradients_of_mistral, precisions, compute) {
  check_pass("mistral.h5", "", compute);
}

BOOST_DATA_TEST_CASE(logits, precisions, compute) {
  for (const char* file : {"untied_gqa.h5", "tied_llama3_rope.h5", "head_dim.h5", "head_64.h5",
                           "odd_packed.h5", "qwen2.h5", "qwen3.h5", "mistral.h5"})
    check_logits(file, "", compute);
  for (const char* file : {"head_64.h5", "odd_packed.h5", "qwen2.h5", "qwen3.h5"})
    check_logits(file, "packed", compute);
}

BOOST_DATA_TEST_CASE(ten_optimizer_steps, precisions, compute) {
  check_steps("adamw_untied.h5", compute);
}
BOOST_DATA_TEST_CASE(ten_optimizer_steps_with_tied_embeddings, precisions, compute) {
  check_steps("adamw_tied.h5", compute);
}
BOOST_DATA_TEST_CASE(ten_optimizer_steps_with_biases_that_do_not_decay, precisions, compute) {
  check_steps("adamw_qwen2.h5", compute);
}
BOOST_DATA_TEST_CASE(ten_optimizer_steps_with_norms_of_heads, precisions, compute) {
  check_steps("adamw_qwen3.h5", compute);
}
