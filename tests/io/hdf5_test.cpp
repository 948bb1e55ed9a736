#include "io/hdf5/hdf5.hpp"

#include <sys/file.h>

#include <boost/test/unit_test.hpp>
#include <limits>
#include <vector>

#include "support/error_message.hpp"
#include "support/temporary_folder.hpp"

using namespace llama3d;
using namespace llama3d::io;
using llama3d::test::says;

BOOST_AUTO_TEST_SUITE(hdf5)

BOOST_AUTO_TEST_CASE(a_failed_call_gives_the_innermost_reason) {
  const test::TemporaryFolder folder;
  BOOST_CHECK_EXCEPTION(create_file(folder / "no/such/folder.h5"), Hdf5Error,
                        says({"create the file", "No such file or directory"}));
  BOOST_CHECK_EXCEPTION(open_file(folder / "missing.h5"), IoError, says({"No such file"}));
  const Hdf5File file = create_file(folder / "a.h5");
  BOOST_CHECK_EXCEPTION(open_dataset(file.get(), "nothing"), Hdf5Error,
                        says({"open dataset nothing", "nothing"}));
}

BOOST_AUTO_TEST_CASE(bf16_converts_exactly_to_floats) {
  const test::TemporaryFolder folder;
  const std::vector<bf16> values = {bf16(3.140625f), bf16(-0.0f), bf16(1e-39f), bf16(3e38f),
                                    bf16(std::numeric_limits<float>::infinity())};
  Hdf5File file = create_file(folder / "a.h5");
  const auto type = element_type(DType::bf16);
  const auto space = make_space({values.size()});
  {
    const auto dataset = own_hdf5<Hdf5Dataset>(
        H5Dcreate2(file.get(), "x", type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
        "create");
    write_range(dataset.get(), type.get(), 0, values.size(), values.data());
  }
  close_file(file);
  file = open_file(folder / "a.h5");
  const auto dataset = open_dataset(file.get(), "x");
  BOOST_CHECK(dtype_of_dataset(dataset.get()) == DType::bf16);
  std::vector<float> floats(values.size());
  read_range(dataset.get(), H5T_NATIVE_FLOAT, 0, values.size(), floats.data());
  for (std::size_t i = 0; i < values.size(); ++i) BOOST_TEST(floats[i] == static_cast<float>(values[i]));
}

BOOST_AUTO_TEST_CASE(attributes_come_back) {
  const test::TemporaryFolder folder;
  const Hdf5File file = create_file(folder / "a.h5");
  write_attribute(file.get(), "text", std::string("gr\xc3\xbc\xc3\x9f"));
  write_attribute(file.get(), "empty", std::string());
  write_attribute(file.get(), "number", std::int64_t{-5});
  write_attribute(file.get(), "number", std::int64_t{7});
  write_attribute(file.get(), "real", 0.25);
  BOOST_TEST(read_string_attribute(file.get(), "text") == "gr\xc3\xbc\xc3\x9f");
  BOOST_TEST(read_string_attribute(file.get(), "empty").empty());
  BOOST_TEST(read_integer_attribute(file.get(), "number") == 7);
  BOOST_CHECK_EXCEPTION(read_integer_attribute(file.get(), "text"), Hdf5Error,
                        says({"text", "not an integer"}));
  BOOST_CHECK_EXCEPTION(read_string_attribute(file.get(), "none"), Hdf5Error, says({"none", "missing"}));
  const auto all = attributes_as_text(file.get());
  BOOST_TEST(all.size() == 4u);
  BOOST_TEST(all.at(2).second == "0.25");
}

BOOST_AUTO_TEST_CASE(a_reader_with_a_lock_does_not_stop_a_writer) {
  const test::TemporaryFolder folder;
  Hdf5File first = create_file(folder / "a.h5");
  close_file(first);
  // As other programs lock a file that they read.
  const FileDescriptor reader = open_descriptor(folder / "a.h5", OpenMode::read);
  BOOST_REQUIRE(::flock(reader.get(), LOCK_SH | LOCK_NB) == 0);
  const FileDescriptor other = open_descriptor(folder / "a.h5", OpenMode::read_write);
  BOOST_REQUIRE(::flock(other.get(), LOCK_EX | LOCK_NB) != 0);
  BOOST_CHECK(open_file(folder / "a.h5", true));
}

BOOST_AUTO_TEST_SUITE_END()
