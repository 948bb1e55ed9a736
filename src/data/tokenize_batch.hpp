#pragma once
// What `llama3d tokenize` hands to its threads: pieces of the inputs in, tokens out.

#include <span>

#include "data/document_input.hpp"
#include "data/tokenize.hpp"

namespace llama3d {

struct InputFile {
  std::filesystem::path path;
  InputFormat format;
};

struct RawPiece {
  std::size_t file;  ///< among the inputs
  RawText raw;
};

struct RawBatch {
  std::vector<RawPiece> pieces;
  std::size_t bytes = 0;
};

/// The tokens of a piece, or why there are none.
struct EncodedPiece {
  std::size_t file;
  std::size_t end;  ///< in the tokens of its batch
  bool ends_document;
  bool truncated = false;
  std::int64_t line = 0, record = 0;  ///< as RawText's
  std::string bad = {};               ///< of a record that can't be used
};

struct EncodedBatch {
  std::vector<std::uint32_t> tokens;
  std::vector<std::uint8_t> learn;  ///< empty, or a value a token
  std::vector<EncodedPiece> pieces;
  std::int64_t empty_documents = 0;
};

/// With `loss_mask`, EncodedBatch::learn is there. Throws DataError for invalid UTF-8 that is not replaced.
EncodedBatch encode(RawBatch batch, std::span<const InputFile> files, const Tokenizer& tokenizer,
                    const TokenizeOptions& options, bool loss_mask);

}  // namespace llama3d
