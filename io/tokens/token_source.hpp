#pragma once
// What TokenFileReader reads: one of the formats of token files. For the files of this module.

#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "io/posix/posix_file.hpp"
#include "io/tokens/token_file.hpp"

namespace llama3d::io {

/// All functions throw IoError with the reason alone. Ranges are inside the file.
class TokenSource {
 public:
  virtual ~TokenSource() = default;
  virtual void read(std::int64_t begin, std::span<std::uint32_t> out) const = 0;
  /// Where info.has_loss_mask.
  virtual void read_loss_mask(std::int64_t begin, std::span<std::uint8_t> out) const;

  TokenFileInfo info;
  std::int64_t tokens = 0;
  std::vector<std::uint64_t> documents;  ///< as TokenFileReader::documents
  /// As TokenFileReader::without_checksums. The formats that are not ours have none.
  std::vector<std::string> without_checksums = {"tokens"};
};

/// Our own.
std::unique_ptr<TokenSource> open_hdf5_tokens(const std::filesystem::path& path);

/// Megatron-LM's indexed dataset: NAME.bin holds the tokens, NAME.idx, little-endian, "MMIDIDX\0\0", version
/// 1 (uint64), a byte for the type of a token, the numbers of sequences and of document bounds (uint64), each
/// sequence's length (int32) and place in NAME.bin (int64, bytes), and the first sequence of each document,
/// with the number of sequences at the end (int64). Either file may be named.
std::unique_ptr<TokenSource> open_megatron_tokens(const std::filesystem::path& path);
bool is_megatron_file(const std::filesystem::path& path);

/// llm.c: 256 int32 (magic, version, number of tokens), then the tokens: magic 20240520, version 1: uint16;
/// 20240801, version 7: uint32. Its scripts put GPT-2's end of text (50256), or Llama 3's begin of text
/// (128000), before each document: there documents begin here too, and a file without that token is one
/// document. llm.q: "BIN.TOK\n", then int32: version 1 or 2, 4 bytes a token, number of tokens, vocabulary
/// size, whether there is a loss mask (both from version 2 on); tokens (int32) from byte 1024 on, then the
/// mask, a bit a token, lowest first. Its script writes a vocabulary size that leaves out the tokens added to
/// it (Llama 3: 128000, the id of begin of text), so it counts as unknown. It does not say where documents
/// begin: the file is one document.
std::unique_ptr<TokenSource> open_llm_tokens(const std::filesystem::path& path);
bool is_llm_file(const std::filesystem::path& path);

/// Of one of the formats that are not ours.
bool is_foreign_token_file(const std::filesystem::path& path);

}  // namespace llama3d::io
