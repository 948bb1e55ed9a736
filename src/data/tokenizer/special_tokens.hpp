#pragma once
// Tokens that stand for no text of their own: begin of text, end of a turn.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llama3d {

struct SpecialToken {
  std::string name;  ///< as it stands in text: "<|eot_id|>"
  std::uint32_t id;
};

class SpecialTokens {
 public:
  /// Several names may have one id.
  explicit SpecialTokens(std::vector<SpecialToken> tokens);

  std::optional<std::uint32_t> find(std::string_view name) const;
  /// The shortest name of the token; empty when it is none of these.
  std::string_view name_of(std::uint32_t id) const;

  struct Place {
    std::size_t begin, length;
    std::uint32_t id;
  };
  /// The first name in `text` at or after `begin`, the longest where several begin.
  std::optional<Place> first_in(std::string_view text, std::size_t begin) const;

  /// Calls `encode` on each stretch of `text` between names and appends their tokens; with `enabled` off, on
  /// the whole text.
  template <class Encode>
  void split(std::string_view text, bool enabled, std::vector<std::uint32_t>& tokens, Encode&& encode) const {
    std::size_t begin = 0;
    while (enabled) {
      const std::optional<Place> place = first_in(text, begin);
      if (!place) break;
      encode(text.substr(begin, place->begin - begin));
      tokens.push_back(place->id);
      begin = place->begin + place->length;
    }
    encode(text.substr(begin));
  }

 private:
  std::vector<SpecialToken> tokens_;  ///< longest name first
  std::string first_bytes_;
};

}  // namespace llama3d
