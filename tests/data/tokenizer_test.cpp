#include "data/tokenizer/tokenizer.hpp"

#include <boost/test/unit_test.hpp>

#include "base/error.hpp"
#include "support/error_message.hpp"

using namespace llama3d;

BOOST_AUTO_TEST_SUITE(byte_tokenizer)

BOOST_AUTO_TEST_CASE(ids_are_the_documented_ones) {
  const auto tokenizer = make_tokenizer("bytes");
  BOOST_TEST(tokenizer->name() == "bytes");
  BOOST_TEST(tokenizer->vocabulary_size() == 259);
  BOOST_TEST(tokenizer->begin_of_text() == 256u);
  BOOST_TEST(tokenizer->end_of_text() == 257u);
  BOOST_TEST(tokenizer->padding() == 258u);
}

BOOST_AUTO_TEST_CASE(encode_appends_bytes_and_nothing_else) {
  std::vector<std::uint32_t> tokens = {7};
  make_tokenizer("bytes")->encode("A\xC3\xA9\n", tokens);
  BOOST_TEST(tokens == (std::vector<std::uint32_t>{7, 65, 0xC3, 0xA9, 10}), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(every_byte_survives_and_special_tokens_vanish) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all.push_back(static_cast<char>(byte));
  const auto tokenizer = make_tokenizer("bytes");
  std::vector<std::uint32_t> tokens = {tokenizer->begin_of_text()};
  tokenizer->encode(all, tokens);
  for (const std::uint32_t special : {257u, 258u, 300u}) tokens.push_back(special);
  BOOST_TEST(tokenizer->decode(tokens) == all);
  tokens[1] = 65;
  BOOST_TEST(tokenizer->decode(tokens) != all);
}

BOOST_AUTO_TEST_CASE(unknown_tokenizers_are_refused) {
  BOOST_CHECK_EXCEPTION(make_tokenizer("byte"), ConfigurationError, test::says({"\"byte\"", "bytes"}));
}

BOOST_AUTO_TEST_SUITE_END()
