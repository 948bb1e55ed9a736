// Records and tokenizers as a stranger may write them: damaged at random, the same way in every run, with
// numbers that no double holds and nested without end. What can't be used is refused by an error that says so
// in a line.
#include <boost/test/unit_test.hpp>
#include <fstream>
#include <iterator>

#include "base/error.hpp"
#include "data/conversation.hpp"
#include "data/tokenize_fixture.hpp"
#include "support/error_message.hpp"
#include "support/mutator.hpp"

using namespace llama3d;
using test::says;

namespace {

const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');

template <class Refused, class Read>
void damage(const std::string& sample, std::uint32_t seed, int times, Read&& read) {
  test::Mutator mutator(seed);
  int good = 0, refused = 0;
  for (int i = 0; i < times; ++i) {
    const std::string text = mutator.mutated(sample);
    BOOST_TEST_CONTEXT(i << ": " << text.substr(0, 2000)) {
      try {
        read(text);
        ++good;
      } catch (const Refused& error) {
        BOOST_REQUIRE(says({})(error));
        BOOST_REQUIRE_LT(std::string(error.what()).size(), 1000u);
        ++refused;
      }
    }
  }
  BOOST_TEST_MESSAGE(good << " read, " << refused << " refused");
  BOOST_TEST(good > 0);
  BOOST_TEST(refused > times / 4);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(json_fuzz)

BOOST_AUTO_TEST_CASE(damaged_records_are_read_or_bad) {
  const std::string alpaca =
      R"({"instruction":"add","input":"1 and 2","output":"3","system":"Be.","history":[["a","b"]],"id":12.5})";
  const std::string sharegpt =
      R"({"conversations":[{"from":"system","value":"Be."},{"from":"human","value":"a"},{"from":"gpt","value":)"
      R"("b"}],"tools":"","n":[1,2e3,-4]})";
  damage<BadRecord>(alpaca, 21, 10000,
                    [](const std::string& text) { parse_conversation(text, InputFormat::alpaca); });
  damage<BadRecord>(sharegpt, 22, 10000,
                    [](const std::string& text) { parse_conversation(text, InputFormat::sharegpt); });
  damage<BadRecord>(R"({"text":"a b","id":{"a":[1e5]}})", 23, 10000,
                    [](const std::string& text) { parse_text_record(text, "text"); });
}

BOOST_AUTO_TEST_CASE(numbers_and_depths_make_a_bad_record) {
  const std::vector<std::pair<std::string, std::string>> values = {{"1e999", "number overflow"},
                                                                   {std::string(400, '9'), "number overflow"},
                                                                   {deep, "nested more than 64 deep"}};
  for (const auto& [value, reason] : values) {
    BOOST_CHECK_EXCEPTION(parse_text_record(R"({"text":"a","x":)" + value + "}", "text"), BadRecord,
                          says({reason}));
    BOOST_CHECK_EXCEPTION(
        parse_conversation(R"({"instruction":"a","output":"b","x":)" + value + "}", InputFormat::alpaca),
        BadRecord, says({reason}));
    BOOST_CHECK_EXCEPTION(
        parse_conversation(R"({"messages":[{"role":"user","content":"a","x":)" + value + "}]}",
                           InputFormat::sharegpt),
        BadRecord, says({reason}));
    BOOST_TEST((format_of_record(R"({"text":"a","x":)" + value + "}", "text") == InputFormat::automatic));
  }
  BOOST_CHECK_EXCEPTION(parse_conversation(R"({"messages":[{"role":"\u001b[2J)" + std::string(10'000, 'x') +
                                               R"(","content":"a"}]})",
                                           InputFormat::sharegpt),
                        BadRecord, [](const BadRecord& bad) {
                          const std::string reason = bad.what();
                          return reason.find('\x1b') == std::string::npos && reason.size() < 300;
                        });
}

BOOST_FIXTURE_TEST_CASE(such_records_are_counted_with_their_place, test::TokenizeFixture) {
  options.format = InputFormat::jsonl;
  options.inputs = {folder.write("a.jsonl",
                                 "{\"text\":\"one\"}\n{\"text\":\"two\",\"x\":1e999}\n"
                                 "{\"text\":\"three\",\"x\":" +
                                     std::string(400, '9') +
                                     "}\n"
                                     "{\"text\":\"four\",\"x\":" +
                                     deep + "}\n{\"text\":\"five\"}\n")};
  BOOST_TEST((tokenized() == std::vector<std::string>{"one", "five"}));
  BOOST_TEST(summary.bad_records == 3);
  BOOST_REQUIRE_EQUAL(summary.first_bad_records.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i)
    BOOST_TEST(summary.first_bad_records[i].find("a.jsonl:" + std::to_string(i + 2)) != std::string::npos);
}

BOOST_AUTO_TEST_CASE(tokenizers_with_such_values_are_refused) {
  const test::TemporaryFolder folder;
  std::ifstream file(TOKENIZER_SAMPLES "/pairs.json");
  const std::string sample{std::istreambuf_iterator<char>(file), {}};
  const auto refused = [&](const std::string& text, std::initializer_list<std::string> words) {
    const auto path = folder.write("tokenizer.json", text);
    BOOST_CHECK_EXCEPTION(make_tokenizer(path), DataError, says(words));
    BOOST_CHECK_EXCEPTION(make_tokenizer(path), DataError,
                          [](const DataError& error) { return std::string(error.what()).size() < 600; });
  };
  const auto first = sample.find("\"id\":") + 5;
  const auto with_id = [&](const std::string& id) {
    return sample.substr(0, first) + id + sample.substr(sample.find_first_of(",}", first));
  };
  const std::string long_text = "\"" + std::string(60'000, '\x7f') + "\"",
                    ten_thousand = "[" + deep.substr(95'000, 10'000) + "]";
  refused(with_id(deep), {"nested more than 64 deep"});
  refused(with_id(ten_thousand), {"nested more than 64 deep"});
  refused(with_id("1e999"), {"number overflow"});
  for (const char* id : {"-1", "1.5", "1e30", "16777217", "18446744073709551616", "null"})
    refused(with_id(id), {"the id of ", "an integer from 0 to 16777216"});
  refused(with_id(long_text), {"the id of ", "\\u007f"});
  refused("{\"model\":{\"type\":" + deep + "}}", {"nested more than 64 deep"});
  refused("{\"model\":{\"type\":" + long_text + "}}", {"its model is ", "not a BPE"});
}

BOOST_AUTO_TEST_CASE(damaged_tokenizers_are_read_or_refused) {
  const test::TemporaryFolder folder;
  std::ifstream file(TOKENIZER_SAMPLES "/pairs.json");
  const std::string sample{std::istreambuf_iterator<char>(file), {}};
  damage<DataError>(sample, 31, 200,
                    [&](const std::string& text) { make_tokenizer(folder.write("tokenizer.json", text)); });
}

BOOST_AUTO_TEST_CASE(a_folders_tokenizer_is_its_own) {
  const test::TemporaryFolder root;
  std::ifstream file(TOKENIZER_SAMPLES "/pairs.json");
  const std::string sample{std::istreambuf_iterator<char>(file), {}};
  const auto outside = root.write("outside.json", sample);
  std::filesystem::create_directory(root / "model");
  std::filesystem::create_symlink(outside, root / "model/tokenizer.json");
  BOOST_CHECK_EXCEPTION(make_tokenizer(root / "model"), DataError,
                        says({"tokenizer.json", "outside the folder"}));
  BOOST_CHECK_EXCEPTION(tokenizer_file(root / "model"), DataError, says({"outside the folder"}));
  // Whoever names the file itself means what it links to.
  BOOST_CHECK_NO_THROW(make_tokenizer(root / "model/tokenizer.json"));
  root.write("models--x/blobs/ab", sample);
  std::filesystem::create_directories(root / "models--x/snapshots/1");
  std::filesystem::create_symlink("../../blobs/ab", root / "models--x/snapshots/1/tokenizer.json");
  BOOST_CHECK_NO_THROW(make_tokenizer(root / "models--x/snapshots/1"));
}

BOOST_AUTO_TEST_SUITE_END()
