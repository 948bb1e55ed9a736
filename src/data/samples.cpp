#include "data/samples.hpp"

#include <cmath>

#include "base/error.hpp"
#include "data/packed_samples.hpp"
#include "data/stream_samples.hpp"

namespace llama3d {

Packing packing_from(std::string_view word) {
  for (const Packing packing : {Packing::automatic, Packing::stream, Packing::documents})
    if (word == word_of(packing)) return packing;
  throw ConfigurationError(
      fmt::format("`packing {}` is unknown (no such choice); use auto, stream or documents", word));
}

std::string_view word_of(Packing packing) {
  switch (packing) {
    case Packing::automatic: return "auto";
    case Packing::stream: return "stream";
    case Packing::documents: return "documents";
  }
  return {};
}

Packing resolved(Packing packing, const TokenFileReader& file) {
  if (packing != Packing::automatic) return packing;
  const bool instructions = file.info().has_loss_mask && file.info().has_documents;
  return instructions ? Packing::documents : Packing::stream;
}

std::unique_ptr<SampleList> make_samples(const TokenFileReader& file, Packing packing,
                                         const SampleOptions& options) {
  LLAMA3D_EXPECT(packing != Packing::automatic, "the packing of {} is not resolved", file.path().string());
  LLAMA3D_EXPECT(options.sequence > 0, "sequence of {} tokens", options.sequence);
  LLAMA3D_EXPECT(options.valid_fraction >= 0 && options.valid_fraction < 1, "valid_fraction is {}",
                 options.valid_fraction);
  LLAMA3D_EXPECT(options.split != Split::valid || options.valid_fraction > 0,
                 "no valid split without a share");
  if (packing == Packing::stream) return std::make_unique<StreamSamples>(file, options);
  return std::make_unique<PackedSamples>(file, options);
}

Range split_range(std::int64_t total, const SampleOptions& options) {
  if (options.split == Split::all || options.valid_fraction == 0) return {0, total};
  const auto share = std::llround(options.valid_fraction * static_cast<double>(total));
  const std::int64_t valid = std::max<std::int64_t>(1, share);
  if (options.split == Split::train) return {0, total - valid};
  return {total - valid, total};
}

bool leaves_none_to_train_on(Range range, const SampleOptions& options) {
  return range.end == 0 || (options.split == Split::valid && range.begin == 0);
}

}  // namespace llama3d
