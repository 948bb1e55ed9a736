#include "base/json.hpp"

#include <boost/test/unit_test.hpp>
#include <nlohmann/json.hpp>

#include "support/error_message.hpp"
#include "support/mutator.hpp"

using namespace llama3d;
using nlohmann::json;
using test::says;

namespace {

std::string nested(int depth) {
  return std::string(static_cast<std::size_t>(depth), '[') +
         std::string(static_cast<std::size_t>(depth), ']');
}

void expect_error(const std::string& text, std::initializer_list<std::string> words,
                  const JsonLimits& limits = {}) {
  BOOST_TEST_CONTEXT(text.substr(0, 60)) {
    BOOST_CHECK_EXCEPTION(parse_json(text, limits), JsonError, says(words));
    BOOST_CHECK_EXCEPTION(parse_json(text, limits), JsonError,
                          [](const JsonError& error) { return std::string(error.what()).size() < 400; });
  }
}

constexpr const char* sample =
    R"({"a": [1, -2, 2.5, 1e300, true, false, null], "b": {"c": "te\"xt\u00e9\ud83e\udd99", "d": {}, "e": []},)"
    R"( "big": 18446744073709551615, "bigger": 18446744073709551616, "a b": [[], [{}], {"x": [0]}]})";

}  // namespace

BOOST_AUTO_TEST_SUITE(json_text_and_values)

BOOST_AUTO_TEST_CASE(values_are_the_librarys) {
  BOOST_TEST((parse_json(sample) == json::parse(sample)));
  for (const char* text : {"3", "\"a\"", "null", "[]", "{}", " [ ] ", R"({"a":1,"a":2,"b":3})"})
    BOOST_TEST((parse_json(text) == json::parse(text)), text);
  BOOST_TEST(parse_json<nlohmann::ordered_json>(R"({"b":1,"a":{"d":[2],"c":3}})").dump() ==
             R"({"b":1,"a":{"d":[2],"c":3}})");
}

BOOST_AUTO_TEST_CASE(damaged_text_is_what_the_library_makes_of_it_or_an_error) {
  test::Mutator mutator(7);
  int good = 0;
  for (int i = 0; i < 20000; ++i) {
    const std::string text = mutator.mutated(sample);
    const bool valid = json::accept(text);
    json value;
    BOOST_TEST_CONTEXT(i << ": " << text) {
      try {
        value = parse_json(text, {.depth = 1000});
        BOOST_REQUIRE(valid);
        BOOST_REQUIRE((value == json::parse(text)));
        ++good;
      } catch (const JsonError& error) {
        BOOST_REQUIRE(says({})(error));
        // The library accepts a number that no double holds where it only looks.
        BOOST_REQUIRE((!valid || std::string(error.what()).find("number overflow") != std::string::npos));
      }
    }
  }
  BOOST_TEST(good > 1000);
  BOOST_TEST(good < 15000);
}

BOOST_AUTO_TEST_CASE(errors_name_the_byte) {
  expect_error("", {"no valid JSON at byte 1"});
  expect_error("{\"a\": 1", {"no valid JSON at byte 8", "end of input"});
  expect_error("[1]x", {"no valid JSON at byte 4"});
  expect_error("[\n1,\n\x1b]", {"no valid JSON at byte 6"});
  expect_error("{\"a\xFF\": 1}", {"no valid JSON", "UTF-8"});
  expect_error("[nan]", {"no valid JSON"});
  expect_error("[1,1e999]", {"no valid JSON at byte 8", "number overflow", "1e999"});
  expect_error("[" + std::string(400, '9') + "]", {"number overflow"});
  expect_error("\"" + std::string(std::size_t{1} << 20, 'x'), {"no valid JSON"});
}

BOOST_AUTO_TEST_CASE(depth_is_bounded) {
  BOOST_CHECK_NO_THROW(parse_json(nested(64)));
  expect_error(nested(65), {"nested more than 64 deep"});
  expect_error(std::string(std::size_t{20} << 20, '['), {"nested more than 64 deep"});
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  expect_error(objects, {"nested more than 64 deep"});
  BOOST_CHECK_NO_THROW(parse_json(nested(3), {.depth = 3}));
  expect_error(nested(4), {"nested more than 3 deep"}, {.depth = 3});
  // Beside each other is not within each other.
  std::string beside = "[[]";
  for (int i = 0; i < 1000; ++i) beside += ",[{}]";
  BOOST_CHECK_NO_THROW(parse_json(beside + "]"));
}

BOOST_AUTO_TEST_CASE(the_number_of_values_is_bounded) {
  BOOST_CHECK_NO_THROW(parse_json("[1,2,{}]", {.values = 4}));
  expect_error("[1,2,{}]", {"more than 3 values"}, {.values = 3});
  std::string many = "[0";
  for (int i = 0; i < 1 << 22; ++i) many += ",0";
  expect_error(many, {"more than 4194304 values"});
}

BOOST_AUTO_TEST_CASE(equal_keys_are_refused_where_that_is_asked_for) {
  expect_error(R"({"a":{"x\n":1,"x\n":1}})", {"x\\n is listed twice"}, {.distinct_keys = true});
  BOOST_CHECK_NO_THROW(parse_json(R"({"a":{"a":1},"b":{"a":1}})", {.distinct_keys = true}));
  BOOST_TEST(parse_json(R"({"a":{"b":1},"a":2})")["a"] == 2);
}

BOOST_AUTO_TEST_CASE(an_object_is_an_object) {
  BOOST_TEST(parse_json_object(R"({"a":1})").size() == 1u);
  BOOST_CHECK_EXCEPTION(parse_json_object("[1]"), JsonError, says({"a JSON array, not an object"}));
}

BOOST_AUTO_TEST_CASE(integers_are_integers) {
  for (const char* text : {"-1", "1.0", "1e30", "1e300", "true", "null", "\"1\"", "[1]",
                           "9223372036854775808", "18446744073709551616", "-9223372036854775809"}) {
    const json value = parse_json(text);
    BOOST_TEST(!integer_within(value, 0, largest_integer).has_value(), text);
    BOOST_CHECK_EXCEPTION(json_integer(value, "size"), JsonError,
                          says({"size is ", "; it must be an integer from 0 to 9223372036854775807"}));
    BOOST_CHECK_EXCEPTION(json_integers(json::array({1, value}), "shape"), JsonError,
                          says({"an element of shape is "}));
    BOOST_CHECK_EXCEPTION(json_integer_in({{"step", value}}, "step"), JsonError, says({"step is "}));
  }
  BOOST_TEST(json_integer(parse_json("9223372036854775807"), "size") == largest_integer);
  BOOST_TEST(json_integer(parse_json("-3"), "size", -3, 5) == -3);
  BOOST_CHECK_EXCEPTION(json_integer(json(6), "size", -3, 5), JsonError, says({"size is 6", "from -3 to 5"}));
  BOOST_TEST((json_integers(parse_json("[1,2]"), "shape") == std::vector<std::int64_t>{1, 2}));
  BOOST_CHECK_EXCEPTION(json_integers(json(3), "shape"), JsonError,
                        says({"shape is 3; it must be an array"}));
}

BOOST_AUTO_TEST_CASE(members_are_there_or_stand_for_themselves) {
  const json object = {{"step", 3}, {"name", "x"}, {"none", nullptr}};
  BOOST_TEST(json_integer_in(object, "step") == 3);
  BOOST_TEST(json_text_in(object, "name") == "x");
  BOOST_TEST(json_integer_in(object, "none", 7) == 7);
  BOOST_TEST(json_text_in(object, "gone", "y") == "y");
  BOOST_CHECK_EXCEPTION(json_integer_in(object, "gone"), JsonError, says({"gone is missing"}));
  BOOST_CHECK_EXCEPTION(json_text_in(object, "step", "y"), JsonError,
                        says({"step is 3; it must be a string"}));
  BOOST_CHECK_EXCEPTION(json_integer_in(json(1), "step"), JsonError, says({"must be an object"}));
}

BOOST_AUTO_TEST_CASE(excerpts_are_short) {
  BOOST_TEST(json_excerpt(parse_json(R"({"a":[1,"x",null]})")) == R"({"a":[1,"x",null]})");
  BOOST_TEST(json_excerpt(json("a\nb\x1b")) == "\"a\\nb\\u001b\"");
  BOOST_TEST(json_excerpt(json("a\xFF")) == "\"a\\xff\"");
  for (const json& value : {json(std::string(100'000, 'x')), json(std::vector<int>(100'000, 7)),
                            parse_json(nested(64)), json::object({{std::string(100'000, 'x'), 1}})})
    BOOST_TEST(json_excerpt(value).size() < 80u);
}

BOOST_AUTO_TEST_SUITE_END()
