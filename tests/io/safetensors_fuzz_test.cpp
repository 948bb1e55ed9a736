// Safetensors headers and files damaged at random, the same way in every run: whatever they become, they are
// read within their bounds or refused by an error that says so.
#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <cstring>

#include "base/error.hpp"
#include "io/damage.hpp"
#include "io/posix/posix_file.hpp"
#include "io/safetensors/safetensors_header.hpp"
#include "support/mutator.hpp"
#include "support/temporary_folder.hpp"

using namespace llama3d;
namespace fs = std::filesystem;

namespace {

using test::Mutator;

constexpr std::int64_t data_bytes = 60;
const std::string header =
    R"({"__metadata__":{"format":"pt"},"model.embed_tokens.weight":{"dtype":"BF16","shape":[3,4],)"
    R"("data_offsets":[0,24]},"b":{"dtype":"F32","shape":[2,3],"data_offsets":[24,48]},"c":{"dtype":"F16",)"
    R"("shape":[6],"data_offsets":[48,60]},"none":{"dtype":"F32","shape":[0],"data_offsets":[60,60]}})";

std::string file_of(const std::string& json) {
  std::string size(8, '\0');
  const std::uint64_t length = json.size();
  std::memcpy(size.data(), &length, 8);
  return size + json + std::string(data_bytes, 'x');
}

/// Whether the places fill the data, each once: what parse_safetensors_header promises.
bool cover(std::vector<io::SafetensorsPlace> places) {
  std::sort(places.begin(), places.end(), [](const auto& a, const auto& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  std::int64_t end = 0;
  for (const auto& place : places) {
    if (place.begin > place.end || place.begin != end) return false;
    end = place.end;
  }
  return end == data_bytes;
}

/// Everything in a file that is taken as good, converted. Returns whether it was.
bool read_all(const fs::path& path) {
  try {
    const SafetensorsReader reader(path);
    for (const SafetensorsTensor& tensor : reader.tensors()) {
      if (tensor.shape.empty() || tensor.shape.size() > 2) continue;
      std::vector<float> out(static_cast<std::size_t>(tensor.elements()));
      try {
        reader.read(tensor.name, whole(tensor.shape), out.data(), DType::fp32);
      } catch (const DataError&) {
        // A type that is listed, but not one of weights.
      }
    }
    return true;
  } catch (const DataError& error) {
    BOOST_REQUIRE_EQUAL(std::string(error.what()).find('\n'), std::string::npos);
    return false;
  }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(safetensors_fuzz)

BOOST_AUTO_TEST_CASE(damaged_headers_are_read_within_bounds_or_refused) {
  BOOST_REQUIRE(cover(io::parse_safetensors_header(header, data_bytes)));
  Mutator mutator(1);
  int read = 0, refused = 0;
  for (int i = 0; i < 20000; ++i) {
    const std::string json = mutator.mutated(header);
    BOOST_TEST_CONTEXT(i << ": " << json) {
      try {
        BOOST_REQUIRE(cover(io::parse_safetensors_header(json, data_bytes)));
        ++read;
      } catch (const io::IoError&) {
        ++refused;
      }
    }
  }
  // Names and metadata may change, so that some damage does no harm; but not much of it.
  BOOST_TEST_MESSAGE(read << " read, " << refused << " refused");
  BOOST_TEST(read > 200);
  BOOST_TEST(refused > 15000);
}

BOOST_AUTO_TEST_CASE(damaged_files_are_read_within_bounds_or_refused) {
  const test::TemporaryFolder folder;
  const fs::path path = folder / "model.safetensors";
  test::write_bytes(path, file_of(header));
  BOOST_REQUIRE(read_all(path));
  Mutator mutator(2);
  int read = 0, refused = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string bytes = file_of(header);
    if (mutator.below(2) == 0) {
      bytes = mutator.mutated(bytes);
    } else {
      bytes = file_of(mutator.mutated(header));
      if (mutator.below(4) == 0) bytes.resize(mutator.below(bytes.size()));
    }
    test::write_bytes(path, bytes);
    BOOST_TEST_CONTEXT(i << ": " << bytes) {
      ++(read_all(path) ? read : refused);
    }
  }
  BOOST_TEST_MESSAGE(read << " read, " << refused << " refused");
  BOOST_TEST(read > 50);
  BOOST_TEST(refused > 2000);
}

BOOST_AUTO_TEST_CASE(damaged_indices_are_read_or_refused) {
  const test::TemporaryFolder folder;
  test::write_bytes(folder / "1.safetensors", file_of(header));
  const std::string index =
      R"({"metadata":{"total_size":60},"weight_map":{"model.embed_tokens.weight":"1.safetensors",)"
      R"("b":"1.safetensors","c":"1.safetensors","none":"1.safetensors"}})";
  const fs::path path = folder / "model.safetensors.index.json";
  test::write_bytes(path, index);
  BOOST_REQUIRE(read_all(folder.path()));
  Mutator mutator(3);
  int read = 0;
  for (int i = 0; i < 2000; ++i) {
    const std::string bytes = mutator.mutated(index);
    test::write_bytes(path, bytes);
    BOOST_TEST_CONTEXT(i << ": " << bytes) {
      read += read_all(folder.path()) ? 1 : 0;
    }
  }
  BOOST_TEST(read > 20);
  BOOST_TEST(read < 1000);
}

BOOST_AUTO_TEST_SUITE_END()
