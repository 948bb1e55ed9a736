// Instruction records as questions.
#include "data/prompt_records.hpp"

#include <boost/test/unit_test.hpp>
#include <fstream>

#include "base/error.hpp"
#include "support/temporary_folder.hpp"

using namespace llama3d;
using namespace llama3d::test;

namespace {

std::filesystem::path file_of(const TemporaryFolder& folder, const std::string& text) {
  const auto path = folder.path() / "records.json";
  std::ofstream(path) << text;
  return path;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(prompt_records)

BOOST_AUTO_TEST_CASE(the_last_answer_is_the_label) {
  const TemporaryFolder folder;
  const auto path = file_of(folder, R"([
    {"instruction": "a", "input": "b", "output": "c", "history": [["d", "e"]], "system": "f"},
    {"instruction": 5},
    {"instruction": "g", "input": "", "output": "h"}, {"instruction": "i", "output": "j"}])");
  const PromptRecords all = read_prompt_records(path, InputFormat::alpaca, 0);
  BOOST_REQUIRE_EQUAL(all.records.size(), 3);
  const PromptRecord& first = all.records.front();
  BOOST_REQUIRE_EQUAL(first.prompt.size(), 4);
  BOOST_CHECK_EQUAL(first.prompt.front().content, "f");
  BOOST_CHECK_EQUAL(first.prompt.back().content, "a\nb");
  BOOST_CHECK_EQUAL(first.label, "c");
  BOOST_CHECK_EQUAL(all.records.back().place, path.string() + ":4, record 4");
  BOOST_CHECK_EQUAL(all.bad, 1);
  BOOST_CHECK_NE(all.first_bad.at(0).find("records.json:3, record 2:"), std::string::npos);
  BOOST_CHECK_EQUAL(read_prompt_records(path, InputFormat::automatic, 2).records.size(), 2);
}

BOOST_AUTO_TEST_CASE(a_question_needs_no_answer) {
  const TemporaryFolder folder;
  const PromptRecords alpaca =
      read_prompt_records(file_of(folder, R"([{"instruction": "a"}, {"instruction": "b", "output": ""}])"),
                          InputFormat::automatic, 0);
  BOOST_REQUIRE_EQUAL(alpaca.records.size(), 2);
  for (const PromptRecord& record : alpaca.records) {
    BOOST_CHECK_EQUAL(record.prompt.size(), 1);
    BOOST_CHECK_EQUAL(record.label, "");
  }
  const PromptRecords messages = read_prompt_records(
      file_of(folder,
              R"([{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
                                        {"role": "user", "content": "c"}]}])"),
      InputFormat::automatic, 0);
  BOOST_REQUIRE_EQUAL(messages.records.size(), 1);
  BOOST_CHECK_EQUAL(messages.records.front().prompt.back().content, "c");
}

BOOST_AUTO_TEST_CASE(files_without_questions) {
  const TemporaryFolder folder;
  for (const char* text : {"[]", "[{\"instruction\": 1}]", R"([{"text": "a"}])"})
    BOOST_CHECK_THROW(read_prompt_records(file_of(folder, text), InputFormat::automatic, 0), DataError);
  BOOST_CHECK_THROW(read_prompt_records(folder.path() / "none.json", InputFormat::alpaca, 0), DataError);
}

BOOST_AUTO_TEST_SUITE_END()
