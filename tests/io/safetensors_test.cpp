#include "io/safetensors/safetensors.hpp"

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
  bf16 narrow;
  SafetensorsReader(folder / "a.safetensors").read("x", {1, 2, 0, 1}, &narrow, DType::bf16);
  BOOST_TEST(static_cast<float>(narrow) == -2.0f);
}

BOOST_AUTO_TEST_CASE(every_rectangle_is_read) {
  // Narrow and wide ones, which are read by row and by stretches of rows.
  const test::TemporaryFolder folder;
  constexpr std::int64_t rows = 5, columns = 70;
  std::vector<float> all(rows * columns);
  std::iota(all.begin(), all.end(), 0.0f);
  const fs::path path = folder / "model.safetensors";
  SafetensorsWriter writer(path, {{"a", DType::fp32, {rows, columns}}});
  writer.write("a", all.data());
  writer.finish();
  const SafetensorsReader reader(path);
  for (const Rectangle& r :
       {Rectangle{0, 5, 0, 70}, {1, 4, 0, 70}, {0, 5, 3, 4}, {2, 5, 10, 60}, {4, 5, 69, 70}}) {
    std::vector<float> part(static_cast<std::size_t>(r.elements()));
    reader.read("a", r, part.data(), DType::fp32);
    std::size_t next = 0;
    for (auto row = r.row_begin; row < r.row_end; ++row)
      for (auto column = r.column_begin; column < r.column_end; ++column)
        BOOST_REQUIRE_EQUAL(part[next++], static_cast<float>(row * columns + column));
  }
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

BOOST_AUTO_TEST_CASE(shards_and_index_that_disagree) {
  const test::TemporaryFolder folder;
  const std::vector<float> data = {1, 2};
  const auto write_shard = [&](const std::string& file, const std::vector<SafetensorsEntry>& entries) {
    SafetensorsWriter writer(folder / file, entries);
    for (const auto& entry : entries) writer.write(entry.name, data.data());
    writer.finish();
  };
  write_shard("1.safetensors", {{"a", DType::fp32, {2}}, {"b", DType::fp32, {2}}});
  write_shard("2.safetensors", {{"b", DType::fp32, {2}}});
  write_safetensors_index(folder.path(), {{"a", "1.safetensors"}}, 16);
  expect_refused(folder.path(), {"1.safetensors", "tensor b is not in the index"});
  write_safetensors_index(folder.path(), {{"a", "1.safetensors"}, {"b", "2.safetensors"}}, 16);
  expect_refused(folder.path(), {"2.safetensors", "tensor b is also in", "1.safetensors"});
  const std::string index = "model.safetensors.index.json";
  for (const char* damaged : {"[]", "{\"weight_map\":[]}", "{\"weight_map\":{\"a\":1}}",
                              "{\"weight_map\":{\"a\":\"x\",\"a\":\"x\"}}"}) {
    test::write_bytes(folder / index, damaged);
    expect_refused(folder.path(), {index});
  }
}

BOOST_AUTO_TEST_CASE(an_index_does_not_lead_out_of_the_folder) {
  const test::TemporaryFolder outside, parent;
  const fs::path folder = parent / "model";
  fs::create_directories(folder / "inner");
  const std::vector<float> data = {1, 2};
  for (const fs::path& place : {outside.path(), folder, folder / "inner"}) {
    SafetensorsWriter writer(place / "a.safetensors", {{"a", DType::fp32, {2}}});
    writer.write("a", data.data());
    writer.finish();
  }
  const auto refuse_name = [&](const std::string& name, const std::string& reason) {
    write_safetensors_index(folder, {{"a", name}}, 8);
    expect_refused(folder, {reason});
  };
  for (const std::string& name : {(outside / "a.safetensors").string(), std::string("../a.safetensors"),
                                  std::string("inner/a.safetensors"), std::string(".."), std::string("."),
                                  std::string(), std::string("a.safetensors\0b", 15)})
    refuse_name(name, "no name of a file in the folder");
  refuse_name("inner", "no regular file");
  fs::create_symlink(outside / "a.safetensors", folder / "link.safetensors");
  refuse_name("link.safetensors", "outside the folder");
  fs::create_symlink("nowhere", folder / "broken.safetensors");
  refuse_name("broken.safetensors", "broken.safetensors");
  // A link that stays inside is as good as the file, and so is the folder by another name.
  fs::create_symlink("a.safetensors", folder / "own.safetensors");
  write_safetensors_index(folder, {{"a", "own.safetensors"}}, 8);
  BOOST_CHECK_NO_THROW(SafetensorsReader reader(folder));
  fs::create_directory_symlink(folder, outside / "other");
  BOOST_CHECK_NO_THROW(SafetensorsReader reader(outside / "other"));
}

BOOST_AUTO_TEST_CASE(a_snapshot_of_the_hub_cache_is_read) {
  const test::TemporaryFolder cache;
  const fs::path repository = cache / "models--x--y", snapshot = repository / "snapshots" / "0123";
  fs::create_directories(snapshot);
  fs::create_directories(repository / "blobs");
  const std::vector<float> data = {1, 2};
  SafetensorsWriter writer(repository / "blobs" / "abcd", {{"a", DType::fp32, {2}}});
  writer.write("a", data.data());
  writer.finish();
  fs::create_symlink("../../blobs/abcd", snapshot / "model.safetensors");
  BOOST_CHECK_NO_THROW(SafetensorsReader reader(snapshot));
  fs::rename(repository / "blobs", repository / "elsewhere");
  fs::remove(snapshot / "model.safetensors");
  fs::create_symlink("../../elsewhere/abcd", snapshot / "model.safetensors");
  expect_refused(snapshot, {"model.safetensors", "outside the folder"});
}

BOOST_AUTO_TEST_CASE(tensors_are_written_in_parts) {
  const test::TemporaryFolder folder;
  const fs::path path = folder / "model.safetensors";
  const std::vector<float> a = {1, 2, 3, 4, 5, 6};
  SafetensorsWriter writer(path, {{"a", DType::fp32, {3, 2}}});
  writer.write("a", a.data() + 2, 2, 4);
  BOOST_CHECK_EXCEPTION(writer.finish(), ContractViolation, says({"a was not written"}));
  BOOST_CHECK_EXCEPTION(writer.write("a", a.data(), 4, 3), ContractViolation, says({"elements 4 to 7"}));
  writer.write("a", a.data(), 0, 2);
  writer.finish();
  std::vector<float> back(6);
  SafetensorsReader(path).read("a", {0, 3, 0, 2}, back.data(), DType::fp32);
  BOOST_CHECK(back == a);
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
  expect_refused(path, {"no valid JSON"});
  write_raw(path, "[]", "");
  expect_refused(path, {"JSON array, not an object"});
  for (const std::uint64_t size : {std::uint64_t{100'000'001}, ~std::uint64_t{0}, std::uint64_t{1} << 63}) {
    std::string bytes(16, 'x');
    std::memcpy(bytes.data(), &size, 8);
    test::write_bytes(path, bytes);
    expect_refused(path, {"header would have " + std::to_string(size)});
  }
  const std::string x = R"("x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
  write_raw(path, "{" + x + "}", std::string(7, 'x'));
  expect_refused(path, {"tensor x", "do not fit"});
  write_raw(path, "{" + x + "}", std::string(9, 'x'));
  expect_refused(path, {"9 bytes of data, not 8"});
  write_raw(path, "{" + x + "," + x + "}", std::string(8, 'x'));
  expect_refused(path, {"x is listed twice"});
  write_raw(path, "{" + x + R"(,"y":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", std::string(8, 'x'));
  expect_refused(path, {"overlap or leave gaps"});
  write_raw(path, R"({"x":{"dtype":"F3","shape":[2],"data_offsets":[0,8]}})", std::string(8, 'x'));
  expect_refused(path, {"unknown type F3"});
  write_raw(path, R"({"x":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", "");
  expect_refused(path, {"tensor x", "do not fit"});
  for (const char* size :
       {"-2", "2.0", "true", "null", "\"2\"", "[2]", "1e300", "9223372036854775808", "1e999"}) {
    const std::string json = size;
    write_raw(path, R"({"x":{"dtype":"F32","shape":[)" + json + R"(],"data_offsets":[0,8]}})",
              std::string(8, 'x'));
    expect_refused(path, {json == "1e999" ? "no valid JSON" : "shape of tensor x"});
    write_raw(path, R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,)" + json + "]}}",
              std::string(8, 'x'));
    expect_refused(path, {json == "1e999" ? "no valid JSON" : "data_offsets of tensor x"});
  }
  for (const char* offsets :
       {"[8,0]", "[0]", "[0,8,16]", "[0,9]", "[9223372036854775800,9223372036854775807]"}) {
    write_raw(path, std::string(R"({"x":{"dtype":"F32","shape":[2],"data_offsets":)") + offsets + "}}",
              std::string(8, 'x'));
    expect_refused(path, {"tensor x", "do not fit"});
  }
  for (const char* json : {"3", "[]", "{}", R"({"dtype":"F32"})", R"({"dtype":"F32","shape":[2]})",
                           R"({"dtype":1,"shape":[2],"data_offsets":[0,8]})"}) {
    write_raw(path, std::string(R"({"x":)") + json + "}", std::string(8, 'x'));
    expect_refused(path, {"tensor x"});
  }
  write_raw(path, R"({"x":{"dtype":"F32","dtype":"F16","shape":[2],"data_offsets":[0,8]}})",
            std::string(8, 'x'));
  expect_refused(path, {"dtype is listed twice"});
  const std::string deep(100'000, '[');
  write_raw(path, R"({"__metadata__":)" + deep, "");
  expect_refused(path, {"nested more than 64 deep"});
  write_raw(path, "{\"a\\nb\\u001b[31m\":{}}", "");
  expect_refused(path, {"tensor a\\nb\\u001b[31m has no"});
  write_raw(path, "{" + x + "}", std::string(8, 'x'));
  BOOST_CHECK_NO_THROW(SafetensorsReader reader(path));
}

BOOST_AUTO_TEST_SUITE_END()
