#include "io/safetensors.hpp"

#include <boost/test/unit_test.hpp>
#include <cstring>
#include <numeric>

#include "base/error.hpp"
#include "io/damage.hpp"
#include "support/error_message.hpp"
#include "support/temporary_folder.hpp"

using namespace llama3d;
using test::says;
namespace fs = std::filesystem;

namespace {

// A file with any header and data.
void write_raw(const fs::path& path, const std::string& header, const std::string& data) {
  std::string size(8, '\0');
  const std::uint64_t length = header.size();
  std::memcpy(size.data(), &length, 8);
  test::write_bytes(path, size + header + data);
}

void expect_refused(const fs::path& path, std::initializer_list<std::string> words) {
  BOOST_CHECK_EXCEPTION(SafetensorsReader reader(path), DataError, says(words));
}

}  // namespace

BOOST_AUTO_TEST_SUITE(safetensors)

BOOST_AUTO_TEST_CASE(roundtrip_in_any_order) {
  const test::TemporaryFolder folder;
  std::vector<float> a(12);
  std::iota(a.begin(), a.end(), 0.5f);
  const std::vector<bf16> b = {bf16(1.0f), bf16(-2.5f), bf16(3.0f)};
  const fs::path path = folder / "model.safetensors";
  {
    SafetensorsWriter writer(path, {{"a", DType::fp32, {3, 4}}, {"b", DType::bf16, {3}}});
    writer.write("b", b.data());
    BOOST_CHECK_EXCEPTION(writer.finish(), ContractViolation, says({"a was not written"}));
    writer.write("a", a.data());
    BOOST_TEST(writer.data_bytes() == 54);
    BOOST_TEST(!fs::exists(path));
    writer.finish();
  }
  const SafetensorsReader reader(path);
  BOOST_TEST(reader.tensors().size() == 2u);
  BOOST_TEST(reader.find("a")->dtype == "F32");
  BOOST_CHECK((reader.find("b")->shape == std::vector<std::int64_t>{3}));
  BOOST_TEST(reader.find("c") == nullptr);
  std::vector<float> all(12), part(4), narrow(3);
  reader.read("a", {0, 3, 0, 4}, all.data(), DType::fp32);
  BOOST_CHECK(all == a);
  reader.read("a", {1, 3, 2, 4}, part.data(), DType::fp32);
  BOOST_CHECK((part == std::vector<float>{6.5f, 7.5f, 10.5f, 11.5f}));
  reader.read("b", {0, 3, 0, 1}, narrow.data(), DType::fp32);
  BOOST_CHECK((narrow == std::vector<float>{1.0f, -2.5f, 3.0f}));
  BOOST_CHECK_EXCEPTION(reader.read("a", {0, 4, 0, 4}, all.data(), DType::fp32), DataError,
                        says({"tensor a", "no part"}));
  BOOST_CHECK_EXCEPTION(reader.read("c", {0, 1, 0, 1}, all.data(), DType::fp32), DataError,
                        says({"no tensor c"}));
}

BOOST_AUTO_TEST_CASE(half_precision_is_read) {
  const test::TemporaryFolder folder;
  write_raw(folder / "a.safetensors", R"({"x":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}})",
            std::string("\x00\x3c\x00\xc0", 4));
  std::vector<float> x(2);
  SafetensorsReader(folder / "a.safetensors").read("x", {0, 2, 0, 1}, x.data(), DType::fp32);
  BOOST_TEST(x[0] == 1.0f);
  BOOST_TEST(x[1] == -2.0f);
}

BOOST_AUTO_TEST_CASE(shards_with_an_index) {
  const test::TemporaryFolder folder;
  const std::vector<float> data = {1, 2};
  std::map<std::string, std::string> shard_of;
  for (const char* name : {"a", "b"}) {
    const std::string file = std::string("model-") + name + ".safetensors";
    SafetensorsWriter writer(folder / file, {{name, DType::fp32, {2}}});
    writer.write(name, data.data());
    writer.finish();
    shard_of[name] = file;
  }
  write_safetensors_index(folder.path(), shard_of, 16);
  BOOST_TEST(is_safetensors_folder(folder.path()));
  {
    const SafetensorsReader reader(folder.path());
    BOOST_TEST(reader.files() == 2);
    BOOST_TEST(reader.tensors().size() == 2u);
  }
  auto wrong = shard_of;
  wrong["c"] = shard_of["a"];
  write_safetensors_index(folder.path(), wrong, 16);
  expect_refused(folder.path(), {"model-a.safetensors", "tensor c is missing"});
  write_safetensors_index(folder.path(), shard_of, 16);
  fs::remove(folder / "model-b.safetensors");
  expect_refused(folder.path(), {"model-b.safetensors", "No such file"});
  test::write_bytes(folder / "model.safetensors.index.json", "{}");
  expect_refused(folder.path(), {"index.json", "weight_map"});
}

BOOST_AUTO_TEST_CASE(damaged_and_foreign_files_are_refused) {
  const test::TemporaryFolder folder;
  const fs::path path = folder / "a.safetensors";
  expect_refused(folder / "missing.safetensors", {"missing.safetensors", "No such file"});
  test::write_bytes(path, "");
  expect_refused(path, {"empty"});
  test::write_bytes(path, "text");
  expect_refused(path, {"too short"});
  test::write_bytes(path, "text and more text");
  expect_refused(path, {"truncated, or not a safetensors file"});
  write_raw(path, "{\"x\":", "");
  expect_refused(path, {"damaged JSON"});
  write_raw(path, "[]", "");
  expect_refused(path, {"not a JSON object"});
  const std::string x = R"("x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
  write_raw(path, "{" + x + "}", std::string(7, 'x'));
  expect_refused(path, {"tensor x", "do not fit"});
  write_raw(path, "{" + x + "}", std::string(9, 'x'));
  expect_refused(path, {"9 bytes of data, not 8"});
  write_raw(path, "{" + x + "," + x + "}", std::string(8, 'x'));
  expect_refused(path, {"tensor x is listed twice"});
  write_raw(path, "{" + x + R"(,"y":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", std::string(8, 'x'));
  expect_refused(path, {"overlap or leave gaps"});
  write_raw(path, R"({"x":{"dtype":"F3","shape":[2],"data_offsets":[0,8]}})", std::string(8, 'x'));
  expect_refused(path, {"unknown type F3"});
  write_raw(path, R"({"x":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", "");
  expect_refused(path, {"tensor x", "do not fit"});
  write_raw(path, R"({"x":{"dtype":"F32","shape":[-2,-1],"data_offsets":[0,8]}})", std::string(8, 'x'));
  expect_refused(path, {"tensor x", "do not fit"});
  write_raw(path, "{" + x + "}", std::string(8, 'x'));
  BOOST_CHECK_NO_THROW(SafetensorsReader reader(path));
}

BOOST_AUTO_TEST_SUITE_END()
