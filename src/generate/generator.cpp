#include "generate/generator.hpp"

#include <algorithm>
#include <chrono>

#include "checkpoint/model_state.hpp"
#include "comm/labels.hpp"
#include "compute/kernels.hpp"

namespace llama3d {
namespace {

using Clock = std::chrono::steady_clock;

/// A chosen token that its sequence ends with, and back.
std::int32_t ending(std::int32_t token) {
  return -1 - token;
}

std::size_t logits_bytes(const InferenceLayout& layout) {
  return size_of(layout.shape.compute()) *
         static_cast<std::size_t>(layout.padded(layout.slots) * layout.shape.tp * layout.shape.vocabulary);
}

}  // namespace

/// The request in each slot of the cache.
class Generator::Batch {
 public:
  Batch(std::span<const GenerationRequest> requests, const InferenceLayout& layout)
      : requests_(requests), layout_(&layout) {
    for (std::int64_t slot = layout.slots; slot-- > 0;) free_.push_back(static_cast<std::int32_t>(slot));
  }

  struct Sequence {
    const GenerationRequest* request;
    std::int32_t slot, token = 0;
    std::int64_t tokens, new_tokens = 0;  ///< in the cache, and chosen
  };

  bool done() const { return next_ == requests_.size() && active_.empty(); }
  bool admits() const { return next_ < requests_.size() && !free_.empty(); }

  /// The prompts of waiting sequences, as many as there are slots and rows for.
  InferenceRows admit() {
    InferenceRows rows;
    rows.whole = true;
    while (admits() && rows.ids.size() + requests_[next_].prompt.size() <=
                           static_cast<std::size_t>(layout_->shape.rows)) {
      const GenerationRequest& request = requests_[next_++];
      const auto length = static_cast<std::int64_t>(request.prompt.size());
      active_.push_back({.request = &request, .slot = free_.back(), .tokens = length});
      free_.pop_back();
      rows.ids.insert(rows.ids.end(), request.prompt.begin(), request.prompt.end());
      rows.slot.insert(rows.slot.end(), request.prompt.size(), active_.back().slot);
      for (std::int64_t p = 0; p < length; ++p) rows.position.push_back(static_cast<std::int32_t>(p));
      rows.choices.push_back(static_cast<std::int32_t>(rows.ids.size() - 1));
    }
    return rows;
  }

  /// The last token of each active sequence.
  InferenceRows next_tokens() {
    InferenceRows rows;
    for (Sequence& s : active_) {
      rows.ids.push_back(s.token);
      rows.slot.push_back(s.slot);
      rows.position.push_back(static_cast<std::int32_t>(s.tokens++));
      rows.choices.push_back(static_cast<std::int32_t>(rows.choices.size()));
    }
    return rows;
  }

  std::span<Sequence> newest(std::size_t count) { return std::span(active_).last(count); }

  /// Gives the last tokens.size() sequences their tokens; those that end leave.
  void append(std::span<const std::int32_t> tokens) {
    const auto sequences = newest(tokens.size());
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      sequences[i].token = tokens[i];
      ++sequences[i].new_tokens;
      if (tokens[i] < 0) free_.push_back(sequences[i].slot);
    }
    std::erase_if(active_, [](const Sequence& s) { return s.token < 0; });
  }

 private:
  std::span<const GenerationRequest> requests_;
  const InferenceLayout* layout_;
  std::size_t next_ = 0;
  std::vector<Sequence> active_;
  std::vector<std::int32_t> free_;  ///< slots
};

Generator::Generator(InferencePlan plan, Runtime& runtime, std::unique_ptr<GridCommunicators> communicators)
    : plan_(std::move(plan)),
      runtime_(&runtime),
      memory_(allocate(plan_, runtime.device)),
      communicators_(std::move(communicators)),
      stream_(runtime.device.create_stream(StreamPriority::normal)),
      host_logits_(runtime.device.allocate_host(logits_bytes(plan_.layout))),
      host_tokens_(
          runtime.device.allocate_host(static_cast<std::size_t>(plan_.layout.slots) * sizeof(std::int32_t))),
      watch_(runtime.watchdog, communicators_->log.activity(), communicators_->all()) {
  state_memory_.parameters = memory_.weights;
  state_ = std::make_unique<ModelState>(plan_.table, owned_slices(plan_.table, 1, 0), plan_.grid,
                                        state_memory_, runtime.device, *stream_);
  model_ =
      std::make_unique<InferenceModel>(plan_.shape.model, plan_.layout, plan_.table, runtime.device, *stream_,
                                       (*communicators_)[Axis::tensor], memory_.model, memory_.weights);
}

GenerationReport Generator::run(std::span<const GenerationRequest> requests, const DecodingOptions& options,
                                const TokenConsumer& consumer) {
  for (const GenerationRequest& request : requests)
    LLAMA3D_EXPECT(!request.prompt.empty() && std::ssize(request.prompt) < plan_.layout.capacity &&
                       std::ssize(request.prompt) <= plan_.layout.shape.rows,
                   "a prompt of {} tokens in a plan for {}", request.prompt.size(), plan_.layout.capacity);
  TokenSampler sampler(options.sampling);
  const std::int64_t model_vocabulary = plan_.shape.model.vocabulary;
  const auto vocabulary = static_cast<std::size_t>(
      options.vocabulary > 0 ? std::min(options.vocabulary, model_vocabulary) : model_vocabulary);
  Batch batch(requests, plan_.layout);
  GenerationReport report;
  while (!batch.done()) {
    const auto begin = Clock::now();
    const bool admits = batch.admits();
    const InferenceRows rows = admits ? batch.admit() : batch.next_tokens();
    const auto sequences = batch.newest(rows.choices.size());
    const auto tokens = step(rows, [&](std::span<const float> logits, std::size_t i) {
      const Batch::Sequence& s = sequences[i];
      const auto token = static_cast<std::int32_t>(
          sampler.choose(logits.first(vocabulary), s.request->number, static_cast<std::uint64_t>(s.tokens)));
      const bool told = consumer.append(*s.request, static_cast<std::uint32_t>(token));
      const bool ends =
          told || s.new_tokens + 1 >= options.max_new_tokens || s.tokens + 1 >= plan_.layout.capacity;
      if (ends && consumer.finish) consumer.finish(*s.request);
      return ends ? ending(token) : token;
    });
    batch.append(tokens);
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    report.new_tokens += std::ssize(tokens);
    if (admits) report.prompt_tokens += std::ssize(rows.ids);
    if (!admits) report.decoded_tokens += std::ssize(tokens);
    (admits ? report.prompt_seconds : report.decode_seconds) += seconds;
  }
  return report;
}

std::vector<std::int32_t> Generator::step(
    const InferenceRows& rows,
    const std::function<std::int32_t(std::span<const float> logits, std::size_t i)>& choose) {
  CommunicationLog& log = communicators_->log;
  log.end_interval();
  log.activity().at({++steps_, -1});
  const Tensor logits = model_->forward(rows);
  std::vector<std::int32_t> tokens(rows.choices.size());
  if (leads()) {
    runtime_->device.download(host_logits_.get(), logits, *stream_);
    stream_->synchronize();
    for (std::size_t i = 0; i < tokens.size(); ++i)
      tokens[i] = choose(logits_of(static_cast<std::int64_t>(i), logits.shape()[1]), i);
  }
  share(tokens);
  log.activity().pass();
  return tokens;
}

std::span<const float> Generator::logits_of(std::int64_t row, std::int64_t rows) {
  const StageShape& shape = plan_.layout.shape;
  row_.resize(static_cast<std::size_t>(shape.tp * shape.vocabulary));
  for (std::int64_t shard = 0; shard < shape.tp; ++shard) {
    const auto widen = [&](const auto* all) {
      std::transform(all + (shard * rows + row) * shape.vocabulary,
                     all + (shard * rows + row + 1) * shape.vocabulary,
                     row_.begin() + shard * shape.vocabulary, [](auto x) { return static_cast<float>(x); });
    };
    if (shape.compute() == DType::bf16)
      widen(static_cast<const bf16*>(host_logits_.get()));
    else
      widen(static_cast<const float*>(host_logits_.get()));
  }
  return row_;
}

void Generator::share(std::vector<std::int32_t>& tokens) {
  Communicator& tp = (*communicators_)[Axis::tensor];
  if (tp.size() == 1) return;
  const Tensor device = memory_.model.tokens.slice(0, std::ssize(tokens));
  auto* host = static_cast<std::int32_t*>(host_tokens_.get());
  std::copy(tokens.begin(), tokens.end(), host);
  if (leads()) runtime_->device.upload(device, host, *stream_);
  tp.broadcast(device, 0, labels::tp_tokens, *stream_)->wait(*stream_);
  runtime_->device.download(host, device, *stream_);
  stream_->synchronize();
  std::copy_n(host, tokens.size(), tokens.begin());
}

}  // namespace llama3d
