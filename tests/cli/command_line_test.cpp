// Options of a command: where values come from, which are refused and how.
#include "cli/command_line.hpp"

#include <boost/test/unit_test.hpp>
#include <cstdlib>

#include "options/agreement.hpp"
#include "options/toml.hpp"
#include "support/error_message.hpp"
#include "support/temporary_folder.hpp"

using namespace llama3d;
using test::says;

namespace {

const std::vector<Option> table = {
    {.name = "some-text", .commands = commands::train, .help = "a text"},
    {.name = "steps", .commands = commands::train, .group = OptionGroup::batch, .help = "a number of steps"},
    {.name = "rate", .commands = commands::train, .help = "a rate"},
    {.name = "flag", .commands = commands::train, .help = "a flag"},
    {.name = "numbers", .commands = commands::train, .help = "integers"},
    {.name = "texts", .commands = commands::train, .help = "texts"},
    {.name = "data", .commands = commands::train, .help = "a file"},
    {.name = "config", .commands = commands::train, .help = "a file of these"},
};

struct Options {
  std::string text = "default";
  std::int64_t steps = 7;
  double rate = 0.5;
  bool flag = true;
  std::vector<int> numbers;
  std::vector<std::string> texts;
  CommandLine line{"command", "For a test.", table, commands::train};
  test::TemporaryFolder folder;

  Options() {
    line.add("some-text", text);
    line.add("steps", steps);
    line.add("rate", rate);
    line.add("flag", flag);
    line.add("numbers", numbers);
    line.add("texts", texts);
  }
  ~Options() {
    for (const char* name : {"LLAMA3D_SOME_TEXT", "LLAMA3D_STEPS", "LLAMA3D_NUMBERS", "LLAMA3D_STEP"})
      unsetenv(name);
  }
  CommandLine::Outcome parse(std::vector<std::string> words) {
    words.insert(words.begin(), "command");
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    return line.parse(static_cast<int>(argv.size()), argv.data());
  }
  std::string toml(const std::string& text) { return folder.write("options.toml", text).string(); }
};

/// A job of one process whose first rank says something else.
class OtherFirst final : public ControlPlane {
 public:
  explicit OtherFirst(std::string theirs) : theirs_(std::move(theirs)) {}
  int rank() const override { return own_->rank(); }
  int size() const override { return own_->size(); }
  int node_rank() const override { return own_->node_rank(); }
  int node_size() const override { return own_->node_size(); }
  std::string host() const override { return own_->host(); }
  std::string broadcast(const std::string&, int) override { return theirs_; }
  std::vector<std::string> all_gather(const std::string& text) override { return own_->all_gather(text); }
  std::int64_t all_max(std::int64_t value) override { return own_->all_max(value); }
  void barrier() override { own_->barrier(); }
  [[noreturn]] void abort(int status) override { std::exit(status); }

 private:
  std::string theirs_;
  std::unique_ptr<ControlPlane> own_ = make_local_control_plane();
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(command_line, Options)

BOOST_AUTO_TEST_CASE(without_options_all_is_default) {
  BOOST_CHECK(parse({}) == CommandLine::Outcome::run);
  BOOST_TEST(text == "default");
  BOOST_TEST(steps == 7);
  BOOST_TEST(flag);
  BOOST_TEST(!line.given("steps"));
}

BOOST_AUTO_TEST_CASE(the_command_line_wins_over_the_file_and_that_over_the_environment) {
  setenv("LLAMA3D_SOME_TEXT", "environment", 1);
  setenv("LLAMA3D_STEPS", "1", 1);
  parse({"--config", toml("steps = 2\nrate = 0.25\n"), "--rate", "0.125"});
  BOOST_TEST(text == "environment");
  BOOST_TEST(steps == 2);
  BOOST_TEST(rate == 0.125);
  const std::string resolved = line.resolved({"flag"});
  BOOST_TEST(resolved.find("# environment LLAMA3D_SOME_TEXT") != std::string::npos);
  BOOST_TEST(resolved.find("options.toml") != std::string::npos);
  BOOST_TEST(resolved.find("# command line") != std::string::npos);
  BOOST_TEST(resolved.find("# default") != std::string::npos);
  BOOST_TEST(resolved.find("flag") == std::string::npos);
}

BOOST_AUTO_TEST_CASE(the_last_of_two_counts_and_lists_add_up) {
  parse({"--steps", "1", "--steps=2", "--numbers", "1,2", "--numbers", "3", "--texts", "a", "b,c",
         "--texts=[d]", "--no-flag"});
  BOOST_TEST(steps == 2);
  BOOST_TEST(numbers == (std::vector<int>{1, 2, 3}), boost::test_tools::per_element());
  BOOST_TEST(texts == (std::vector<std::string>{"a", "b,c", "[d]"}), boost::test_tools::per_element());
  BOOST_TEST(!flag);
}

BOOST_AUTO_TEST_CASE(what_is_resolved_is_a_file_of_the_same_options) {
  parse({"--some-text= \"[a]\\ ", "--steps", "3", "--no-flag", "--numbers", "4,5", "--texts", "{}", "x y"});
  Options again;
  again.parse({"--config", toml(line.resolved({}))});
  BOOST_TEST(again.text == " \"[a]\\ ");
  BOOST_TEST(again.steps == 3);
  BOOST_TEST(!again.flag);
  BOOST_TEST(again.numbers == numbers, boost::test_tools::per_element());
  BOOST_TEST(again.texts == texts, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(wrong_words_are_refused_with_what_would_be_right) {
  const std::vector<std::pair<std::vector<std::string>, std::vector<std::string>>> cases = {
      {{"--step", "3"}, {"--step: no such option", "did you mean --steps?"}},
      {{"--steps", "many"}, {"--steps many: must be an integer"}},
      {{"--steps", "1.5"}, {"--steps 1.5: must be an integer"}},
      {{"--steps", "99999999999999999999"}, {"--steps", "is too large"}},
      {{"--rate", "nan"}, {"--rate nan: must be a finite number"}},
      {{"--rate", "0,5"}, {"--rate 0,5: must be a finite number"}},
      {{"--steps", "1,000"}, {"--steps 1,000: must be an integer"}},
      {{"--numbers", "1,x"}, {"--numbers x: must be an integer"}},
      {{"--flag=maybe"}, {"--flag maybe: must be true or false"}},
      {{"--some-text"}, {"--some-text: no value given"}},
      {{"--some-text", "--steps", "3"}, {"--some-text: no value given"}},
      {{"word"}, {"word: not expected here"}},
      {{"--config", "/nowhere.toml"}, {"--config /nowhere.toml: no file that can be read"}}};
  for (const auto& [words, expected] : cases) BOOST_TEST_CONTEXT(words.front()) {
      Options options;
      for (const std::string& part : expected)
        BOOST_CHECK_EXCEPTION(options.parse(words), ConfigurationError, [&](const Error& error) {
          return std::string(error.what()).find(part) != std::string::npos;
        });
    }
}

BOOST_AUTO_TEST_CASE(a_file_is_held_to_types_and_names) {
  for (const auto& [content, expected] : std::vector<std::pair<std::string, std::string>>{
           {"steps = \"3\"\n", "must be an integer"},
           {"steps = 3.0\n", "must be an integer"},
           {"some-text = 3\n", "must be a text in quotes"},
           {"flag = 1\n", "must be true or false"},
           {"numbers = [1, \"2\"]\n", "must be an integer or an array of such"},
           {"stepps = 3\n", "did you mean --steps?"},
           {"steps = 3\nsteps = 4\n", "steps"},
           {"some-text = \"a\"\nsome_text = \"b\"\n", "given twice"},
           {"[table]\nsteps = 3\n", "sections are not used here"},
           {"steps = \n", "options.toml"}})
    BOOST_TEST_CONTEXT(content) {
      Options options;
      BOOST_CHECK_EXCEPTION(options.parse({"--config", options.toml(content)}), ConfigurationError,
                            says({"options.toml", expected.c_str()}));
    }
}

BOOST_AUTO_TEST_CASE(variables_are_held_to_types_and_names) {
  setenv("LLAMA3D_STEPS", "many", 1);
  BOOST_CHECK_EXCEPTION(parse({}), ConfigurationError,
                        says({"--steps many (from environment LLAMA3D_STEPS): must be an integer"}));
  unsetenv("LLAMA3D_STEPS");
  setenv("LLAMA3D_STEP", "3", 1);
  Options slip;
  BOOST_CHECK_EXCEPTION(slip.parse({}), ConfigurationError,
                        says({"LLAMA3D_STEP:", "did you mean LLAMA3D_STEPS?"}));
}

BOOST_AUTO_TEST_CASE(help_ends_there) {
  BOOST_CHECK(parse({"--help"}) == CommandLine::Outcome::help);
  for (const char* word : {"--some-text", "--steps", "--no-flag", "a number of steps"})
    BOOST_TEST(line.help().find(word) != std::string::npos, word);
}

BOOST_AUTO_TEST_CASE(ranks_with_other_options_are_refused) {
  Options first;
  first.parse({"--steps", "3", "--some-text", "a"});
  parse({"--steps", "4", "--some-text", "a"});
  OtherFirst control(first.line.resolved_json());
  OtherFirst same(line.resolved_json());
  BOOST_CHECK_EXCEPTION(expect_same_options(commands::train, line.resolved_json(), control), Error,
                        says({"`steps 4`: rank 0 has 3"}));
  BOOST_CHECK_NO_THROW(expect_same_options(commands::train, line.resolved_json(), same));
}

BOOST_AUTO_TEST_CASE(ranks_may_spell_a_number_in_several_ways) {
  Options first;
  first.parse({"--rate", "1e-4", "--steps", "7", "--no-flag"});
  parse({"--rate", "0.0001", "--steps", "7", "--flag=false"});
  OtherFirst control(first.line.resolved_json());
  BOOST_CHECK_NO_THROW(expect_same_options(commands::train, line.resolved_json(), control));
}

BOOST_AUTO_TEST_CASE(leading_zeros_are_refused) {
  for (const char* zeros : {"010", "007", "00"})
    BOOST_CHECK_EXCEPTION(Options().parse({"--steps", zeros}), ConfigurationError, says({"leading zeros"}));
}

BOOST_AUTO_TEST_CASE(an_abbreviation_is_answered_with_its_option) {
  BOOST_CHECK_EXCEPTION(parse({"--st", "3"}), ConfigurationError,
                        says({"--st:", "did you mean --some-text?"}));
  BOOST_CHECK_EXCEPTION(parse({"--some", "a"}), ConfigurationError,
                        says({"--some:", "did you mean --some-text?"}));
}

// A node may have its files elsewhere.
BOOST_AUTO_TEST_CASE(names_of_files_may_differ_between_nodes) {
  std::string data;
  Options first;
  first.line.add("data", data);
  line.add("data", data);
  first.parse({"--data", "/a"});
  parse({"--data", "/b"});
  OtherFirst control(first.line.resolved_json());
  BOOST_CHECK_NO_THROW(expect_same_options(commands::train, line.resolved_json(), control));
}

BOOST_AUTO_TEST_SUITE_END()
