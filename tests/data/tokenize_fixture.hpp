#pragma once
// A folder to tokenize in, and what came of it.

#include <boost/test/unit_test.hpp>
#include <filesystem>
#include <string>
#include <vector>

#include "data/tokenize.hpp"
#include "data/tokenizer/tokenizer.hpp"
#include "io/tokens/token_file.hpp"
#include "support/temporary_folder.hpp"

namespace llama3d::test {

/// The documents of a byte-token file as text, having checked that each begins and ends as it must.
inline std::vector<std::string> documents_of(const std::filesystem::path& path) {
  const TokenFileReader file(path);
  std::vector<std::string> documents;
  for (std::size_t d = 0; d + 1 < file.documents().size(); ++d) {
    const std::uint64_t begin = file.documents()[d], end = file.documents()[d + 1];
    BOOST_REQUIRE(end - begin > 2);
    std::vector<std::uint32_t> tokens(end - begin);
    file.read(static_cast<std::int64_t>(begin), tokens);
    BOOST_TEST(tokens.front() == 256u);
    BOOST_TEST(tokens.back() == 257u);
    documents.push_back(make_tokenizer("bytes")->decode(tokens));
  }
  return documents;
}

struct TokenizeFixture {
  TemporaryFolder folder;
  TokenizeOptions options;
  TokenizeFixture() {
    options.output = folder / "out.h5";
    options.created_by = "tokenize_test";
    options.threads = 3;
  }
  std::vector<std::string> tokenized() {
    summary = tokenize_files(options);
    return documents_of(options.output);
  }
  /// Nothing may be left after an error.
  bool left_nothing() const {
    for (const auto& entry : std::filesystem::directory_iterator(options.output.parent_path()))
      if (entry.path().string().starts_with(options.output.string())) return false;
    return true;
  }
  TokenizeSummary summary;
};

inline const std::string tokenizer_sample = TOKENIZER_SAMPLES "/tokenizer.model";

inline std::vector<std::uint32_t> tokens_of(const std::filesystem::path& path) {
  const TokenFileReader file(path);
  std::vector<std::uint32_t> tokens(static_cast<std::size_t>(file.tokens()));
  file.read(0, tokens);
  return tokens;
}

using Texts = std::vector<std::string>;
inline const auto equal = boost::test_tools::per_element();

}  // namespace llama3d::test
