#pragma once
// The first half of Llama 3's tokenizer: text to the pieces within which bytes are merged.

#include <cstddef>
#include <string_view>

namespace llama3d {

/// The regular expression of all Llama 3 tokenizers, as their files have it.
inline constexpr std::string_view llama3_expression =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

/// Where the match of that expression ends which begins at `begin`, below text.size(). `text` is valid UTF-8.
/// Written by hand: no engine's limits, and time in proportion to the piece.
std::size_t piece_end(std::string_view text, std::size_t begin);

/// The last place where cutting `text` changes no piece, whatever follows it; 0 when there is none. Needs no
/// valid UTF-8.
std::size_t last_piece_boundary(std::string_view text);

}  // namespace llama3d
