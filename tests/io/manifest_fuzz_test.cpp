// Manifests damaged at random, the same way in every run, and with numbers and depths that a stranger may
// write.
#include <boost/test/unit_test.hpp>

#include "io/checkpoint/manifest.hpp"
#include "support/error_message.hpp"
#include "support/mutator.hpp"

using namespace llama3d;
using test::says;

namespace {

const std::string manifest =
    R"({"format":"llama3d checkpoint","version":1,"attributes":{"step":3,"note":"x"},"files":[{"file":)"
    R"("rank_00000.h5","bytes":8192,"blocks":[{"dataset":"/model/a","shape":[4,6],"dtype":"fp32","rectangle":)"
    R"([0,2,0,6],"bytes":48,"crc32c":"0a1b2c3d"},{"dataset":"/model/a","shape":[4,6],"dtype":"fp32","rectangle":)"
    R"([2,4,0,6],"bytes":48,"crc32c":"00000000"},{"dataset":"/model/b","shape":[5],"dtype":"bf16","rectangle":)"
    R"([0,5,0,1],"bytes":10,"crc32c":"ffffffff"}]}]})";

std::string with(const std::string& old, const std::string& changed) {
  std::string text = manifest;
  const auto at = text.find(old);
  BOOST_REQUIRE(at != std::string::npos);
  return text.replace(at, old.size(), changed);
}

void expect_refused(const std::string& text, std::initializer_list<std::string> words) {
  const auto is_short = [](const io::IoError& error) { return std::string(error.what()).size() < 500; };
  BOOST_TEST_CONTEXT(text.substr(0, 200)) {
    BOOST_CHECK_EXCEPTION(io::parse_checkpoint_manifest(text), io::IoError, says(words));
    BOOST_CHECK_EXCEPTION(io::parse_checkpoint_manifest(text), io::IoError, is_short);
  }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(manifest_fuzz)

BOOST_AUTO_TEST_CASE(a_whole_one_is_read) {
  const auto read = io::parse_checkpoint_manifest(manifest);
  BOOST_TEST(read.ranks.at(0).blocks.size() == 3u);
  BOOST_TEST(io::group_by_dataset(read.ranks).size() == 2u);
  BOOST_TEST(read.attributes_json == R"({"note":"x","step":3})");
}

BOOST_AUTO_TEST_CASE(numbers_that_are_none_of_ours) {
  for (const char* number : {"1e30", "-1", "2.5", "true", "null", "\"2\"", "[2]", "9223372036854775808"}) {
    const std::string text = number;
    expect_refused(with("\"version\":1", "\"version\":" + text), {"manifest is damaged", "version"});
    expect_refused(with("\"bytes\":8192", "\"bytes\":" + text), {"bytes is "});
    expect_refused(with("[4,6]", "[4," + text + "]"), {"shape of /model/a"});
    expect_refused(with("[0,2,0,6]", "[0,2,0," + text + "]"), {"rectangle of /model/a"});
    expect_refused(with("\"bytes\":10", "\"bytes\":" + text), {"bytes is "});
  }
  expect_refused(with("8192", "1e999"), {"number overflow"});
  expect_refused(with("8192", std::string(400, '1')), {"number overflow"});
  expect_refused(with("8192", "47"), {"smaller than one of its blocks"});
}

BOOST_AUTO_TEST_CASE(sizes_that_overflow) {
  const std::string most = "9223372036854775807";
  expect_refused(with("\"shape\":[5]", "\"shape\":[" + most + "]"), {"contradicts itself"});
  expect_refused(with("\"shape\":[4,6]", "\"shape\":[" + most + "," + most + "]"), {"contradicts itself"});
  expect_refused(with("\"shape\":[4,6]", "\"shape\":[4294967296,4294967296]"), {"contradicts itself"});
  expect_refused(with("\"shape\":[5]", "\"shape\":[]"), {"contradicts itself"});
  expect_refused(with("\"shape\":[5]", "\"shape\":[1,1,5]"), {"contradicts itself"});
}

BOOST_AUTO_TEST_CASE(names_that_are_none_of_ours) {
  for (const char* name : {"../rank_00000.h5", "/etc/passwd", "", ".", ".."})
    expect_refused(with("rank_00000.h5", name), {"damaged file name"});
  expect_refused(with("0a1b2c3d", "0a1b2c3d0a1b2c3d"), {"crc32c"});
  expect_refused(with("0a1b2c3d", "0x1b2c3d"), {"crc32c"});
  expect_refused(with("fp32", "fp8"), {"unknown dtype"});
  expect_refused(with("/model/a\",\"shape\":[4,6]", "/model/\\u001b[31ma\",\"shape\":3"),
                 {"/model/\\u001b[31ma"});
}

BOOST_AUTO_TEST_CASE(depth) {
  const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
  for (const char* place : {"3,\"note\"", "\"rank_00000.h5\"", "8192", "[4,6]", "\"fp32\"", "\"0a1b2c3d\""})
    expect_refused(with(place, deep), {"nested more than 64 deep"});
}

BOOST_AUTO_TEST_CASE(damaged_ones_are_read_or_refused) {
  test::Mutator mutator(11);
  int read = 0, refused = 0;
  for (int i = 0; i < 20000; ++i) {
    const std::string text = mutator.mutated(manifest);
    BOOST_TEST_CONTEXT(i << ": " << text) {
      try {
        io::group_by_dataset(io::parse_checkpoint_manifest(text).ranks);
        ++read;
      } catch (const io::IoError& error) {
        BOOST_REQUIRE_EQUAL(std::string(error.what()).find('\n'), std::string::npos);
        ++refused;
      }
    }
  }
  BOOST_TEST_MESSAGE(read << " read, " << refused << " refused");
  BOOST_TEST(read > 200);
  BOOST_TEST(refused > 15000);
}

BOOST_AUTO_TEST_SUITE_END()
