#include "data/conversation.hpp"

#include <boost/test/unit_test.hpp>

#include "base/error.hpp"
#include "data/detect_format.hpp"
#include "data/json_input.hpp"
#include "support/error_message.hpp"
#include "support/temporary_folder.hpp"

using namespace llama3d;
using llama3d::test::says;
using llama3d::test::TemporaryFolder;

namespace {

/// A message a line, its role before it.
std::string written(const Conversation& conversation) {
  std::string text;
  for (const Message& message : conversation)
    text += std::string(name_of(message.role)) + ": " + message.content + "|";
  return text;
}

std::string alpaca(const std::string& record) {
  return written(parse_conversation(record, InputFormat::alpaca));
}
std::string sharegpt(const std::string& record) {
  return written(parse_conversation(record, InputFormat::sharegpt));
}

std::vector<RawText> records_of(const std::filesystem::path& path, std::size_t largest = 1000) {
  const auto input = open_json_records(path, largest);
  std::vector<RawText> records;
  for (RawText record; input->next(record);) records.push_back(record);
  return records;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(conversations)

BOOST_AUTO_TEST_CASE(alpaca_records) {
  BOOST_TEST(alpaca(R"({"instruction": "Add.", "input": "1 and 2", "output": "3"})") ==
             "user: Add.\n1 and 2|assistant: 3|");
  BOOST_TEST(alpaca(R"({"instruction": "Sing.", "input": "", "output": ""})") == "user: Sing.|assistant: |");
  BOOST_TEST(alpaca(R"({"instruction": "Sing.", "input": null, "output": "La", "history": null})") ==
             "user: Sing.|assistant: La|");
  for (const std::string instruction : {R"("instruction": "", )", R"("instruction": null, )", ""})
    BOOST_TEST(alpaca("{" + instruction + R"("input": "1", "output": "2"})") == "user: 1|assistant: 2|");
  BOOST_TEST(
      alpaca(
          R"({"system": "Be.", "history": [["a", "b"], ["c", "d"]], "instruction": "e", "output": "f"})") ==
      "system: Be.|user: a|assistant: b|user: c|assistant: d|user: e|assistant: f|");
}

BOOST_AUTO_TEST_CASE(sharegpt_records) {
  const std::string tools =
      R"({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"},
          {"from": "human", "value": "c"}, {"from": "gpt", "value": "f 1"},
          {"from": "observation", "value": "2"}, {"from": "gpt", "value": "two"}], "system": "Be."
})";
  BOOST_TEST(sharegpt(tools) ==
             "system: Be.|user: a|assistant: b|user: c|assistant: f 1|tool: 2|assistant: two|");
  const std::string openai =
      R"({"messages": [{"role": "system", "content": "Own."}, {"role": "user", "content": "a"},
          {"role": "assistant", "content": "b", "tool_calls": [], "function_call": null}],
          "system": "Other.", "tools": "[]"})";
  BOOST_TEST(sharegpt(openai) == "system: Own.|user: a|assistant: b|");
  // An empty system message is none, and the record's own is for conversations without one.
  const std::string empty =
      R"({"messages": [{"role": "system", "content": ""}, {"role": "user", "content": "a"},
          {"role": "assistant", "content": "b"}], "system": "Other."})";
  BOOST_TEST(sharegpt(empty) == "user: a|assistant: b|");
}

BOOST_AUTO_TEST_CASE(bad_records_say_why) {
  const auto bad = [](InputFormat format, const std::string& record, const std::string& reason) {
    BOOST_TEST_CONTEXT(record)
    BOOST_CHECK_EXCEPTION(parse_conversation(record, format), BadRecord, says({reason}));
  };
  using enum InputFormat;
  bad(alpaca, "{\"instruction\": \"a", "no valid JSON");
  bad(alpaca, "[1]", "JSON array");
  bad(alpaca, R"({"output": "b"})", "no \"instruction\"");
  bad(alpaca, R"({"instruction": null, "input": "", "output": "b"})", "\"instruction\" is a JSON null");
  bad(alpaca, R"({"instruction": 3, "input": "a", "output": "b"})", "\"instruction\" is a JSON number");
  bad(alpaca, R"({"instruction": "a"})", "no \"output\"");
  bad(alpaca, R"({"instruction": "a", "output": 3})", "\"output\" is a JSON number");
  bad(alpaca, R"({"instruction": "a", "output": "b", "history": "x"})", "\"history\"");
  bad(alpaca, R"({"instruction": "a", "output": "b", "history": [["x"]]})", "pair of strings");
  bad(alpaca, R"({"instruction": "", "output": ""})", "neither");
  bad(sharegpt, R"({"text": "a"})", "neither");
  bad(sharegpt, R"({"messages": {}})", "JSON object");
  bad(sharegpt, R"({"messages": []})", "no messages");
  bad(sharegpt, R"({"messages": ["a"]})", "a message is a JSON string");
  bad(sharegpt, R"({"messages": [{"role": "user"}]})", "no \"content\"");
  bad(sharegpt, R"({"messages": [{"role": "owl", "content": "a"}]})", "\"owl\"");
  bad(sharegpt, R"({"messages": [{"role": "assistant", "content": "a"}]})", "message 1 is of the assistant");
  bad(sharegpt, R"({"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "a"}]})",
      "message 2 is of the user");
  bad(sharegpt, R"({"messages": [{"role": "user", "content": "a"}]})", "no answer");
  bad(sharegpt, R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": null}]})",
      "JSON null");
  bad(sharegpt, R"({"tools": "[{}]", "messages": []})", "tools");
  bad(sharegpt,
      R"({"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": "{}"}]})",
      "function_call");
  for (const std::string calls : {R"("tool_calls": [{"function": {}}])", R"("function_call": {"name": "f"})"})
    for (const std::string content : {"null", "\"\"", "\"Let me look.\""})
      bad(sharegpt,
          R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": )" + content +
              ", " + calls + "}]}",
          "message 2 has \"" + calls.substr(1, calls.find(':') - 2) + "\"");
}

BOOST_AUTO_TEST_CASE(arrays_and_lines_give_the_same_records) {
  const TemporaryFolder folder;
  const std::vector<std::string> records = {R"({"a": "]}\"{[", "b": [1, {"c": "\\"}]})", "3", R"("x,\\")",
                                            "{}", R"({"broken": tru})"};
  std::string array = "\xEF\xBB\xBF \n[", lines;
  for (const std::string& record : records) {
    array += (array.ends_with('[') ? "\n " : ",\n\n ") + record;
    lines += record + "\n\n";
  }
  const auto from_array = records_of(folder.write("a.json", array + "\n]\n"));
  const auto from_lines = records_of(folder.write("a.jsonl", lines));
  BOOST_REQUIRE(from_array.size() == records.size());
  BOOST_REQUIRE(from_lines.size() == records.size());
  const std::string whole = array + "\n]\n";
  for (std::size_t i = 0; i < records.size(); ++i) {
    BOOST_TEST(from_array[i].text.starts_with(records[i]));
    BOOST_TEST(from_lines[i].text == records[i] + "\n");
    BOOST_TEST(from_array[i].line == static_cast<std::int64_t>(3 + 2 * i));
    BOOST_TEST(from_lines[i].line == static_cast<std::int64_t>(1 + 2 * i));
    BOOST_TEST(whole.substr(static_cast<std::size_t>(from_array[i].offset)).starts_with(records[i]));
  }
  BOOST_TEST(records_of(folder.write("none.json", " [ ] ")).empty());
  BOOST_TEST(records_of(folder.write("one.json", "[7]")).size() == 1u);
}

BOOST_AUTO_TEST_CASE(records_longer_than_the_buffer) {
  const TemporaryFolder folder;
  std::string array = "[";
  for (int i = 0; i < 5; ++i)
    array +=
        (i ? "," : "") + std::string("{\"a\": \"") + std::string(300'000, static_cast<char>('a' + i)) + "\"}";
  const auto records = records_of(folder.write("long.json", array + "]"), 400'000);
  BOOST_REQUIRE(records.size() == 5u);
  BOOST_TEST(records[3].text.size() == 300'009u);
  BOOST_TEST(records[3].text[100] == 'd');
  BOOST_CHECK_EXCEPTION(records_of(folder / "long.json", 300'000), DataError,
                        says({"long.json:1", "longer than 300000 bytes"}));
}

BOOST_AUTO_TEST_CASE(damaged_arrays_are_refused) {
  const TemporaryFolder folder;
  const std::pair<std::string, std::string> damaged[] = {
      {"[\n1,\n2", "a.json:3"}, {"[1,\n\n{\"a\": \"x", "a.json:3"},
      {"[1\n,]", "missing"},    {"[,1]", "missing"},
      {"[1]\n2", "a.json:2"},   {"[", "ends in the middle"},
      {"[1}", "no comma"}};
  for (const auto& [text, reason] : damaged) BOOST_TEST_CONTEXT(text)
  BOOST_CHECK_EXCEPTION(records_of(folder.write("a.json", text)), DataError, says({"a.json:", reason}));
}

BOOST_AUTO_TEST_CASE(formats_are_told_apart) {
  const TemporaryFolder folder;
  const auto format = [&](const std::string& name, const std::string& text) {
    return detect_format(folder.write(name, text), "text", 1000);
  };
  BOOST_CHECK(format("a.txt", "{\"text\": \"\"}") == InputFormat::text);
  BOOST_CHECK(format("a.jsonl", "{\"text\": \"\"}") == InputFormat::jsonl);
  BOOST_CHECK(format("a.ndjson", "broken\n{\"instruction\": \"\", \"output\": \"\", \"text\": \"\"}") ==
              InputFormat::alpaca);
  BOOST_CHECK(format("a.json", "[{\"conversations\": []}]") == InputFormat::sharegpt);
  BOOST_CHECK(format("b.json", "{\"messages\": []}") == InputFormat::sharegpt);
  BOOST_CHECK_EXCEPTION(format("c.json", "[{\"body\": 1}]"), DataError,
                        says({"c.json", "\"text\"", "`format`"}));
  for (const char* word : {"auto", "text", "jsonl", "alpaca", "sharegpt"})
    BOOST_TEST(word_of(input_format_from(word)) == word);
  BOOST_CHECK_EXCEPTION(input_format_from("csv"), ConfigurationError, says({"`format csv`"}));
}

BOOST_AUTO_TEST_SUITE_END()
