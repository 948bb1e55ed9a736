#include "io/tokens/token_file.hpp"

#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <random>

#include "base/error.hpp"
#include "io/damage.hpp"
#include "io/hdf5/hdf5.hpp"
#include "support/error_message.hpp"
#include "support/temporary_folder.hpp"

using namespace llama3d;
using llama3d::test::says;

namespace {

struct Sample {
  std::vector<std::uint32_t> tokens;
  std::vector<std::uint8_t> mask;
  std::vector<std::uint64_t> documents;
};

// Documents of 0 to `longest` tokens; more than a chunk together when longest * documents / 2 > 65,536.
Sample write_sample(const std::filesystem::path& path, int documents, unsigned longest, bool with_mask) {
  std::mt19937 random(7);
  Sample sample;
  TokenFileWriter writer(path, {"bytes", 259, "a test", with_mask});
  for (int d = 0; d < documents; ++d) {
    std::vector<std::uint32_t> tokens(random() % (longest + 1));
    std::vector<std::uint8_t> mask(with_mask ? tokens.size() : 0);
    for (auto& token : tokens) token = random() % 259;
    for (auto& value : mask) value = random() % 2;
    sample.documents.push_back(sample.tokens.size());
    sample.tokens.insert(sample.tokens.end(), tokens.begin(), tokens.end());
    sample.mask.insert(sample.mask.end(), mask.begin(), mask.end());
    writer.append_document(tokens, mask);
  }
  sample.documents.push_back(sample.tokens.size());
  BOOST_TEST(writer.documents() == documents);
  writer.finish();
  return sample;
}

void expect_refused(const std::filesystem::path& path, std::initializer_list<std::string> words) {
  BOOST_CHECK_EXCEPTION(TokenFileReader reader(path), DataError, says(words));
  BOOST_CHECK_EXCEPTION(TokenFileReader reader(path), DataError, says({path.string()}));
}

}  // namespace

BOOST_AUTO_TEST_SUITE(token_file)

BOOST_AUTO_TEST_CASE(roundtrip_over_several_chunks) {
  const test::TemporaryFolder folder;
  const Sample sample = write_sample(folder / "a.h5", 300, 2000, true);
  BOOST_TEST(sample.tokens.size() > 3u * 65536u);
  const TokenFileReader reader(folder / "a.h5");
  BOOST_TEST(reader.info().tokenizer == "bytes");
  BOOST_TEST(reader.info().vocabulary_size == 259);
  BOOST_TEST(reader.info().created_by == "a test");
  BOOST_TEST(reader.info().has_loss_mask);
  BOOST_TEST(reader.info().largest_token ==
             static_cast<std::int64_t>(*std::max_element(sample.tokens.begin(), sample.tokens.end())));
  BOOST_TEST(reader.tokens() == std::ssize(sample.tokens));
  BOOST_TEST(reader.documents() == sample.documents, boost::test_tools::per_element());
  std::vector<std::uint32_t> tokens(sample.tokens.size());
  reader.read(0, tokens);
  BOOST_CHECK(tokens == sample.tokens);
  std::vector<std::uint8_t> mask(5000);
  reader.read_loss_mask(63000, mask);
  BOOST_CHECK(std::equal(mask.begin(), mask.end(), sample.mask.begin() + 63000));
  std::vector<std::uint32_t> part(70000);
  reader.read(1234, part);
  BOOST_CHECK(std::equal(part.begin(), part.end(), sample.tokens.begin() + 1234));
  BOOST_CHECK(!std::equal(part.begin(), part.end(), sample.tokens.begin() + 1235));
}

BOOST_AUTO_TEST_CASE(without_mask_every_token_is_a_target) {
  const test::TemporaryFolder folder;
  const Sample sample = write_sample(folder / "a.h5", 3, 50, false);
  const TokenFileReader reader(folder / "a.h5");
  std::vector<std::uint8_t> mask(sample.tokens.size());
  reader.read_loss_mask(0, mask);
  BOOST_CHECK(mask == std::vector<std::uint8_t>(mask.size(), 1));
  BOOST_CHECK_THROW(reader.read_loss_mask(1, mask), ContractViolation);
}

BOOST_AUTO_TEST_CASE(an_empty_file_is_a_file) {
  const test::TemporaryFolder folder;
  write_sample(folder / "a.h5", 0, 0, false);
  const TokenFileReader reader(folder / "a.h5");
  BOOST_TEST(reader.tokens() == 0);
  BOOST_TEST(reader.info().id_bound() == 259);
  BOOST_TEST(reader.documents().size() == 1u);
}

BOOST_AUTO_TEST_CASE(the_largest_token_may_be_missing_but_not_wrong) {
  const test::TemporaryFolder folder;
  TokenFileWriter writer(folder / "a.h5", {"bytes", 259, "a test", false});
  for (const std::uint32_t token : {3u, 77u, 5u}) writer.append_document({&token, 1});
  writer.finish();
  BOOST_TEST(TokenFileReader(folder / "a.h5").info().id_bound() == 78);
  io::write_attribute(io::open_file(folder / "a.h5", true).get(), "largest_token", std::int64_t{259});
  expect_refused(folder / "a.h5", {"largest token is 259"});
  BOOST_REQUIRE(H5Adelete(io::open_file(folder / "a.h5", true).get(), "largest_token") >= 0);
  BOOST_TEST(TokenFileReader(folder / "a.h5").info().id_bound() == 259);
}

BOOST_AUTO_TEST_CASE(the_name_appears_only_when_finished) {
  const test::TemporaryFolder folder;
  {
    TokenFileWriter writer(folder / "a.h5", {"bytes", 259, "a test", false});
    writer.append_document(std::vector<std::uint32_t>{1, 2, 3});
    BOOST_TEST(!std::filesystem::exists(folder / "a.h5"));
    BOOST_TEST(!std::filesystem::is_empty(folder.path()));
  }
  BOOST_TEST(std::filesystem::is_empty(folder.path()));
}

BOOST_AUTO_TEST_CASE(two_writers_of_one_path_leave_a_whole_file) {
  const test::TemporaryFolder folder;
  const std::vector<std::uint32_t> first(100'000, 1), second(150'000, 2);
  {
    TokenFileWriter one(folder / "a.h5", {"bytes", 259, "a test", false});
    one.append_document(first);
    TokenFileWriter other(folder / "a.h5", {"bytes", 259, "a test", false});
    TokenFileWriter unfinished(folder / "a.h5", {"bytes", 259, "a test", false});
    other.append_document(second);
    one.append_document(first);
    for (auto* writer : {&other, &one}) writer->finish();
  }
  const TokenFileReader reader(folder / "a.h5");
  std::vector<std::uint32_t> tokens(200'000);
  BOOST_REQUIRE(reader.tokens() == 200'000);
  reader.read(0, tokens);
  BOOST_CHECK(tokens == std::vector<std::uint32_t>(200'000, 1));
  const std::filesystem::directory_iterator all(folder.path());
  BOOST_TEST(std::distance(begin(all), end(all)) == 1);
}

BOOST_AUTO_TEST_CASE(a_folder_is_no_output) {
  const test::TemporaryFolder folder;
  std::filesystem::create_directory(folder / "a.h5");
  BOOST_CHECK_EXCEPTION(TokenFileWriter(folder / "a.h5", {"bytes", 259, "a test", false}), DataError,
                        says({"a.h5", "folder"}));
}

BOOST_AUTO_TEST_CASE(a_token_outside_the_vocabulary_is_refused) {
  const test::TemporaryFolder folder;
  TokenFileWriter writer(folder / "a.h5", {"bytes", 259, "a test", false});
  BOOST_CHECK_EXCEPTION(writer.append_document(std::vector<std::uint32_t>{1, 259}), DataError,
                        says({"token 259", "vocabulary has 259"}));
}

BOOST_AUTO_TEST_CASE(foreign_and_damaged_files_are_refused_with_the_reason) {
  const test::TemporaryFolder folder;
  expect_refused(folder / "missing.h5", {"No such file"});
  test::write_bytes(folder / "empty.h5", "");
  expect_refused(folder / "empty.h5", {"empty"});
  test::write_bytes(folder / "text.h5", "once upon a time");
  expect_refused(folder / "text.h5", {"not an HDF5 file"});
  expect_refused(folder.path(), {"not a regular file"});
  { const auto foreign = io::create_file(folder / "foreign.h5"); }
  expect_refused(folder / "foreign.h5", {"no token file"});

  write_sample(folder / "short.h5", 20, 50, true);
  test::truncate_by(folder / "short.h5", 100);
  expect_refused(folder / "short.h5", {"truncated"});

  write_sample(folder / "mask.h5", 20, 50, true);
  {
    const auto file = io::open_file(folder / "mask.h5", true);
    BOOST_REQUIRE(H5Ldelete(file.get(), "tokens", H5P_DEFAULT) >= 0);
  }
  expect_refused(folder / "mask.h5", {"/tokens is missing"});

  write_sample(folder / "version.h5", 20, 50, true);
  io::write_attribute(io::open_file(folder / "version.h5", true).get(), "version", std::int64_t{99});
  expect_refused(folder / "version.h5", {"version is 99"});
}

BOOST_AUTO_TEST_CASE(documents_must_fit_the_tokens) {
  const test::TemporaryFolder folder;
  write_sample(folder / "a.h5", 20, 50, false);
  {
    const auto file = io::open_file(folder / "a.h5", true);
    const auto dataset = io::open_dataset(file.get(), "documents");
    const std::uint64_t wrong = 100000;
    io::write_range(dataset.get(), H5T_NATIVE_UINT64, 3, 1, &wrong);
  }
  expect_refused(folder / "a.h5", {"not ascending"});
  {
    const auto file = io::open_file(folder / "a.h5", true);
    const auto dataset = io::open_dataset(file.get(), "documents");
    const hsize_t fewer = 5;
    BOOST_REQUIRE(H5Dset_extent(dataset.get(), &fewer) >= 0);
  }
  expect_refused(folder / "a.h5", {"/documents runs from 0"});
}

BOOST_AUTO_TEST_CASE(a_flipped_bit_is_found_on_reading) {
  const test::TemporaryFolder folder;
  {
    TokenFileWriter writer(folder / "a.h5", {"bytes", 259, "a test", false});
    writer.append_document(std::vector<std::uint32_t>(1000, 0x41));
    writer.finish();
  }
  test::flip_bit(folder / "a.h5", std::string("A\0\0\0A\0\0\0A", 9), 4);
  const TokenFileReader reader(folder / "a.h5");
  std::vector<std::uint32_t> tokens(10);
  BOOST_CHECK_EXCEPTION(reader.read(500, tokens), DataError, says({"damaged", "a.h5"}));
}

BOOST_AUTO_TEST_CASE(a_token_beyond_the_vocabulary_in_the_file_is_found) {
  const test::TemporaryFolder folder;
  write_sample(folder / "a.h5", 3, 50, false);
  {
    const auto file = io::open_file(folder / "a.h5", true);
    const auto dataset = io::open_dataset(file.get(), "tokens");
    const std::uint32_t wrong = 1000;
    io::write_range(dataset.get(), H5T_NATIVE_UINT32, 2, 1, &wrong);
  }
  const TokenFileReader reader(folder / "a.h5");
  std::vector<std::uint32_t> tokens(5);
  BOOST_CHECK_EXCEPTION(reader.read(0, tokens), DataError, says({"token 2 is 1000", "vocabulary has 259"}));
}

BOOST_AUTO_TEST_SUITE_END()
