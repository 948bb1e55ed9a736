#include "base/model_folder.hpp"

#include <boost/test/unit_test.hpp>

#include "base/error.hpp"
#include "support/error_message.hpp"
#include "support/temporary_folder.hpp"

using namespace llama3d;
using test::says;
namespace fs = std::filesystem;

BOOST_AUTO_TEST_SUITE(model_folder)

BOOST_AUTO_TEST_CASE(a_folders_file_is_its_own) {
  const test::TemporaryFolder root;
  const fs::path own = root.write("model/own.json", "own"), secret = root.write("secret.json", "secret");
  const fs::path folder = own.parent_path();
  const auto refused = [&](const std::string& name, std::initializer_list<std::string> words) {
    BOOST_TEST_CONTEXT(name) BOOST_CHECK_EXCEPTION(read_model_file(folder, name), DataError, says(words));
  };
  BOOST_TEST(read_model_file(folder, "own.json") == "own");
  fs::create_symlink("own.json", folder / "inner.json");
  BOOST_TEST(read_model_file(folder, "inner.json") == "own");
  fs::create_symlink("../secret.json", folder / "link.json");
  refused("link.json", {"link.json", "outside the folder"});
  fs::create_symlink(secret, folder / "absolute.json");
  refused("absolute.json", {"outside the folder"});
  for (const char* name : {"../secret.json", "", ".", "..", "a/b"}) refused(name, {"no name of a file"});
  fs::create_directory(folder / "inside");
  refused("inside", {"no regular file"});
  refused("gone", {"No such file"});
  // The folder itself may well be named through a link.
  fs::create_directory_symlink("model", root / "alias");
  BOOST_TEST(read_model_file(root / "alias", "own.json") == "own");
}

BOOST_AUTO_TEST_CASE(a_snapshot_of_the_hubs_cache_has_its_blobs) {
  const test::TemporaryFolder root;
  root.write("models--x/blobs/abc", "blob");
  root.write("models--y/blobs/abc", "another");
  const fs::path snapshot = root / "models--x" / fs::path("snapshots/1");
  fs::create_directories(snapshot);
  fs::create_symlink("../../blobs/abc", snapshot / "config.json");
  fs::create_symlink("../../../models--y/blobs/abc", snapshot / "other.json");
  BOOST_TEST(read_model_file(snapshot, "config.json") == "blob");
  BOOST_CHECK_EXCEPTION(read_model_file(snapshot, "other.json"), DataError, says({"outside the folder"}));
}

BOOST_AUTO_TEST_CASE(files_are_read_up_to_a_size) {
  const test::TemporaryFolder root;
  const fs::path path = root.write("a", "12345");
  BOOST_TEST(read_file(path, 5) == "12345");
  BOOST_CHECK_EXCEPTION(read_file(path, 4), std::runtime_error, says({"more than 4 bytes"}));
  BOOST_CHECK_EXCEPTION(read_file("/dev/zero", 1000), std::runtime_error, says({"more than 1000 bytes"}));
  BOOST_CHECK_EXCEPTION(read_file(root / "b", 4), std::runtime_error, says({"No such file"}));
  BOOST_CHECK_EXCEPTION(read_file(root.path(), 4), std::runtime_error, says({"folder"}));
}

BOOST_AUTO_TEST_SUITE_END()
