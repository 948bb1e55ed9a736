#include <fmt/format.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.hpp"
#include "io/posix/partial_file.hpp"
#include "io/posix/posix_file.hpp"
#include "io/safetensors/safetensors.hpp"

namespace llama3d {

using namespace io;

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

[[noreturn]] void fail(const fs::path& path, const std::string& reason) {
  throw DataError(
      fmt::format("safetensors file {} cannot be written ({}); make room or choose another `output`",
                  path.string(), reason));
}

}  // namespace

struct SafetensorsWriter::State {
  struct Place {
    std::int64_t begin, bytes, element;
    std::int64_t written = 0;  ///< bytes
  };
  fs::path path;
  std::optional<PartialFile> partial;
  std::map<std::string, Place> places;
  std::int64_t data_begin = 0, data_bytes = 0;
};

SafetensorsWriter::SafetensorsWriter(const fs::path& path, const std::vector<SafetensorsEntry>& entries)
    : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.path = path;
  Json header = {{"__metadata__", {{"format", "pt"}}}};  // what Hugging Face's loaders look for
  for (const SafetensorsEntry& entry : entries) {
    LLAMA3D_EXPECT(entry.dtype == DType::fp32 || entry.dtype == DType::bf16, "{} is {}", entry.name,
                   name_of(entry.dtype));
    const auto element = static_cast<std::int64_t>(size_of(entry.dtype));
    std::int64_t bytes = element;
    for (const std::int64_t size : entry.shape) bytes *= size;
    LLAMA3D_EXPECT(s.places.emplace(entry.name, State::Place{s.data_bytes, bytes, element}).second,
                   "{} twice in {}", entry.name, path.string());
    header[entry.name] = {{"dtype", entry.dtype == DType::fp32 ? "F32" : "BF16"},
                          {"shape", entry.shape},
                          {"data_offsets", {s.data_bytes, s.data_bytes + bytes}}};
    s.data_bytes += bytes;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // data aligned to 8 bytes
  const std::uint64_t size = text.size();
  s.data_begin = static_cast<std::int64_t>(8 + size);
  try {
    s.partial.emplace(path);
    write_at(s.partial->descriptor(), &size, 8, 0);
    write_at(s.partial->descriptor(), text.data(), text.size(), 8);
  } catch (const IoError& error) {
    fail(path, error.what());
  }
}

SafetensorsWriter::~SafetensorsWriter() = default;

void SafetensorsWriter::write(const std::string& name, const void* data) {
  const auto found = state_->places.find(name);
  LLAMA3D_EXPECT(found != state_->places.end(), "{} is not announced for {}", name, state_->path.string());
  write(name, data, 0, found->second.bytes / found->second.element);
}

void SafetensorsWriter::write(const std::string& name, const void* data, std::int64_t first,
                              std::int64_t count) {
  State& s = *state_;
  const auto found = s.places.find(name);
  LLAMA3D_EXPECT(found != s.places.end(), "{} is not announced for {}", name, s.path.string());
  State::Place& place = found->second;
  const std::int64_t begin = first * place.element, bytes = count * place.element;
  LLAMA3D_EXPECT(first >= 0 && count >= 0 && begin + bytes <= place.bytes, "elements {} to {} of {}", first,
                 first + count, name);
  try {
    write_at(s.partial->descriptor(), data, static_cast<std::size_t>(bytes),
             s.data_begin + place.begin + begin);
  } catch (const IoError& error) {
    fail(s.path, error.what());
  }
  place.written += bytes;
}

void SafetensorsWriter::finish() {
  State& s = *state_;
  for (const auto& [name, place] : s.places) {
    LLAMA3D_EXPECT(place.written == place.bytes, "{} was not written to {}", name, s.path.string());
  }
  try {
    s.partial->commit();
  } catch (const IoError& error) {
    fail(s.path, error.what());
  }
}

std::int64_t SafetensorsWriter::data_bytes() const {
  return state_->data_bytes;
}

void write_safetensors_index(const fs::path& folder, const std::map<std::string, std::string>& shard_of,
                             std::int64_t total_bytes) {
  const fs::path path = folder / "model.safetensors.index.json";
  const std::string text =
      Json{{"metadata", {{"total_size", total_bytes}}}, {"weight_map", shard_of}}.dump(2) + "\n";
  try {
    PartialFile partial(path);
    write_at(partial.descriptor(), text.data(), text.size(), 0);
    partial.commit();
  } catch (const IoError& error) {
    fail(path, error.what());
  }
}

}  // namespace llama3d
