#include "io/posix/folder_lock.hpp"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <chrono>
#include <memory>
#include <thread>

#include "support/error_message.hpp"
#include "support/preconditions.hpp"
#include "support/temporary_folder.hpp"

using namespace llama3d;
using test::says;
namespace fs = std::filesystem;

BOOST_FIXTURE_TEST_SUITE(folder_lock, test::TemporaryFolder)

BOOST_AUTO_TEST_CASE(it_keeps_others_out_until_it_goes) {
  {
    const FolderLock first(path(), "the first");
    BOOST_TEST(!first.held_by());
    BOOST_TEST(FolderLock(path(), "the second", 0).held_by().value_or("") == "the first");
  }
  BOOST_TEST(!FolderLock(path(), "the third").held_by());
}

BOOST_AUTO_TEST_CASE(a_process_that_is_just_ending_is_waited_for) {
  auto first = std::make_unique<FolderLock>(path(), "the first");
  const auto begin = std::chrono::steady_clock::now();
  std::thread ending([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    first.reset();
  });
  BOOST_TEST(!FolderLock(path(), "the second", 60).held_by());
  ending.join();
  BOOST_TEST((std::chrono::steady_clock::now() - begin > std::chrono::milliseconds(150)));
}

BOOST_AUTO_TEST_CASE(what_is_no_lock_file_is_refused) {
  fs::create_directory(*this / ".lock");
  BOOST_CHECK_EXCEPTION(FolderLock(path(), ""), io::IoError, says({".lock", "Is a directory"}));
  fs::remove(*this / ".lock");
  fs::create_symlink("nowhere", *this / ".lock");
  BOOST_CHECK_EXCEPTION(FolderLock(path(), ""), io::IoError, says({".lock", "it is a link"}));
  fs::remove(*this / ".lock");
  BOOST_REQUIRE(::mkfifo((*this / ".lock").c_str(), 0666) == 0);
  BOOST_CHECK_EXCEPTION(FolderLock(path(), ""), io::IoError, says({".lock", "no regular file"}));
}

BOOST_AUTO_TEST_CASE(it_notices_that_its_file_is_another) {
  const FolderLock lock(path(), "");
  BOOST_TEST(lock.in_place());
  fs::remove(*this / ".lock");
  BOOST_TEST(!lock.in_place());
  write(".lock", "");
  BOOST_TEST(!lock.in_place());
}

// As root nothing is refused, so a child gives its rights up.
BOOST_AUTO_TEST_CASE(a_file_that_another_user_made_locks_as_well,
                     *test::needs("root, who can become another user", [] { return ::geteuid() == 0; })) {
  fs::permissions(path(), fs::perms::all);
  const auto as_another_user = [&](auto&& action) {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(::setgid(65534) == 0 && ::setuid(65534) == 0 ? action() : 99);
    int status = 0;
    ::waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 98;
  };
  const auto held = [&] { return FolderLock(path(), "", 0).held_by() ? 1 : 0; };
  {
    const FolderLock mine(path(), "mine");
    fs::permissions(*this / ".lock", fs::perms(0644));
    BOOST_TEST(as_another_user(held) == 1);
  }
  BOOST_TEST(as_another_user(held) == 0);
  fs::permissions(*this / ".lock", fs::perms(0600));
  BOOST_TEST(as_another_user([&] {
               try {
                 FolderLock(path(), "");
               } catch (const io::IoError& error) {
                 return std::string(error.what()).find("Permission denied") != std::string::npos ? 2 : 3;
               }
               return 4;
             }) == 2);
}

BOOST_AUTO_TEST_SUITE_END()
