#include <boost/test/unit_test.hpp>

#include "io/checkpoint/checkpoint_file.hpp"
#include "io/checkpoint_samples.hpp"
#include "io/damage.hpp"
#include "io/hdf5/hdf5.hpp"
#include "support/error_message.hpp"
#include "support/temporary_folder.hpp"

using namespace llama3d;
using test::says;
namespace fs = std::filesystem;

namespace {

// A good checkpoint, to be damaged.
struct Damage {
  Damage() { test::write_sample(path); }

  void expect_refused(std::initializer_list<std::string> words) const {
    BOOST_CHECK_EXCEPTION(CheckpointReader reader(path), CheckpointError, says(words));
    BOOST_CHECK_EXCEPTION(CheckpointReader reader(path), CheckpointError, says({path.string()}));
  }

  test::TemporaryFolder folder;
  fs::path path = folder / "step_00000100";
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(checkpoint_damage, Damage)

BOOST_AUTO_TEST_CASE(the_undamaged_one_loads) {
  BOOST_TEST(CheckpointReader(path).verify() > 0);
}

BOOST_AUTO_TEST_CASE(missing_folder_and_files) {
  BOOST_CHECK_EXCEPTION(CheckpointReader reader(folder / "nothing"), CheckpointError,
                        says({"no such folder"}));
  fs::remove(path / "rank_00001.h5");
  expect_refused({"rank_00001.h5", "No such file"});
  fs::remove(path / "checkpoint.h5");
  expect_refused({"checkpoint.h5", "No such file"});
}

BOOST_AUTO_TEST_CASE(files_of_another_size) {
  test::truncate_by(path / "rank_00002.h5", 4096);
  expect_refused({"rank_00002.h5", "bytes, not"});
}

BOOST_AUTO_TEST_CASE(truncated_or_foreign_global_view) {
  const std::string good = test::read_bytes(path / "checkpoint.h5");
  test::truncate_by(path / "checkpoint.h5", 1000);
  expect_refused({"checkpoint.h5", "truncated"});
  test::write_bytes(path / "checkpoint.h5", "");
  expect_refused({"checkpoint.h5", "empty"});
  test::write_bytes(path / "checkpoint.h5", "no HDF5 at all");
  expect_refused({"checkpoint.h5", "not an HDF5 file"});
  { const auto foreign = io::create_file(path / "checkpoint.h5"); }
  expect_refused({"checkpoint.h5", "no checkpoint"});
  test::write_bytes(path / "checkpoint.h5", good);
  BOOST_CHECK_NO_THROW(CheckpointReader reader(path));
}

BOOST_AUTO_TEST_CASE(a_rank_file_in_place_of_the_global_view) {
  fs::copy_file(path / "rank_00000.h5", path / "checkpoint.h5", fs::copy_options::overwrite_existing);
  expect_refused({"checkpoint.h5", "rank file"});
}

BOOST_AUTO_TEST_CASE(a_newer_version) {
  io::write_attribute(io::open_file(path / "checkpoint.h5", true).get(), "version", std::int64_t{2});
  expect_refused({"version is 2"});
}

BOOST_AUTO_TEST_CASE(a_flipped_bit_in_the_manifest) {
  test::flip_bit(path / "checkpoint.h5", "\"crc32c\":\"", 12);
  expect_refused({"checkpoint.h5", "checksum of /manifest"});
}

BOOST_AUTO_TEST_CASE(a_flipped_bit_in_any_block_is_found_by_the_checksums) {
  std::size_t blocks = 0;
  for (int rank = 0; rank < 3; ++rank) {
    const fs::path file = path / ("rank_0000" + std::to_string(rank) + ".h5");
    std::vector<std::pair<std::string, haddr_t>> places;
    {
      const auto hdf5 = io::open_file(file);
      const auto collect = [](hid_t, const char* name, const H5L_info_t*, void* out) -> herr_t {
        static_cast<std::vector<std::pair<std::string, haddr_t>>*>(out)->emplace_back(name, 0);
        return 0;
      };
      BOOST_REQUIRE(H5Lvisit(hdf5.get(), H5_INDEX_NAME, H5_ITER_INC, collect, &places) >= 0);
      std::erase_if(places, [](const auto& place) { return place.first.back() != ']'; });
      for (auto& [name, offset] : places) offset = H5Dget_offset(io::open_dataset(hdf5.get(), name).get());
    }
    const auto descriptor = io::open_descriptor(file, io::OpenMode::read_write);
    for (const auto& [name, offset] : places) {
      const auto place = static_cast<std::int64_t>(offset) + 1;
      char good = 0;
      io::read_at(descriptor.get(), &good, 1, place);
      const char bad = static_cast<char>(good ^ 0x10);
      io::write_at(descriptor.get(), &bad, 1, place);
      BOOST_CHECK_EXCEPTION(CheckpointReader(path).verify(), CheckpointError,
                            says({path.string(), file.filename().string(), "checksum of /" + name}));
      io::write_at(descriptor.get(), &good, 1, place);
      ++blocks;
    }
  }
  BOOST_TEST(blocks > 20u);
  BOOST_CHECK_NO_THROW(CheckpointReader(path).verify());
}

// All of what h5py may read lies somewhere in these bytes.
BOOST_AUTO_TEST_CASE(a_flipped_bit_anywhere_in_a_file_is_found) {
  const auto passes = [&] {
    try {
      const CheckpointReader reader(path);
      reader.verify();
      return reader.verify_headers().empty();
    } catch (const CheckpointError&) {
      return false;
    }
  };
  BOOST_REQUIRE(passes());
  for (const char* name : {"checkpoint.h5", "rank_00001.h5"}) {
    const std::string good = test::read_bytes(path / name);
    const auto descriptor = io::open_descriptor(path / name, io::OpenMode::read_write);
    for (std::size_t place = 0; place < good.size(); place += 7) {
      const char bad = static_cast<char>(good[place] ^ (1 << place % 8));
      io::write_at(descriptor.get(), &bad, 1, static_cast<std::int64_t>(place));
      BOOST_TEST(!passes(), name << " byte " << place);
      io::write_at(descriptor.get(), &good[place], 1, static_cast<std::int64_t>(place));
    }
  }
  BOOST_TEST(passes());
}

BOOST_AUTO_TEST_CASE(a_rank_file_overwritten_in_its_size) {
  const fs::path file = path / "rank_00000.h5";
  test::write_bytes(file, std::string(fs::file_size(file), '\0'));
  const CheckpointReader reader(path);
  BOOST_CHECK_EXCEPTION(reader.verify(), CheckpointError, says({"rank_00000.h5", "not an HDF5 file"}));
  // Reading does not depend on verify() having been called.
  BOOST_CHECK_EXCEPTION(test::holds_sample(reader), CheckpointError, says({"rank_00000.h5", "/model/"}));
}

BOOST_AUTO_TEST_CASE(rank_files_exchanged) {
  fs::rename(path / "rank_00000.h5", path / "x");
  fs::rename(path / "rank_00001.h5", path / "rank_00000.h5");
  fs::rename(path / "x", path / "rank_00001.h5");
  BOOST_CHECK_EXCEPTION(CheckpointReader(path).verify(), CheckpointError, says({path.string(), "rank_0000"}));
}

BOOST_AUTO_TEST_CASE(another_model) {
  const CheckpointReader reader(path);
  float value = 0;
  BOOST_CHECK_EXCEPTION(reader.read("/model/nothing", {0, 1, 0, 1}, &value, DType::fp32), CheckpointError,
                        says({"/model/nothing", "another model"}));
  BOOST_CHECK_EXCEPTION(reader.read("/model/model.norm.weight", {50, 51, 0, 1}, &value, DType::fp32),
                        CheckpointError, says({"/model/model.norm.weight", "[0:50, 0:1]", "[50:51, 0:1]"}));
  BOOST_TEST(reader.find("/model/nothing") == nullptr);
}

BOOST_AUTO_TEST_CASE(changed_data_between_write_and_finish_is_found_by_reading_back) {
  const fs::path temporary = begin_checkpoint(folder / "step_00000200");
  const std::vector<float> data(1000, 1.5f);
  RankFileWriter writer(temporary, 0);
  writer.write({"/model/a", DType::fp32, {1000}, {{0, 1000, 0, 1}}, data.data()});
  // A disk that returns other bytes than it was given.
  const std::string pattern(reinterpret_cast<const char*>(data.data()), 64);
  const fs::path file = temporary / "rank_00000.h5";
  const std::string bytes = test::read_bytes(file);
  const auto place = bytes.find(pattern);
  BOOST_REQUIRE(place != std::string::npos);
  const auto descriptor = io::open_descriptor(file, io::OpenMode::read_write);
  io::write_at(descriptor.get(), "x", 1, static_cast<std::int64_t>(place) + 100);
  BOOST_CHECK_EXCEPTION(writer.finish(), CheckpointWriteError,
                        says({"rank_00000.h5", "/model/a[0:1000]", "other data"}));
}

BOOST_AUTO_TEST_SUITE_END()
