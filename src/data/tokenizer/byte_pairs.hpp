#pragma once
// Byte-pair encoding of one piece of text.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace llama3d {

/// Where tokens `left` and `right` stand side by side they may become one; lower ranks go first, and of equal
/// ones the leftmost.
struct Merge {
  std::uint32_t left, right, rank, merged;
};

/// Tokens that are text, and how single bytes grow into them.
struct Vocabulary {
  std::vector<std::string> tokens;  ///< by id; empty where the id is none of these
  std::vector<Merge> merges;        ///< of two that are given for the same pair, the later counts
  bool whole_pieces_first = true;   ///< a piece that is a token is not put together from bytes
};

/// Ids of byte strings, without a copy of them: open addressing, the short ones compared as numbers.
class TokenIndex {
 public:
  static constexpr std::uint32_t none = ~std::uint32_t{0};

  /// `tokens` must outlive this. Of equal ones, the first counts.
  explicit TokenIndex(const std::vector<std::string>& tokens);
  std::uint32_t find(std::string_view token) const;

 private:
  struct Slot {
    std::uint64_t key = 0;  ///< the bytes, where there are eight at most; else their hash
    std::uint32_t id = none;
    std::uint32_t length = 0;
  };
  static std::uint64_t key_of(std::string_view token);
  /// Of the token, or the free one where it belongs.
  std::size_t place_of(std::string_view token) const;

  const std::vector<std::string>& tokens_;
  std::vector<Slot> slots_;
  int shift_;
};

class BytePairs {
 public:
  /// Every byte must be a token; see missing_byte().
  explicit BytePairs(Vocabulary vocabulary);
  BytePairs(const BytePairs&) = delete;
  BytePairs& operator=(const BytePairs&) = delete;

  /// Appends the tokens of a piece, which is not empty. Time n log n at most.
  void encode(std::string_view piece, std::vector<std::uint32_t>& tokens) const;
  /// The bytes of a token; none for an id that has no text.
  std::string_view text(std::uint32_t id) const {
    return id < vocabulary_.tokens.size() ? std::string_view(vocabulary_.tokens[id]) : std::string_view();
  }

 private:
  struct Pair {
    std::uint64_t key = ~std::uint64_t{0};  ///< left in the upper half, right in the lower
    std::uint32_t rank = 0, merged = 0;
  };
  /// The rank of what the two become is `none` where there is no merge.
  const Pair& find(std::uint32_t left, std::uint32_t right) const;
  Pair& slot(std::uint64_t key);
  void encode_short(std::string_view piece, std::vector<std::uint32_t>& tokens) const;
  void encode_long(std::string_view piece, std::vector<std::uint32_t>& tokens) const;

  Vocabulary vocabulary_;
  TokenIndex index_;
  std::vector<std::uint32_t> bytes_;  ///< the token of every byte
  std::vector<Pair> pairs_;
  int pair_shift_;
  std::vector<Pair> byte_pairs_;  ///< of two single bytes, the first in the upper half of the place
};

/// The lowest byte that is no token, or -1.
int missing_byte(const TokenIndex& index);

/// All merges of a vocabulary that ranks its tokens by their ids: any two that make a third.
std::vector<Merge> merges_by_id(const std::vector<std::string>& tokens);

}  // namespace llama3d
