// Generation with a cache against transformers, and against itself in other batches and on other grids.
#include "generate/generator.hpp"

#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>
#include <map>
#include <ostream>

#include "support/mpi_fixture.hpp"
#include "support/relative_error.hpp"
#include "support/test_device.hpp"
#include "train/golden_file.hpp"

namespace llama3d {
std::ostream& operator<<(std::ostream& out, DType dtype) {
  return out << name_of(dtype);
}
}  // namespace llama3d

using namespace llama3d;
using namespace llama3d::test;

namespace {

namespace data = boost::unit_test::data;

const auto models = data::make(
    {"untied_gqa", "tied_llama3_rope", "head_dim", "head_64", "odd_packed", "qwen2", "qwen3", "mistral"});

using Tokens = std::vector<std::uint32_t>;

/// A generator with a golden model, all ranks of the test one tp group.
class GoldenGenerator {
 public:
  GoldenGenerator(const std::string& model, std::int64_t sequences, std::int64_t capacity, std::int64_t rows,
                  DType compute = DType::fp32)
      : device_(make_test_device(control().node_rank(), control().node_size())) {
    const GoldenFile golden(model + ".h5");
    const auto make = [this](const ProcessGrid& grid) {
      return gpu_required() ? connect_gpus(grid, control(), *device_) : session().make_communicators(grid);
    };
    runtime_ = std::make_unique<Runtime>(Runtime{*device_, control(), make});
    InferencePlan plan = make_inference_plan({.model = golden.config(),
                                              .tp = control().size(),
                                              .compute = compute,
                                              .sequences = sequences,
                                              .capacity = capacity,
                                              .rows = rows},
                                             control().rank(), device_->kernels());
    auto communicators = runtime_->make_communicators(plan.grid);
    generator_ = std::make_unique<Generator>(std::move(plan), *runtime_, std::move(communicators));
    generator_->state().initialize(0, 0);
    const GlobalTensors weights = golden.tensors("/weights");
    const InferencePlan& made = generator_->plan();
    for (const OwnedPiece& piece : owned_pieces(made.table, owned_slices(made.table, 1, 0), made.grid))
      write_tensor(generator_->weights().slice(piece.arena_begin, piece.arena_begin + piece.elements),
                   values_of(piece, weights), *device_, generator_->stream());
  }

  /// New tokens of each prompt, the same on every rank. Sequences also end with the token `end`.
  std::vector<Tokens> run(const std::vector<Tokens>& prompts, const DecodingOptions& options, int end = -1) {
    std::vector<GenerationRequest> requests;
    for (const auto& prompt : prompts) requests.push_back({requests.size(), prompt});
    std::vector<Tokens> texts(prompts.size());
    std::vector<int> finished(prompts.size());
    const auto append = [&](const GenerationRequest& request, std::uint32_t token) {
      BOOST_CHECK_EQUAL(finished[request.number], 0);
      texts[request.number].push_back(token);
      return static_cast<int>(token) == end;
    };
    report = generator_->run(requests, options,
                             {append, [&](const GenerationRequest& request) { ++finished[request.number]; }});
    for (const int times : finished) BOOST_CHECK_EQUAL(times, leads());
    return texts;
  }

  Generator& generator() { return *generator_; }
  bool leads() const { return generator_->leads(); }
  /// Whole logits after the rows' choices, (choices, vocabulary).
  std::vector<float> logits(const InferenceRows& rows) {
    const Tensor all = generator_->model().forward(rows);
    const auto values = read_tensor(all, *device_, generator_->stream());
    const std::int64_t tp = all.shape()[0], padded = all.shape()[1], columns = all.shape()[2];
    std::vector<float> result;
    for (std::int64_t row = 0; row < std::ssize(rows.choices); ++row)
      for (std::int64_t id = 0; id < generator_->plan().shape.model.vocabulary; ++id)
        result.push_back(
            values[static_cast<std::size_t>((id / columns * padded + row) * columns + id % columns)]);
    BOOST_REQUIRE_LE(generator_->plan().shape.model.vocabulary, tp * columns);
    return result;
  }

  GenerationReport report;

 private:
  std::unique_ptr<Device> device_;
  std::unique_ptr<Runtime> runtime_;
  std::unique_ptr<Generator> generator_;
};

Tokens tokens_of(const std::string& dataset) {
  const auto values = GoldenFile("generation.h5").values(dataset);
  return {values.begin(), values.end()};
}

std::vector<Tokens> prompts_of(const std::string& model) {
  std::vector<Tokens> prompts;
  for (int i = 0; i < 3; ++i) prompts.push_back(tokens_of("/" + model + "/prompt_" + std::to_string(i)));
  return prompts;
}

/// Rows [begin, end) of every sample of a golden batch, the sample's number the slot; all of them chosen.
InferenceRows part_of(const GlobalBatch& batch, std::int64_t begin, std::int64_t end) {
  InferenceRows rows;
  for (std::int64_t sample = 0; sample < batch.samples; ++sample)
    for (std::int64_t p = begin; p < end; ++p) {
      rows.choices.push_back(static_cast<std::int32_t>(rows.ids.size()));
      rows.ids.push_back(batch.ids[static_cast<std::size_t>(sample * batch.sequence + p)]);
      rows.slot.push_back(static_cast<std::int32_t>(sample));
      rows.position.push_back(static_cast<std::int32_t>(p));
    }
  return rows;
}

}  // namespace

BOOST_DATA_TEST_CASE(greedy_tokens_are_those_of_transformers, models, model) {
  auto prompts = prompts_of(model);
  const Tokens longest = prompts.back();
  prompts.emplace_back(longest.begin() + 1, longest.end());
  GoldenGenerator generator(model, 3, 80, 40);
  const auto texts = generator.run(prompts, {.max_new_tokens = 48});
  if (!generator.leads()) return;
  for (int i = 0; i < 3; ++i) {
    const Tokens expected = tokens_of(std::string("/") + model + "/continuation_" + std::to_string(i));
    BOOST_CHECK_EQUAL_COLLECTIONS(texts[static_cast<std::size_t>(i)].begin(),
                                  texts[static_cast<std::size_t>(i)].end(), expected.begin(), expected.end());
  }
  // A prompt that lacks its first token is continued otherwise.
  BOOST_CHECK(texts[2] != texts[3]);
  BOOST_CHECK_EQUAL(generator.report.prompt_tokens, 1 + 7 + 23 + 22);
  BOOST_CHECK_EQUAL(generator.report.new_tokens, 4 * 48);
  BOOST_CHECK_EQUAL(generator.report.decoded_tokens, 4 * 47);
}

BOOST_DATA_TEST_CASE(cached_logits_are_those_of_a_whole_pass, models* data::make({DType::fp32, DType::bf16}),
                     model, compute) {
  const GoldenFile golden(std::string(model) + ".h5");
  const GlobalBatch batch = golden.batch("");
  const auto expected = golden.values("/logits");
  const std::int64_t vocabulary = golden.config().vocabulary, s = batch.sequence;
  GoldenGenerator generator(model, batch.samples * s, s, batch.samples * s, compute);
  std::vector<float> actual(expected.size());
  // Prompts of five tokens, then one token after another, then five at once, then the rest one by one.
  for (std::int64_t begin = 0; begin < s;) {
    const std::int64_t end = begin == 0 || begin == 10 ? begin + 5 : begin + 1;
    InferenceRows rows = part_of(batch, begin, end);
    rows.whole = begin == 0;
    const auto values = generator.logits(rows);
    for (std::size_t row = 0; row < rows.choices.size(); ++row)
      std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(row) * vocabulary, vocabulary,
                  actual.begin() + (rows.slot[row] * s + rows.position[row]) * vocabulary);
    begin = end;
  }
  // As in the golden tests of training.
  const double tolerance = compute == DType::fp32 ? 1e-5 : 0.015;
  for (std::int64_t row = 0; row < batch.samples * s; ++row) {
    const auto at = static_cast<std::size_t>(row * vocabulary), n = static_cast<std::size_t>(vocabulary);
    const double error = relative_error(std::span<const float>(actual).subspan(at, n),
                                        std::span<const double>(expected).subspan(at, n));
    // A single row in bf16 may be further off than all of them are together.
    BOOST_CHECK_LE(error, compute == DType::fp32 ? tolerance : 3 * tolerance);
  }
  const auto error = [&] {
    return relative_error(std::span<const float>(actual), std::span<const double>(expected));
  };
  BOOST_CHECK_LE(error(), tolerance);
  // One row out of place would be seen.
  std::rotate(actual.begin() + vocabulary, actual.begin() + vocabulary + 1, actual.begin() + 2 * vocabulary);
  BOOST_CHECK_GT(error(), tolerance);
}

BOOST_AUTO_TEST_CASE(what_is_decoded_beside_a_sequence_does_not_matter) {
  std::vector<Tokens> prompts;
  for (std::uint32_t i = 0; i < 9; ++i) prompts.push_back(Tokens(1 + 5 * i % 17, 10 + 3 * i));
  for (const double temperature : {0.0, 1.5}) {
    const DecodingOptions options{.sampling = {.temperature = temperature, .seed = 4}, .max_new_tokens = 30};
    GoldenGenerator all("untied_gqa", 9, 64, 100), few("untied_gqa", 2, 64, 20), one("untied_gqa", 1, 64, 17);
    // Sequences end at different times: a free place in the cache is taken by one that waited.
    const auto expected = all.run(prompts, options, 7);
    BOOST_CHECK(few.run(prompts, options, 7) == expected);
    BOOST_CHECK(one.run(prompts, options, 7) == expected);
    // The cache holds what went before, and none of it is seen.
    BOOST_CHECK(one.run(prompts, options, 7) == expected);
    if (!all.leads()) continue;
    for (const Tokens& text : expected) {
      BOOST_CHECK(text.size() == 30 || text.back() == 7);
      BOOST_CHECK(std::find(text.begin(), text.end() - 1, 7) == text.end() - 1);
    }
  }
}

BOOST_AUTO_TEST_CASE(a_sequence_ends_at_the_capacity) {
  GoldenGenerator generator("untied_gqa", 2, 20, 20);
  const auto texts = generator.run({Tokens(5, 3), Tokens(19, 4)}, {.max_new_tokens = 100});
  if (!generator.leads()) return;
  BOOST_CHECK_EQUAL(texts[0].size(), 15);
  BOOST_CHECK_EQUAL(texts[1].size(), 1);
}

BOOST_AUTO_TEST_CASE(ids_beyond_the_tokenizer_are_never_chosen) {
  GoldenGenerator generator("untied_gqa", 4, 64, 64);
  const auto texts = generator.run(
      {{1}, {2}, {3}, {4}}, {.sampling = {.temperature = 100}, .max_new_tokens = 40, .vocabulary = 50});
  std::uint32_t highest = 0;
  for (const Tokens& text : texts)
    for (const auto token : text) highest = std::max(highest, token);
  BOOST_CHECK_LT(highest, 50);
  if (generator.leads()) BOOST_CHECK_GT(highest, 40);
}
