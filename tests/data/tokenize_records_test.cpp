// JSON records and conversations through `llama3d tokenize`.

#include "base/error.hpp"
#include "data/tokenize_fixture.hpp"
#include "support/error_message.hpp"

using namespace llama3d;
using namespace llama3d::test;

BOOST_FIXTURE_TEST_SUITE(tokenize_records, TokenizeFixture)

BOOST_AUTO_TEST_CASE(bad_records_are_left_out_and_counted) {
  std::string lines;
  for (int i = 0; i < 20; ++i) lines += i % 2 ? "{\"text\": \"fine\"}\n" : "{\"text\": 3}\n";
  options.inputs = {folder.write("a.jsonl", lines)};
  options.piece_bytes = 40;
  BOOST_TEST(tokenized() == Texts(10, "fine"), equal);
  BOOST_TEST(summary.bad_records == 10);
  BOOST_TEST(summary.first_bad_records.size() == 5u);
  BOOST_TEST(summary.first_bad_records[1] ==
             options.inputs[0].string() + ":3: \"text\" is a JSON number, not a string");
  BOOST_TEST(summary.learned_tokens == summary.tokens);
  options.strict = true;
  std::filesystem::remove(options.output);
  BOOST_CHECK_EXCEPTION(tokenize_files(options), DataError, says({"a.jsonl:1:", "JSON number", "`strict`"}));
  BOOST_TEST(left_nothing());
  options.strict = false;
  options.inputs.push_back(folder.write("b.jsonl", "\n{\"text\": 3}\n{\"text\": 4}\n"));
  BOOST_CHECK_EXCEPTION(tokenize_files(options), DataError, says({"b.jsonl:2:", "all 2 records"}));
  BOOST_TEST(left_nothing());
}

BOOST_AUTO_TEST_CASE(records_on_one_line_have_numbers) {
  options.inputs = {folder.write("a.json", R"([{"text": "a"}, {"text": 3}, {"text": "b"}, 4])")};
  options.format = InputFormat::jsonl;
  BOOST_TEST(tokenized() == (Texts{"a", "b"}), equal);
  const std::string file = options.inputs[0].string();
  BOOST_TEST(
      summary.first_bad_records == (Texts{file + ":1, record 2: \"text\" is a JSON number, not a string",
                                          file + ":1, record 4: a JSON number, not an object"}),
      equal);
}

BOOST_AUTO_TEST_CASE(conversations_have_a_loss_mask) {
  const std::string alpaca = R"([{"instruction": "Hi", "input": "", "output": "Ho"}, {"instruction": 1},
                                 {"instruction": "A long question", "output": "no"}])";
  options.inputs = {folder.write("a.json", alpaca), folder.write("b.txt", "text"),
                    folder.write("c.jsonl", R"({"messages": [{"role": "user", "content": "a"}, )"
                                            R"({"role": "assistant", "content": "b"}]})")};
  const std::string first = "<|user|>\nHi\n<|assistant|>\nHo", last = "<|user|>\na\n<|assistant|>\nb";
  const Texts documents = tokenized();
  BOOST_TEST(documents == (Texts{first, "<|user|>\nA long question\n<|assistant|>\nno", "text", last}),
             equal);
  BOOST_TEST(summary.conversations == 3);
  BOOST_TEST(summary.bad_records == 1);
  BOOST_TEST(summary.truncated_documents == 0);
  BOOST_TEST(summary.learned_tokens == 3 + 3 + 6 + 2);
  const TokenFileReader file(options.output);
  BOOST_TEST(file.info().has_loss_mask);
  std::vector<std::uint8_t> mask(first.size() + 2);
  file.read_loss_mask(0, mask);
  std::vector<std::uint8_t> expected(first.size() + 2 - 3, 0);
  expected.resize(first.size() + 2, 1);
  BOOST_TEST(mask == expected, equal);

  options.cutoff = 30;  // of the long question, whose answer stays whole
  options.loss_on = LossOn::all;
  summary = tokenize_files(options);
  BOOST_TEST(summary.truncated_documents == 1);
  BOOST_TEST(summary.learned_tokens == summary.tokens);
  BOOST_TEST(summary.tokens == 30 + 30 + 6 + std::ssize(last) + 2);
}

BOOST_AUTO_TEST_SUITE_END()
