#pragma once
// Token files: what `llama3d tokenize` writes and training reads. HDF5:
//   /tokens    (n) uint32       all documents, one after the other
//   /documents (d + 1) uint64   where each document begins, and n
//   /loss_mask (n) uint8        optional: 1 where the token is a target
//   attributes: format "llama3d tokens", version, tokenizer, tokenizer_sha256 (where it has a file),
//     vocabulary_size, largest_token (optional: where the file has tokens), created_by
// Those of Megatron-LM, llm.c and llm.q are read as they are; see token_source.hpp.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace llama3d {

struct TokenFileInfo {
  std::string tokenizer;             ///< name or file name of the tokenizer
  std::int64_t vocabulary_size = 0;  ///< 0: the file does not say
  std::string created_by;            ///< program, version and command line
  bool has_loss_mask = false;
  std::string tokenizer_hash = {};  ///< SHA-256 of the tokenizer's file; empty: unknown, or it has none
  /// Largest id among the tokens; negative: unknown. The writer finds it by itself.
  std::int64_t largest_token = -1;

  bool has_documents = true;  ///< the file says where they begin; else it is one

  /// Ids are below this; 0: unknown.
  std::int64_t id_bound() const { return largest_token >= 0 ? largest_token + 1 : vocabulary_size; }
};

/// Writes beside `path` and renames it at finish(): a file with its final name is complete. Of two writers of
/// one path the last to finish has the name.
class TokenFileWriter {
 public:
  /// Throws DataError when the file can't be created.
  TokenFileWriter(const std::filesystem::path& path, const TokenFileInfo& info);
  ~TokenFileWriter();
  /// Appends one document. `loss_mask` has a value a token when info.has_loss_mask, else is empty.
  /// Throws DataError for a token that is not below vocabulary_size, or when the disk is full.
  void append_document(std::span<const std::uint32_t> tokens, std::span<const std::uint8_t> loss_mask = {});
  /// Appends to a document that a later append_document() ends: for one that is not in memory whole.
  void append_piece(std::span<const std::uint32_t> tokens, std::span<const std::uint8_t> loss_mask = {});
  std::int64_t tokens() const;
  std::int64_t documents() const;
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Reads a range at a time; holds only the documents' offsets in memory.
class TokenFileReader {
 public:
  /// Throws DataError, naming file and reason: missing, truncated, not a token file, inconsistent.
  explicit TokenFileReader(const std::filesystem::path& path);
  ~TokenFileReader();
  TokenFileReader(TokenFileReader&&) noexcept;

  const TokenFileInfo& info() const;
  const std::filesystem::path& path() const;
  std::int64_t tokens() const;
  /// Document offsets, d + 1 of them, ascending, first 0, last tokens().
  const std::vector<std::uint64_t>& documents() const;
  /// What the file holds without checksums that reading compares: of "tokens", "documents", "loss_mask".
  const std::vector<std::string>& without_checksums() const;
  /// Tokens [begin, begin + out.size()). Throws DataError for a token that is not below vocabulary_size,
  /// where that is known.
  void read(std::int64_t begin, std::span<std::uint32_t> out) const;
  /// The loss mask of the same range; all ones when the file has none.
  void read_loss_mask(std::int64_t begin, std::span<std::uint8_t> out) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace llama3d
