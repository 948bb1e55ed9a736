// A file with its final name is complete.
#include "io/whole_file.hpp"

#include <boost/test/unit_test.hpp>
#include <fstream>
#include <iterator>

#include "base/error.hpp"
#include "support/temporary_folder.hpp"

using namespace llama3d;
using namespace llama3d::test;

namespace {

std::string read(const std::filesystem::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

BOOST_AUTO_TEST_SUITE(whole_file)

BOOST_AUTO_TEST_CASE(it_replaces_what_was_there_when_it_is_done) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "text";
  std::ofstream(path) << "before";
  {
    WholeFileWriter file(path);
    file.append("one ");
    file.append("two");
    BOOST_CHECK_EQUAL(read(path), "before");
    file.finish();
  }
  BOOST_CHECK_EQUAL(read(path), "one two");
}

BOOST_AUTO_TEST_CASE(nothing_is_left_of_one_given_up) {
  const TemporaryFolder folder;
  WholeFileWriter(folder.path() / "text").append("some");
  BOOST_CHECK(std::filesystem::is_empty(folder.path()));
}

BOOST_AUTO_TEST_CASE(places_that_can_not_be_written_to) {
  const TemporaryFolder folder;
  BOOST_CHECK_THROW(WholeFileWriter(folder.path()), DataError);
  BOOST_CHECK_THROW(WholeFileWriter(folder.path() / "none" / "text"), DataError);
}

BOOST_AUTO_TEST_SUITE_END()
