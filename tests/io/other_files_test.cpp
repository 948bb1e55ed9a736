// HDF5 files that keep their data in other files, as a stranger may write them: what lies there is not read.
#include <boost/test/unit_test.hpp>

#include "base/error.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "io/damage.hpp"
#include "io/describe.hpp"
#include "io/hdf5/hdf5.hpp"
#include "io/metrics/metrics_file.hpp"
#include "io/tokens/token_file.hpp"
#include "support/error_message.hpp"
#include "support/temporary_folder.hpp"

using namespace llama3d;
using test::says;
namespace fs = std::filesystem;

namespace {

constexpr hsize_t count = 16;

struct Folder {
  Folder() {
    test::write_bytes(secret, std::string(256, 'K'));
    TokenFileWriter writer(tokens, {"bytes", 1 << 30, "a test", true});
    writer.append_document(std::vector<std::uint32_t>(count, 65), std::vector<std::uint8_t>(count, 1));
    writer.finish();
    fs::copy_file(tokens, other);
  }

  /// Puts another dataset in the place of `name`.
  void replace(const fs::path& path, const std::string& name, hid_t type, hid_t creation) const {
    const auto file = io::open_file(path, true);
    BOOST_REQUIRE(H5Ldelete(file.get(), name.c_str(), H5P_DEFAULT) >= 0);
    const auto space = io::make_space({count});
    io::own_hdf5<io::Hdf5Dataset>(
        H5Dcreate2(file.get(), name.c_str(), type, space.get(), H5P_DEFAULT, creation, H5P_DEFAULT),
        "create");
  }
  void link(const fs::path& path, const std::string& name, const fs::path& target,
            const std::string& object) const {
    const auto file = io::open_file(path, true);
    BOOST_REQUIRE(H5Ldelete(file.get(), name.c_str(), H5P_DEFAULT) >= 0);
    BOOST_REQUIRE(H5Lcreate_external(target.c_str(), object.c_str(), file.get(), name.c_str(), H5P_DEFAULT,
                                     H5P_DEFAULT) >= 0);
  }
  io::Hdf5Properties external_storage() const {
    auto creation = io::make_properties(H5P_DATASET_CREATE);
    BOOST_REQUIRE(H5Pset_external(creation.get(), secret.c_str(), 0, H5F_UNLIMITED) >= 0);
    return creation;
  }
  io::Hdf5Properties virtual_of(const char* object) const {
    auto creation = io::make_properties(H5P_DATASET_CREATE);
    const auto space = io::make_space({count});
    BOOST_REQUIRE(H5Pset_virtual(creation.get(), space.get(), other.c_str(), object, space.get()) >= 0);
    return creation;
  }
  void expect_refused(const fs::path& path, std::initializer_list<std::string> words) const {
    BOOST_CHECK_EXCEPTION(TokenFileReader reader(path), DataError, says(words));
    BOOST_CHECK_EXCEPTION(describe_file(path), DataError, says(words));
  }

  test::TemporaryFolder folder;
  fs::path secret = folder / "secret", tokens = folder / "tokens.h5", other = folder / "other.h5";
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(other_files, Folder)

BOOST_AUTO_TEST_CASE(the_token_file_itself_is_read) {
  BOOST_TEST(TokenFileReader(tokens).tokens() == static_cast<std::int64_t>(count));
}

BOOST_AUTO_TEST_CASE(external_storage_of_a_token_file) {
  replace(tokens, "tokens", H5T_STD_U32LE, external_storage().get());
  expect_refused(tokens, {"dataset tokens", "in another file"});
}

BOOST_AUTO_TEST_CASE(external_storage_of_a_loss_mask_and_of_documents) {
  replace(tokens, "loss_mask", H5T_STD_U8LE, external_storage().get());
  expect_refused(tokens, {"dataset loss_mask", "in another file"});
  replace(other, "documents", H5T_STD_U64LE, external_storage().get());
  expect_refused(other, {"dataset documents", "in another file"});
}

BOOST_AUTO_TEST_CASE(a_virtual_dataset_of_tokens) {
  replace(tokens, "tokens", H5T_STD_U32LE, virtual_of("tokens").get());
  expect_refused(tokens, {"dataset tokens", "virtual"});
}

BOOST_AUTO_TEST_CASE(an_external_link_to_tokens) {
  link(tokens, "tokens", other, "tokens");
  expect_refused(tokens, {"dataset tokens", "other.h5", "not followed"});
}

BOOST_AUTO_TEST_CASE(a_soft_link_through_an_external_one) {
  {
    const auto file = io::open_file(tokens, true);
    BOOST_REQUIRE(H5Ldelete(file.get(), "tokens", H5P_DEFAULT) >= 0);
    BOOST_REQUIRE(H5Lcreate_external(other.c_str(), "/", file.get(), "away", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    BOOST_REQUIRE(H5Lcreate_soft("/away/tokens", file.get(), "tokens", H5P_DEFAULT, H5P_DEFAULT) >= 0);
  }
  expect_refused(tokens, {"dataset tokens", "other.h5", "not followed"});
}

BOOST_AUTO_TEST_CASE(tables_and_attributes_of_a_metrics_file) {
  const fs::path metrics = folder / "metrics.h5", away = folder / "away.h5";
  for (const fs::path& path : {metrics, away}) {
    MetricsFile file(path);
    file.set_run_attribute("secret", std::string("key"));
  }
  BOOST_CHECK_NO_THROW(describe_file(metrics));
  link(metrics, "run", away, "run");
  BOOST_CHECK_EXCEPTION(describe_file(metrics), DataError, says({"group run", "away.h5"}));
  {
    // Resuming would write to the other file.
    const std::string before = test::read_bytes(away);
    MetricsFile file(metrics, 3);
    file.set_run_attribute("secret", std::string("changed"));
    BOOST_TEST(file.set_aside_reason().find("group run") != std::string::npos);
    BOOST_TEST((test::read_bytes(away) == before));
  }
  link(metrics, "train", away, "train");
  BOOST_CHECK_EXCEPTION(describe_file(metrics), DataError, says({"dataset train", "away.h5"}));
}

BOOST_AUTO_TEST_CASE(blocks_of_a_checkpoints_rank_file) {
  const fs::path step = folder / "step_00000001", file = step / "rank_00000.h5";
  fs::create_directory(step);
  const std::vector<float> values(10, 1);
  RankFileWriter writer(step, 0);
  writer.write({"/model/a", DType::fp32, {10}, {{0, 10, 0, 1}}, values.data()});
  std::string manifest = writer.finish();
  const std::string old_size = "\"bytes\":" + std::to_string(fs::file_size(file));
  fs::copy_file(file, folder / "copy.h5");
  link(file, "/model/a[0:10]", folder / "copy.h5", "/model/a[0:10]");
  BOOST_REQUIRE(manifest.find(old_size) != std::string::npos);
  manifest.replace(manifest.find(old_size), old_size.size(),
                   "\"bytes\":" + std::to_string(fs::file_size(file)));
  write_global_view(step, {manifest}, "{}");
  const CheckpointReader reader(step);
  BOOST_CHECK_EXCEPTION(reader.verify(), CheckpointError,
                        says({"rank_00000.h5", "dataset /model/a[0:10]", "copy.h5", "not followed"}));
}

BOOST_AUTO_TEST_CASE(what_other_programs_read_of_a_checkpoint) {
  const fs::path step = folder / "step_00000001", view = step / "checkpoint.h5";
  const std::vector<float> values(count, 1);
  const auto make = [&] {
    fs::remove_all(step);
    fs::create_directory(step);
    RankFileWriter writer(step, 0);
    writer.write({"/model/a", DType::fp32, {count}, {{0, count, 0, 1}}, values.data()});
    write_global_view(step, {writer.finish()}, "{}");
    BOOST_CHECK_NO_THROW(describe_file(step));
  };
  make();
  replace(view, "/model/a", H5T_IEEE_F32LE, virtual_of("tokens").get());
  BOOST_CHECK_EXCEPTION(describe_file(step), DataError,
                        says({"dataset model/a", "other.h5", "another folder"}));
  make();
  replace(view, "/model/a", H5T_IEEE_F32LE, external_storage().get());
  BOOST_CHECK_EXCEPTION(describe_file(step), DataError, says({"dataset model/a", "in another file"}));
  make();
  link(view, "/model/a", other, "tokens");
  BOOST_CHECK_EXCEPTION(describe_file(step), DataError, says({"/model/a is a link into another file"}));
}

BOOST_AUTO_TEST_CASE(groups_in_groups_without_end) {
  const fs::path path = folder / "rank_00000.h5";
  {
    const auto file = io::create_file(path);
    io::write_attribute(file.get(), "format", std::string("llama3d checkpoint rank file"));
    io::write_attribute(file.get(), "rank", std::int64_t{0});
    io::Hdf5Group group = io::open_group(file.get(), "/");
    for (int i = 0; i < 3000; ++i)
      group = io::own_hdf5<io::Hdf5Group>(H5Gcreate2(group.get(), "g", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                                          "g");
  }
  BOOST_CHECK_EXCEPTION(describe_file(path), DataError, says({"rank_00000.h5", "datasets"}));
}

BOOST_AUTO_TEST_CASE(sizes_beyond_the_file) {
  {
    const auto file = io::open_file(tokens, true);
    const hsize_t many = hsize_t{1} << 62;
    BOOST_REQUIRE(H5Dset_extent(io::open_dataset(file.get(), "documents").get(), &many) >= 0);
  }
  expect_refused(tokens, {"/documents says that it has 4611686018427387904 values"});
  {
    const auto file = io::open_file(other, true);
    const hsize_t many = hsize_t{1} << 40;
    BOOST_REQUIRE(H5Dset_extent(io::open_dataset(file.get(), "tokens").get(), &many) >= 0);
  }
  expect_refused(other, {"/tokens says that it has 1099511627776 values"});
}

BOOST_AUTO_TEST_SUITE_END()
