#include "checkpoint/weight_tokenizer.hpp"

#include <fmt/format.h>

#include "checkpoint/tokenizer_files.hpp"

namespace llama3d {
namespace {

namespace fs = std::filesystem;

}  // namespace

std::string tokenizer_doubt(const WeightSource& source, const std::string& begin,
                            const std::vector<TokenizerName>& files) {
  const bool trained = source.tokenizer().known();
  const auto own = trained ? std::vector{source.tokenizer()} : source.origin().tokenizers;
  for (const TokenizerName& left : own)
    for (const TokenizerName& right : files)
      if (!differ(left, right)) return {};
  if (own.empty() || files.empty()) return {};
  return fmt::format("{} {}, but the weights {} {}", begin, files.front().to_string(),
                     trained ? "were trained on tokens of" : "came with", own.front().to_string());
}

std::vector<std::string> doubts(const WeightSource& source, const ModelConfig& model,
                                const TokenFileInfo& tokens) {
  std::vector<std::string> lines = model_doubts(source, model);
  const std::string other =
      tokenizer_doubt(source, "`data` was made with", {{tokens.tokenizer, tokens.tokenizer_hash}});
  if (!other.empty()) lines.insert(lines.begin(), other);
  return lines;
}

TokenizerPlace find_tokenizer(const WeightSource& source) {
  const TokenizerName& own = source.tokenizer();
  if (own.name == "bytes") return {own.name, {}};
  TokenizerPlace first;
  for (const fs::path& folder : {source.folder(), fs::path(source.origin().folder)}) {
    if (folder.empty() || !has_tokenizer(folder)) continue;
    if (first.tokenizer.empty()) first = {folder.string(), folder};
    for (const TokenizerName& file : own.hash.empty() ? std::vector<TokenizerName>() : tokenizers_of(folder))
      if (file.hash == own.hash) return {(folder / file.name).string(), folder};
  }
  return first;
}

bool left_for_bytes(const WeightSource& source) {
  const WeightOrigin& origin = source.origin();
  return source.tokenizer().name == "bytes" && origin.known() &&
         (!origin.tokenizers.empty() || has_tokenizer(origin.folder));
}

}  // namespace llama3d
