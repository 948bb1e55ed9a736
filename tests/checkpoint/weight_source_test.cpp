// Weights of Hugging Face folders and checkpoints, onto any grid: against what transformers computes from the
// same folder, and against damaged folders.
#include "checkpoint/weight_source.hpp"

#include <boost/test/unit_test.hpp>
#include <cmath>
#include <fstream>

#include "convert/weight_transfer.hpp"
#include "io/damage.hpp"
#include "io/safetensors/safetensors.hpp"
#include "support/error_message.hpp"
#include "support/mpi_fixture.hpp"
#include "support/relative_error.hpp"
#include "support/temporary_folder.hpp"
#include "train/golden_file.hpp"
#include "train/start_decision.hpp"

using namespace llama3d;
using namespace llama3d::test;
namespace fs = std::filesystem;

namespace {

/// Of fp32 results, as in golden_test.cpp; tests/golden/README.md has where it comes from.
constexpr double tolerance = 1e-5;

const std::vector<std::string> golden_folders = {"folder_untied", "folder_tied", "folder_qwen2",
                                                 "folder_qwen3", "folder_mistral"};

fs::path golden_folder(const std::string& name) {
  return fs::path(golden_directory()) / name;
}

std::vector<GridShape> grids() {
  if (control().size() == 1) return {{1, 1, 1}};
  return {{2, 2, 1}, {2, 1, 2}, {1, 1, 4}};
}

RunShape shape_of(const ModelConfig& model, const GridShape& grid, const GlobalBatch& batch, DType compute) {
  RunShape shape;
  shape.model = model;
  shape.grid = grid;
  shape.micro_batch_size = 1;
  shape.global_batch_size = batch.samples;
  shape.seq_length = batch.sequence;
  shape.precision = &precision_of(compute);
  return shape;
}

double relative(double actual, double expected) {
  return std::abs(actual - expected) / std::abs(expected);
}

/// Weights as they are after loading on a grid of all ranks.
GlobalTensors loaded_weights(const fs::path& folder, const GridShape& grid, DType compute = DType::fp32) {
  const auto source = open_weights(folder);
  GlobalBatch batch;
  batch.samples = grid.dp * grid.pp;
  batch.sequence = 8;
  TestRun run(shape_of(source->model(), grid, batch, compute), {});
  run.load(*source);
  return run.weights();
}

/// What the source itself says, converted to fp32.
GlobalTensors stored_weights(const WeightSource& source) {
  GlobalTensors tensors;
  for (const WeightTensor& tensor : model_tensors(source.model())) {
    const Rectangle all = whole(tensor.shape);
    GlobalTensor& values = tensors[tensor.name];
    values = {all.rows(), all.columns(), std::vector<float>(static_cast<std::size_t>(all.elements()))};
    source.read(tensor.name, all, values.values.data(), DType::fp32);
  }
  return tensors;
}

/// The same path on every rank; made and removed by rank 0.
class SharedFolder {
 public:
  SharedFolder() {
    if (control().rank() == 0) own_ = std::make_unique<TemporaryFolder>();
    path_ = control().broadcast(own_ ? own_->path().string() : "", 0);
  }
  ~SharedFolder() { control().barrier(); }
  fs::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::unique_ptr<TemporaryFolder> own_;
  fs::path path_;
};

}  // namespace

BOOST_AUTO_TEST_CASE(loss_is_that_of_transformers_on_every_grid) {
  for (const std::string& name : golden_folders) {
    const GoldenFile golden(name + ".h5");
    const GlobalBatch batch = golden.batch("");
    const double expected = golden.values("/loss").front();
    const auto source = open_weights(golden_folder(name));
    source->check(source->model());
    for (const GridShape& grid : grids()) BOOST_TEST_CONTEXT(name << " on " << grid.to_string()) {
        TestRun run(shape_of(source->model(), grid, batch, DType::fp32), {});
        run.load(*source);
        BOOST_CHECK_LE(relative(run.evaluate(batch).loss, expected), tolerance);
        BOOST_CHECK_EQUAL(largest_error(run.weights(), stored_weights(*source)), 0);
      }
  }
}

// The master weights are what is loaded, the bf16 parameters what computes: rounding them is a step of its
// own.
BOOST_AUTO_TEST_CASE(loss_in_bf16_is_near_that_of_transformers) {
  // Parameters and activations round by 2^-9 each; a loss averages the errors of its targets.
  constexpr double near = 0x1p-9;
  for (const std::string& name : golden_folders) {
    const GoldenFile golden(name + ".h5");
    const GlobalBatch batch = golden.batch("");
    const double expected = golden.values("/loss").front();
    const auto source = open_weights(golden_folder(name));
    const double of_zeros = std::log(static_cast<double>(source->model().vocabulary));
    BOOST_TEST_REQUIRE(relative(of_zeros, expected) > 4 * near, "parameters of 0 would pass");
    for (const GridShape& grid : grids()) BOOST_TEST_CONTEXT(name << " on " << grid.to_string()) {
        TestRun run(shape_of(source->model(), grid, batch, DType::bf16), {});
        run.load(*source);
        BOOST_TEST(relative(run.evaluate(batch).loss, expected) <= near);
      }
  }
}

BOOST_AUTO_TEST_CASE(logits_are_those_of_transformers) {
  for (const std::string& name : golden_folders) {
    const GoldenFile golden(name + ".h5");
    const GlobalBatch batch = golden.batch("");
    const auto expected = golden.values("/logits");  // of the first row
    const auto source = open_weights(golden_folder(name));
    TestRun run = TestRun::alone(shape_of(source->model(), {1, 1, 1}, batch, DType::fp32), {});
    run.load(*source);
    // The last micro-batch's logits are the ones there are: evaluate the first row alone.
    GlobalBatch first = batch;
    first.samples = 1;
    run.evaluate(first);
    std::vector<float> logits;
    run.engine().stage().visit_logits([&](std::int64_t, const Tensor& rows) {
      const auto values = run.read(rows);
      logits.insert(logits.end(), values.begin(), values.end());
    });
    BOOST_CHECK_LE(relative_error(std::span<const float>(logits), std::span<const double>(expected)),
                   tolerance);
    std::swap(logits.front(), logits[1]);
    BOOST_CHECK_GT(relative_error(std::span<const float>(logits), std::span<const double>(expected)),
                   tolerance);
  }
}

BOOST_AUTO_TEST_CASE(bf16_weights_load_into_bf16_bit_by_bit) {
  const GlobalTensors stored = stored_weights(*open_weights(golden_folder("folder_untied")));
  for (const GridShape& grid : grids())
    BOOST_CHECK_EQUAL(
        largest_error(loaded_weights(golden_folder("folder_untied"), grid, DType::bf16), stored), 0);
}

BOOST_AUTO_TEST_CASE(import_and_export_change_no_bit) {
  const SharedFolder folder;
  for (const std::string& name : golden_folders) BOOST_TEST_CONTEXT(name) {
      const fs::path input = golden_folder(name), checkpoint = folder / (name + "_checkpoint"),
                     output = folder / name;
      import_weights({input, checkpoint}, control(), {});
      ExportOptions back;
      back.input = checkpoint;
      back.output = output;
      back.shard_bytes = 10'000;
      const TransferSummary summary = export_weights(back, control(), {});
      BOOST_CHECK_GT(summary.files, 1);
      const SafetensorsReader before(input), after(output);
      BOOST_REQUIRE_EQUAL(before.tensors().size(), after.tensors().size());
      for (const SafetensorsTensor& tensor : before.tensors()) BOOST_TEST_CONTEXT(tensor.name) {
          const SafetensorsTensor* same = after.find(tensor.name);
          BOOST_REQUIRE(same);
          BOOST_CHECK(same->shape == tensor.shape);
          BOOST_CHECK_EQUAL(same->dtype, tensor.dtype == "F16" ? "F32" : tensor.dtype);
          const Rectangle all = whole(tensor.shape);
          std::vector<std::uint32_t> left(static_cast<std::size_t>(all.elements())), right(left.size());
          before.read(tensor.name, all, left.data(), DType::fp32);
          after.read(tensor.name, all, right.data(), DType::fp32);
          BOOST_CHECK(left == right);
        }
      BOOST_CHECK(differences(open_weights(input)->model(), open_weights(output)->model()).empty());
      BOOST_CHECK_EQUAL(open_weights(output)->origin().token_ids, open_weights(input)->origin().token_ids);
      BOOST_CHECK_EQUAL(open_weights(output)->origin().generation_config,
                        open_weights(input)->origin().generation_config);
      const GlobalTensors stored = stored_weights(*open_weights(input));
      for (const GridShape& grid : grids())
        BOOST_CHECK_EQUAL(largest_error(loaded_weights(checkpoint, grid), stored), 0);
    }
}

// What follows needs one rank only, since every rank checks for itself.
namespace {

using Entries = std::vector<SafetensorsEntry>;

/// A folder with the golden folder's config.json and these tensors, all zero.
void write_folder(const fs::path& folder, const std::string& config_of, const Entries& entries) {
  fs::create_directories(folder);
  fs::copy_file(golden_folder(config_of) / "config.json", folder / "config.json",
                fs::copy_options::overwrite_existing);
  SafetensorsWriter writer(folder / "model.safetensors", entries);
  const std::vector<float> zeros(1 << 16);
  for (const auto& entry : entries) writer.write(entry.name, zeros.data());
  writer.finish();
}

Entries entries_of(const std::string& config_of) {
  Entries entries;
  for (const auto& tensor : model_tensors(open_weights(golden_folder(config_of))->model()))
    entries.push_back({tensor.name, DType::fp32, tensor.shape});
  return entries;
}

void expect_refused(const fs::path& folder, std::initializer_list<std::string> words) {
  const auto open_and_check = [&] {
    const auto source = open_weights(folder);
    source->check(source->model());
  };
  BOOST_CHECK_EXCEPTION(open_and_check(), DataError, says(words));
}

}  // namespace

BOOST_AUTO_TEST_CASE(folders_that_do_not_hold_the_model_are_refused_by_name) {
  const TemporaryFolder folder;
  const std::string q = "model.layers.1.self_attn.q_proj.weight";
  const auto entry = [&](Entries& entries, const std::string& name) {
    return std::find_if(entries.begin(), entries.end(), [&](const auto& e) { return e.name == name; });
  };
  Entries entries = entries_of("folder_untied");
  entries.erase(entry(entries, q));
  write_folder(folder.path(), "folder_untied", entries);
  expect_refused(folder.path(), {folder.path().string(), q, "is missing"});

  entries = entries_of("folder_untied");
  entry(entries, q)->shape = {16, 32};
  write_folder(folder.path(), "folder_untied", entries);
  expect_refused(folder.path(), {q, "is 16 x 32, the model's is 32 x 16"});

  entries = entries_of("folder_untied");
  entries.push_back({"model.layers.2.mlp.up_proj.weight", DType::bf16, {32, 16}});
  write_folder(folder.path(), "folder_untied", entries);
  expect_refused(folder.path(), {"model.layers.2.mlp.up_proj.weight", "none of the model's"});

  fs::remove(folder / "model.safetensors");
  expect_refused(folder.path(), {"model.safetensors"});
  folder.write("config.json", std::string(100'000, '['));
  expect_refused(folder.path(), {"config.json", "nested"});
  BOOST_CHECK_EXCEPTION(open_weights(folder / "nothing"), CheckpointError, says({"no such folder"}));
}

BOOST_AUTO_TEST_CASE(what_a_model_does_without_is_ignored) {
  const TemporaryFolder folder;
  Entries entries = entries_of("folder_tied");
  entries.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", DType::fp32, {4}});
  entries.push_back({"lm_head.weight", DType::fp32, {259, 16}});
  write_folder(folder.path(), "folder_tied", entries);
  const auto source = open_weights(folder.path());
  BOOST_CHECK_NO_THROW(source->check(source->model()));
  entries.back().shape = {258, 16};
  write_folder(folder.path(), "folder_tied", entries);
  expect_refused(folder.path(), {"lm_head.weight"});
}

BOOST_AUTO_TEST_CASE(another_model_is_refused_by_key) {
  const auto source = open_weights(golden_folder("folder_untied"));
  ModelConfig other = source->model();
  other.rope_theta *= 2;
  BOOST_CHECK_NO_THROW(source->check(other));
  other.layers = 3;
  BOOST_CHECK_EXCEPTION(source->check(other), ConfigurationError,
                        says({"folder_untied", "num_hidden_layers is 2, here 3"}));
}

BOOST_AUTO_TEST_CASE(the_first_rank_decides_how_a_run_starts) {
  TrainSettings settings;
  settings.model = control().rank() == 0 ? "llama3.1-8b" : "llama3-tiny";
  StartDecision start = agreed_start(settings, control());
  const ModelConfig expected = load_model_config("llama3.1-8b");
  BOOST_TEST(start.model.name == expected.name);
  BOOST_TEST(to_json(start.model) == to_json(expected));
  BOOST_TEST(differences(start.model, expected).empty());
  BOOST_CHECK(start.kind == StartDecision::Kind::fresh);
  settings.model = "";
  settings.load = control().rank() == 0 ? golden_folder("folder_tied").string() : "nowhere";
  start = agreed_start(settings, control());
  BOOST_CHECK(start.kind == StartDecision::Kind::load);
  BOOST_REQUIRE_EQUAL(start.folders.size(), 1u);
  BOOST_TEST(start.folders[0] == golden_folder("folder_tied"));
  BOOST_TEST(start.model.name == golden_folder("folder_tied").string());
}
