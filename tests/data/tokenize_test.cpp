#include "data/tokenize.hpp"

#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <cmath>

#include "base/error.hpp"
#include "data/tokenize_fixture.hpp"
#include "support/error_message.hpp"

using namespace llama3d;
using namespace llama3d::test;

BOOST_FIXTURE_TEST_SUITE(tokenize, TokenizeFixture)

BOOST_AUTO_TEST_CASE(a_text_file_is_one_document) {
  options.inputs = {folder.write("a.txt", "One.\n\nTwo\xFF.\r\n"),
                    folder.write("b", "\xEF\xBB\xBFno end of line")};
  BOOST_TEST(tokenized() == (Texts{"One.\n\nTwo\xFF.\r\n", "no end of line"}), equal);
  BOOST_TEST(summary.documents == 2);
  BOOST_TEST(summary.tokens == 13 + 14 + 4);
  BOOST_TEST(summary.bytes == 13 + 17);
  BOOST_TEST(summary.vocabulary_size == 259);
  const TokenFileReader file(options.output);
  BOOST_TEST(file.info().tokenizer == "bytes");
  BOOST_TEST(file.info().vocabulary_size == 259);
  BOOST_TEST(file.info().created_by == "tokenize_test");
  BOOST_TEST(!file.info().has_loss_mask);
}

BOOST_AUTO_TEST_CASE(a_separator_line_splits_text) {
  options.inputs = {folder.write("a.txt", "***\nOne\n***\r\n \n  *** \nTwo\n* * *\nstill two\n***\n")};
  options.split_documents_on = "***";
  BOOST_TEST(tokenized() == (Texts{"One\n", "Two\n* * *\nstill two\n"}), equal);
  BOOST_TEST(summary.empty_documents == 2);  // before the first line, and the blank one
  options.inputs = {folder.write("b.txt", "One\n\f\nTwo")};
  options.split_documents_on = "\f";
  BOOST_TEST(tokenized() == (Texts{"One\n", "Two"}), equal);
}

BOOST_AUTO_TEST_CASE(json_lines_hold_a_document_each) {
  options.inputs = {folder.write("a.jsonl",
                                 "{\"text\": \"caf\\u00e9\\n\", \"id\": 1}\r\n\n{\"text\": \"  \"}\n"
                                 "{\"text\": \"last\"}")};
  BOOST_TEST(tokenized() == (Texts{"caf\xC3\xA9\n", "last"}), equal);
  BOOST_TEST(summary.empty_documents == 1);
  options.inputs = {folder.write("b.ndjson", "{\"body\": \"x y\"}\n")};
  options.text_field = "body";
  BOOST_TEST(tokenized() == (Texts{"x y"}), equal);
}

BOOST_AUTO_TEST_CASE(entropy_by_hand) {
  // Tokens: begin, a, a, b, c, end: shares 1/6 but for a, 1/3.
  options.inputs = {folder.write("a.txt", "aabc")};
  tokenized();
  BOOST_TEST(summary.unigram_entropy == 4 * std::log(6.0) / 6 + std::log(3.0) / 3,
             boost::test_tools::tolerance(1e-14));  // five terms of a few roundings each
  options.inputs = {folder.write("b.txt", "aabb")};
  tokenized();
  BOOST_TEST(summary.unigram_entropy < 4 * std::log(6.0) / 6 + std::log(3.0) / 3);
}

// The figures that jobs/data/README.md gives; there counted by other means.
BOOST_AUTO_TEST_CASE(the_sample_text_is_the_documented_one) {
  options.inputs = {SAMPLE_TEXT};
  const Texts documents = tokenized();
  BOOST_TEST(documents.size() == 1u);
  BOOST_TEST(documents[0].starts_with("PRIDE AND PREJUDICE\n\nBy Jane Austen\n"));
  BOOST_TEST(summary.tokens == 684'707 + 2);
  BOOST_TEST(std::abs(summary.unigram_entropy - 3.0924) < 5e-5);  // given to four decimals
}

BOOST_AUTO_TEST_CASE(many_batches_come_out_in_order_for_any_thread_count) {
  std::string lines;
  Texts expected;
  for (int i = 0; i < 3000; ++i) {
    expected.push_back(std::to_string(i) + std::string(static_cast<std::size_t>(i * 7919 % 2000), 'x'));
    lines += "{\"text\": \"" + expected.back() + "\"}\n";
  }
  const std::string long_text(3'000'000, 'z');  // longer than a batch and the read buffer
  expected.push_back(long_text);
  options.inputs = {folder.write("many.jsonl", lines), folder.write("long.txt", long_text)};
  std::int64_t calls = 0, last_bytes = 0;
  for (const int threads : {1, 4}) {
    options.threads = threads;
    calls = last_bytes = 0;
    tokenize_files(options, [&](const TokenizeProgress& progress) {
      ++calls;
      BOOST_TEST(progress.bytes_read >= last_bytes);
      BOOST_TEST(progress.bytes_total == static_cast<std::int64_t>(lines.size() + long_text.size()));
      last_bytes = progress.bytes_read;
    });
    BOOST_TEST(calls >= 4);
    BOOST_TEST((documents_of(options.output) == expected));
  }
  expected[1500] += "y";
  BOOST_TEST((documents_of(options.output) != expected));
}

BOOST_AUTO_TEST_CASE(documents_in_pieces_have_the_same_tokens) {
  std::string text;
  for (int i = 0; i < 400; ++i)
    text += "Line " + std::to_string(i) + "'s end,\r\n \n  caf\xC3\xA9 \xE4\xB8\xAD\xE6\x96\x87\n" +
            (i % 50 == 49   ? " * * *\n"
             : i % 30 == 29 ? " * * \n"
                            : "");
  options.inputs = {folder.write("a.txt", "\xEF\xBB\xBF" + text), folder.write("blank.txt", "\n\n"),
                    folder.write("b.txt", std::string(500, '\n') + text)};
  for (const std::string& tokenizer : {std::string("bytes"), tokenizer_sample})
    for (const char* separator : {"", "* * *"}) {
      options.tokenizer = tokenizer;
      options.split_documents_on = separator;
      options.piece_bytes = 1 << 20;
      const TokenizeSummary whole = tokenize_files(options);
      const auto expected = tokens_of(options.output);
      const auto documents = TokenFileReader(options.output).documents();
      BOOST_TEST(whole.documents == (*separator ? 16 : 2));
      for (const std::size_t piece : {1, 7, 100, 3000}) {
        options.piece_bytes = piece;
        const TokenizeSummary summary = tokenize_files(options);
        BOOST_TEST((tokens_of(options.output) == expected), tokenizer << " in pieces of " << piece);
        BOOST_TEST((TokenFileReader(options.output).documents() == documents));
        BOOST_TEST(summary.empty_documents == whole.empty_documents);
        BOOST_TEST(summary.bytes == whole.bytes);
      }
    }
}

BOOST_AUTO_TEST_CASE(the_file_says_which_tokenizer) {
  options.inputs = {folder.write("a.txt", "It is a truth")};
  tokenized();
  BOOST_TEST(TokenFileReader(options.output).info().tokenizer_hash.empty());
  options.tokenizer = tokenizer_sample;
  tokenize_files(options);
  const TokenFileReader file(options.output);
  BOOST_TEST(file.info().tokenizer == "tokenizer.model");
  BOOST_TEST(file.info().vocabulary_size == 1457);
  BOOST_TEST(file.info().tokenizer_hash == make_tokenizer(tokenizer_sample)->file_hash());
  const auto tokens = tokens_of(options.output);
  BOOST_TEST(tokens.front() == 1201u);
  BOOST_TEST(tokens.back() == 1202u);
  BOOST_TEST(make_tokenizer(tokenizer_sample)->decode(tokens) == "It is a truth");
}

BOOST_AUTO_TEST_CASE(invalid_utf8_names_its_place_or_is_replaced) {
  options.tokenizer = tokenizer_sample;
  const std::string lines(3000, '\n');
  const std::pair<std::string, std::string> bad[] = {
      {"a.txt", "\xEF\xBB\xBFone\n" + lines + "tw\xFFo\n"},
      {"a.jsonl", "{\"text\": \"one\"}\n\n{\"text\": \"tw\xFFo\"}\n"}};
  for (const auto& [name, text] : bad)
    for (const std::size_t piece : {10, 1 << 20}) {
      options.piece_bytes = piece;
      std::filesystem::remove(options.output);
      options.inputs = {folder.write("fine.txt", "fine"), folder.write(name, text)};
      const auto line =
          1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(text.find('\xFF')), '\n');
      options.invalid_utf8 = InvalidUtf8::error;
      BOOST_CHECK_EXCEPTION(tokenize_files(options), DataError,
                            says({name + ":" + std::to_string(line), "0xFF",
                                  "offset " + std::to_string(text.find('\xFF')) + " ", "`invalid_utf8`"}));
      BOOST_TEST(left_nothing());
      options.invalid_utf8 = InvalidUtf8::replace;
      tokenize_files(options);
      const std::string decoded = make_tokenizer(tokenizer_sample)->decode(tokens_of(options.output));
      BOOST_TEST((decoded.find("tw\xEF\xBF\xBDo") != std::string::npos));
    }
}

BOOST_AUTO_TEST_CASE(wrong_json_names_file_and_line) {
  options.strict = true;
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"{\"text\": \"a", "no valid JSON"},        {"[1]", "JSON array"},
      {"{\"txt\": \"a\"}", "no \"text\""},        {"{\"text\": 3}", "JSON number"},
      {"{\"text\": \"\xFF\"}", "no valid UTF-8"}, {"{\"text\": \"a\"} x", "no valid JSON"}};
  for (const auto& [line, reason] : wrong) {
    options.inputs = {folder.write("a.jsonl", "{\"text\": \"fine\"}\n\n" + line + "\n")};
    BOOST_CHECK_EXCEPTION(tokenize_files(options), DataError, says({"a.jsonl:3", reason}));
    BOOST_TEST(left_nothing());
  }
}

BOOST_AUTO_TEST_CASE(inputs_that_are_no_text_are_refused) {
  const auto fine = folder.write("fine.txt", "fine");
  const auto refused = [&](const std::filesystem::path& input, std::initializer_list<std::string> words) {
    options.inputs = {fine, input};
    BOOST_CHECK_EXCEPTION(tokenize_files(options), DataError, says(words));
    BOOST_TEST(left_nothing());
  };
  refused(folder / "none.txt", {"none.txt", "missing"});
  refused(folder.write("a.json", "[{}]"), {"a.json", "no known format"});
  refused(folder.write("a.bin", std::string_view("x\ny\0z", 5)), {"a.bin:2", "NUL"});
  std::filesystem::create_directory(folder / "inner");
  refused(folder / "inner", {"inner", "folder"});
  options.largest_piece = 12;
  refused(folder.write("long.jsonl", "\n{\"text\": \"a\"}"), {"long.jsonl:2", "longer than 12 bytes"});
  options.largest_piece = 13;
  BOOST_CHECK_NO_THROW(tokenize_files(options));
  std::filesystem::remove(options.output);
  // Bytes can be cut anywhere, a word of Llama 3's tokenizer can't.
  options.piece_bytes = options.largest_piece = 20;
  const auto word = folder.write("word.txt", "fine\n" + std::string(30, 'a'));
  options.inputs = {word};
  options.tokenizer = tokenizer_sample;
  refused(word, {"word.txt:2", "longer than 20 bytes"});
}

BOOST_AUTO_TEST_CASE(nothing_to_do_is_an_error) {
  BOOST_CHECK_EXCEPTION(tokenize_files(options), ConfigurationError, says({"`input`"}));
  options.inputs = {folder.write("blank.txt", " \n\t\n")};
  BOOST_CHECK_EXCEPTION(tokenize_files(options), DataError, says({"blank.txt", "no text"}));
  BOOST_TEST(left_nothing());
  options.tokenizer = "words";
  BOOST_CHECK_EXCEPTION(tokenize_files(options), ConfigurationError, says({"\"words\""}));
  options.tokenizer = "bytes";
  options.output = options.inputs[0];
  BOOST_CHECK_EXCEPTION(tokenize_files(options), ConfigurationError, says({"blank.txt", "also an input"}));
  options.tokenizer = folder / "tokenizer.model";
  std::filesystem::copy_file(tokenizer_sample, options.tokenizer);
  options.output = options.tokenizer;
  BOOST_CHECK_EXCEPTION(tokenize_files(options), ConfigurationError,
                        says({"tokenizer.model", "also an input"}));
  options.tokenizer = "bytes";
  options.threads = -3;
  BOOST_CHECK_EXCEPTION(tokenize_files(options), ConfigurationError, says({"`threads -3`"}));
  options.output.clear();
  BOOST_CHECK_EXCEPTION(tokenize_files(options), ConfigurationError, says({"`output`"}));
}

BOOST_AUTO_TEST_SUITE_END()
