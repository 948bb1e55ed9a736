#include "train/test_run.hpp"
#include "comm/local_communicator.hpp"

#include <cstring>
#include <limits>
#include <random>

#include "compute/kernels.hpp"
#include "support/mpi_fixture.hpp"
#include "support/relative_error.hpp"
#include "support/test_device.hpp"

namespace llama3d::test {
namespace {

std::vector<std::int32_t> part(const std::vector<std::int32_t>& values, std::int64_t begin,
                               std::int64_t count) {
  return {values.begin() + begin, values.begin() + begin + count};
}

/// Rows of samples [first, first + count), padded to `rows`; document rows become relative to the first row.
BatchRows rows_of(const GlobalBatch& batch, std::int64_t first, std::int64_t count, std::int64_t rows) {
  const std::int64_t begin = first * batch.sequence, tokens = count * batch.sequence;
  BatchRows r;
  r.ids = part(batch.ids, begin, tokens);
  r.targets = part(batch.targets, begin, tokens);
  for (std::int64_t t = 0; t < tokens; ++t) {
    const auto i = static_cast<std::size_t>(begin + t);
    const std::int64_t sample_begin = t / batch.sequence * batch.sequence;
    const bool documents = !batch.document_start.empty();
    r.start.push_back(static_cast<std::int32_t>(documents ? batch.document_start[i] - begin : sample_begin));
    r.end.push_back(
        static_cast<std::int32_t>(documents ? batch.document_end[i] - begin : sample_begin + batch.sequence));
    r.position.push_back(static_cast<std::int32_t>(documents ? batch.position[i] : t - sample_begin));
  }
  for (std::int64_t t = tokens; t < rows; ++t) {
    r.ids.push_back(0);
    r.targets.push_back(-1);
    r.start.push_back(static_cast<std::int32_t>(t));
    r.end.push_back(static_cast<std::int32_t>(t + 1));
    r.position.push_back(0);
  }
  return r;
}

}  // namespace

GlobalBatch random_batch(std::int64_t samples, std::int64_t sequence, std::int64_t vocabulary,
                         std::uint64_t seed) {
  std::mt19937_64 random(seed);
  GlobalBatch batch{samples, sequence, {}, {}, {}, {}, {}};
  for (std::int64_t i = 0; i < samples * sequence; ++i) {
    batch.ids.push_back(static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(vocabulary)));
    const auto target = static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(vocabulary));
    batch.targets.push_back(random() % 5 == 0 ? -1 : target);
  }
  for (std::int64_t sample = 0; sample < samples; ++sample) {
    const std::int64_t begin = sample * sequence, end = begin + sequence;
    const std::int64_t cut =
        begin + 1 + static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(sequence - 1));
    for (std::int64_t t = begin; t < end; ++t) {
      const std::int64_t start = t < cut ? begin : cut;
      batch.document_start.push_back(static_cast<std::int32_t>(start));
      batch.document_end.push_back(static_cast<std::int32_t>(t < cut ? cut : end));
      batch.position.push_back(static_cast<std::int32_t>(t - start));
    }
  }
  return batch;
}

TestRun::TestRun(const RunShape& shape, const OptimizerOptions& options, const Engine::MakeStore& make_store)
    : TestRun(shape, options, false, make_store) {}

TestRun TestRun::alone(const RunShape& shape, const OptimizerOptions& options) {
  return TestRun(shape, options, true, {});
}

TestRun::TestRun(const RunShape& shape, const OptimizerOptions& options, bool alone,
                 const Engine::MakeStore& make_store)
    : device_(make_test_device(control().node_rank(), control().node_size())),
      local_control_(alone ? make_local_control_plane() : nullptr) {
  ControlPlane& agreement = alone ? *local_control_ : control();
  const auto make = [this, alone, &agreement](const ProcessGrid& grid) {
    if (gpu_required()) return connect_gpus(grid, agreement, *device_);
    return alone ? make_local_communicators() : session().make_communicators(grid);
  };
  runtime_ = std::make_unique<Runtime>(
      Runtime{*device_, agreement, make, !alone && memory_registered(control().node_size())});
  RankPlan plan = make_rank_plan(shape, agreement.rank(), device_->kernels());
  auto communicators = runtime_->make_communicators(plan.grid);
  capacity_ = DeviceCapacity::of(*device_, agreement.node_size());
  engine_ =
      std::make_unique<Engine>(std::move(plan), options, *runtime_, std::move(communicators), make_store);
}

void TestRun::initialize(std::uint64_t seed) {
  // Larger than usual, so that every part of the model matters to the loss.
  engine_->state().initialize(seed, 0.1);
  engine_->optimizer().gather_parameters();
}

std::vector<float> read_tensor(const Tensor& tensor, Device& device, Stream& stream) {
  const DeviceMemory host = device.allocate_host(std::max<std::size_t>(tensor.bytes(), 1));
  device.download(host.get(), tensor, stream);
  stream.synchronize();
  std::vector<float> values(static_cast<std::size_t>(tensor.elements()));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = tensor.dtype() == DType::fp32 ? static_cast<const float*>(host.get())[i]
                                              : static_cast<float>(static_cast<const bf16*>(host.get())[i]);
  return values;
}

void write_tensor(const Tensor& tensor, const std::vector<float>& values, Device& device, Stream& stream) {
  const DeviceMemory host = device.allocate_host(std::max<std::size_t>(tensor.bytes(), 1));
  for (std::size_t i = 0; i < values.size(); ++i)
    if (tensor.dtype() == DType::fp32)
      static_cast<float*>(host.get())[i] = values[i];
    else
      static_cast<bf16*>(host.get())[i] = bf16(values[i]);
  device.upload(tensor, host.get(), stream);
  stream.synchronize();
}

std::vector<float> values_of(const OwnedPiece& piece, const GlobalTensors& tensors) {
  const GlobalTensor& tensor = tensors.at(piece.parameter->name);
  std::vector<float> values;
  for (const Rectangle& r : rectangles_of(piece))
    for (auto row = r.row_begin; row < r.row_end; ++row) {
      const auto from = tensor.values.begin() + row * tensor.columns + r.column_begin;
      values.insert(values.end(), from, from + r.columns());
    }
  return values;
}

std::vector<float> TestRun::read(const Tensor& tensor) {
  return read_tensor(tensor, *device_, engine_->stream());
}

void TestRun::write(const Tensor& tensor, const std::vector<float>& values) {
  write_tensor(tensor, values, *device_, engine_->stream());
}

void TestRun::set_weights(const GlobalTensors& weights) {
  engine_->state().initialize(0, 0);
  const ModelStateMemory& state = engine_->memory().state;
  for (const OwnedPiece& piece : owned_pieces(plan().table, engine_->optimizer().slices(), plan().grid)) {
    const std::vector<float> values = values_of(piece, weights);
    write(state.parameters.slice(piece.arena_begin, piece.arena_begin + piece.elements), values);
    if (state.adamw.master)
      write(state.adamw.master.slice(piece.state_begin, piece.state_begin + piece.elements), values);
  }
  engine_->optimizer().gather_parameters();
}

void TestRun::load(const WeightSource& source) {
  load_weights(source, plan().shape.model, engine_->state(), runtime_->control);
  engine_->optimizer().gather_parameters();
}

std::vector<BatchRows> TestRun::micro_batches(const GlobalBatch& batch) const {
  const std::int64_t size = plan().shape.micro_batch_size;
  const auto& grid = plan().grid;
  std::vector<BatchRows> all;
  for (std::int64_t first = 0; first < batch.samples; first += size * grid.size(Axis::data))
    all.push_back(rows_of(batch, first + grid.rank(Axis::data) * size, size, plan().layout.shape.rows));
  return all;
}

StepResult TestRun::step(const GlobalBatch& batch, std::int64_t step, double learning_rate) {
  return engine_->train_step(micro_batches(batch), step, learning_rate);
}

Evaluation TestRun::evaluate(const GlobalBatch& batch) {
  return engine_->evaluate(micro_batches(batch));
}

GlobalTensors TestRun::weights() {
  const ModelStateMemory& state = engine_->memory().state;
  return state.adamw.master ? gather(state.adamw.master, true, 1) : gather(state.parameters, false, 1);
}

GlobalTensors TestRun::gradients(double targets) {
  return gather(engine_->memory().state.gradients, false, 1 / targets);
}

GlobalTensors TestRun::gather(const Tensor& arena, bool state_arena, double scale) {
  const auto pieces = owned_pieces(plan().table, engine_->optimizer().slices(), plan().grid);
  // Each rank's rectangles as text: name, shape and place, then the values.
  std::string own;
  const auto put = [&own](const void* data, std::size_t bytes) {
    own.append(static_cast<const char*>(data), bytes);
  };
  const std::vector<float> values = read(arena);
  for (const OwnedPiece& piece : pieces) {
    if (!piece.writes) continue;
    const float* next = values.data() + (state_arena ? piece.state_begin : piece.arena_begin);
    for (const Rectangle& r : rectangles_of(piece)) {
      const Parameter& p = *piece.parameter;
      const std::size_t length = p.name.size();
      put(&length, sizeof length);
      put(p.name.data(), length);
      const std::int64_t shape[2] = {p.global_rows(), p.global_columns()};
      put(shape, sizeof shape);
      put(&r, sizeof r);
      put(next, static_cast<std::size_t>(r.elements()) * sizeof(float));
      next += r.elements();
    }
  }
  GlobalTensors tensors;
  for (const std::string& text : runtime_->control.all_gather(own)) {
    const char* at = text.data();
    const auto get = [&at](void* data, std::size_t bytes) {
      at = static_cast<const char*>(std::memcpy(data, at, bytes) ? at + bytes : at);
    };
    while (at < text.data() + text.size()) {
      std::size_t length = 0;
      get(&length, sizeof length);
      std::string name(length, ' ');
      get(name.data(), length);
      std::int64_t shape[2];
      get(shape, sizeof shape);
      Rectangle r;
      get(&r, sizeof r);
      GlobalTensor& tensor = tensors[name];
      // What no rank covers stays NaN and fails every comparison.
      if (tensor.values.empty())
        tensor = {shape[0], shape[1],
                  std::vector<float>(static_cast<std::size_t>(shape[0] * shape[1]),
                                     std::numeric_limits<float>::quiet_NaN())};
      for (auto row = r.row_begin; row < r.row_end; ++row)
        for (auto column = r.column_begin; column < r.column_end; ++column) {
          float value = 0;
          get(&value, sizeof value);
          tensor.values[static_cast<std::size_t>(row * shape[1] + column)] =
              static_cast<float>(value * scale);
        }
    }
  }
  return tensors;
}

ModelConfig small_model(bool tied, const char* architecture) {
  ModelConfig config;
  config.architecture = find_architecture(architecture);
  config.name = tied ? "small-tied" : "small";
  config.vocabulary = 131;
  config.hidden = 32;
  config.feed_forward = 44;
  config.layers = 8;
  config.query_heads = 8;
  config.key_value_heads = 4;
  config.head_dim = 6;
  config.max_positions = 64;
  config.rope_theta = 10000;
  config.tied_embeddings = tied;
  return config;
}

double largest_error(const GlobalTensors& actual, const GlobalTensors& expected, std::string* worst) {
  if (actual.size() != expected.size()) return std::numeric_limits<double>::infinity();
  double largest = 0;
  for (const auto& [name, tensor] : expected) {
    const auto found = actual.find(name);
    const double error = found == actual.end() ? std::numeric_limits<double>::infinity()
                                               : relative_error(std::span<const float>(found->second.values),
                                                                std::span(tensor.values));
    if (error > largest) {
      largest = error;
      if (worst) *worst = name;
    }
  }
  return largest;
}

}  // namespace llama3d::test
