#pragma once
// How the documents of a token file become samples of one length.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/tokens/token_file.hpp"

namespace llama3d {

enum class Packing {
  automatic,  ///< documents where the file has a loss mask and says where they begin, else stream
  stream,     ///< samples are cut from the documents, one after the other, wherever they end
  documents,  ///< samples are filled with whole documents
};

Packing packing_from(std::string_view word);
std::string_view word_of(Packing packing);

enum class Split { all, train, valid };

/// Tokens [begin, begin + length) of the file, which follow one another in a sample.
struct Stretch {
  std::int64_t begin = 0, length = 0;
  bool continues = false;  ///< attention and positions go on from the stretch before it in the sample
  bool target_after =
      false;  ///< the last token has the one behind the stretch for a target; else it has none
};

struct SampleOptions {
  std::int64_t sequence = 0;  ///< most tokens of a sample
  Split split = Split::all;
  double valid_fraction = 0;       ///< share of the samples or documents, at the end, that belongs to valid
  bool separate_documents = true;  ///< attention and positions restart at every document
};

/// The samples of one epoch in order, a function of the file and the options alone.
class SampleList {
 public:
  virtual ~SampleList() = default;
  virtual std::int64_t samples() const = 0;
  /// Input tokens of a sample, without the padding behind them.
  virtual std::int64_t tokens(std::int64_t sample) const = 0;
  /// Replaces `stretches` by those of a sample, in their order.
  virtual void stretches(std::int64_t sample, std::vector<Stretch>& stretches) const = 0;
  /// One line for people: how many, and how well they are filled.
  virtual std::string describe() const = 0;
};

/// The list for this file. `packing` must not be automatic. Both throw DataError when the file is too short
/// for one sample, or for one to train on and one to validate on.
std::unique_ptr<SampleList> make_samples(const TokenFileReader& file, Packing packing,
                                         const SampleOptions& options);
/// What automatic means for this file.
Packing resolved(Packing packing, const TokenFileReader& file);

}  // namespace llama3d
