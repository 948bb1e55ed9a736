// A file with its final name is complete.
#include "io/posix/whole_file.hpp"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <fstream>
#include <iterator>

#include "base/error.hpp"
#include "io/posix/partial_file.hpp"
#include "support/error_message.hpp"
#include "support/temporary_folder.hpp"

using namespace llama3d;
using namespace llama3d::test;
using namespace std::string_literals;
namespace fs = std::filesystem;

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
  folder.write("file", "");
  BOOST_CHECK_THROW(WholeFileWriter(folder.path() / "file" / "text"), DataError);
}

BOOST_AUTO_TEST_CASE(folders_on_the_way_are_made) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "a" / "b" / "text";
  WholeFileWriter file(path);
  file.append("text");
  file.finish();
  BOOST_CHECK_EQUAL(read(path), "text");
}

BOOST_AUTO_TEST_CASE(what_a_link_leads_to_is_replaced_and_not_the_link) {
  const TemporaryFolder folder;
  const auto link = folder.path() / "link", elsewhere = folder.path() / "elsewhere";
  fs::create_directory(elsewhere);
  fs::create_symlink("second", link);
  fs::create_symlink(elsewhere / "text", folder.path() / "second");
  for (const char* text : {"new", "newer"}) {  // the file is not there yet, and then it is
    WholeFileWriter file(link);
    file.append(text);
    BOOST_CHECK_EQUAL(std::distance(fs::directory_iterator(elsewhere), {}), text == "new"s ? 1 : 2);
    file.finish();
    BOOST_CHECK_EQUAL(read(elsewhere / "text"), text);
  }
  BOOST_CHECK(fs::is_symlink(link) && fs::is_symlink(folder.path() / "second"));
  BOOST_CHECK_EQUAL(std::distance(fs::directory_iterator(folder.path()), {}), 3);
}

BOOST_AUTO_TEST_CASE(only_files_are_replaced) {
  const TemporaryFolder folder;
  const auto pipe = folder.path() / "pipe", link = folder.path() / "link", loop = folder.path() / "loop";
  BOOST_REQUIRE_EQUAL(::mkfifo(pipe.c_str(), 0600), 0);
  fs::create_symlink("pipe", link);
  fs::create_symlink("loop", loop);
  for (const auto& path : {pipe, link})
    BOOST_CHECK_EXCEPTION(WholeFileWriter{path}, DataError, says({path.string(), "no regular file"}));
  BOOST_CHECK_EXCEPTION(WholeFileWriter{loop}, DataError, says({"loop", "symbolic links"}));
  BOOST_CHECK(fs::is_fifo(pipe));
  BOOST_CHECK_EQUAL(std::distance(fs::directory_iterator(folder.path()), {}), 3);
}

// Killed, a writer removes nothing; the next one of the same name does, and touches nothing else.
BOOST_AUTO_TEST_CASE(what_killed_writers_left_goes_with_the_next_one) {
  const TemporaryFolder folder;
  const auto killed = [](auto&& action) {
    const pid_t child = ::fork();
    if (child == 0) {
      action();
      ::raise(SIGKILL);
    }
    ::waitpid(child, nullptr, 0);
  };
  const auto count = [&] { return std::distance(fs::directory_iterator(folder.path()), {}); };
  const fs::path file = folder / "text", model = folder / "model";
  killed([&] { (new WholeFileWriter(file))->append("half"); });
  killed([&] { folder.write((new io::PartialFolder(model))->path().filename() / "config.json", "{}"); });
  BOOST_REQUIRE_EQUAL(count(), 2);
  std::array<char, 256> host{};
  BOOST_REQUIRE(::gethostname(host.data(), host.size() - 1) == 0);
  folder.write(fmt::format("text.partial-{}-1-zzzzzzzz", host.data()), "not ours");
  folder.write("text.partial-anotherhost-1-00000000", "another host's");
  folder.write(fmt::format("other.partial-{}-1-00000000", host.data()), "another one's");
  WholeFileWriter living(file);
  BOOST_CHECK_EQUAL(count(), 5);
  const io::PartialFolder living_folder(model);
  BOOST_CHECK_EQUAL(count(), 5);
  WholeFileWriter next(file);
  const io::PartialFolder next_folder(model);
  BOOST_CHECK_EQUAL(count(), 7);
  living.append("whole");
  living.finish();
  BOOST_CHECK_EQUAL(read(file), "whole");
  BOOST_CHECK(fs::is_directory(living_folder.path()));
}

BOOST_AUTO_TEST_SUITE_END()
