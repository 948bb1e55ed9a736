#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.hpp"
#include "base/json.hpp"
#include "base/model_folder.hpp"
#include "base/printable.hpp"
#include "io/checkpoint/stored_block.hpp"
#include "io/posix/posix_file.hpp"
#include "io/safetensors/safetensors_header.hpp"

namespace llama3d {

using namespace io;

namespace {

namespace fs = std::filesystem;

constexpr const char* single_file = "model.safetensors";
constexpr const char* index_file = "model.safetensors.index.json";
constexpr std::int64_t largest_header = 100'000'000;  // the format's own limit
constexpr std::size_t most_open_files = 64;

struct Shard {
  fs::path path;
  std::int64_t bytes = 0, data_begin = 0;
};

std::vector<SafetensorsPlace> read_header(Shard& shard) {
  shard.bytes = size_of_file(shard.path);
  std::uint64_t header_size = 0;
  if (shard.bytes == 0) throw IoError("the file is empty");
  if (shard.bytes < 8) throw IoError("too short to be a safetensors file");
  const FileDescriptor descriptor = open_descriptor(shard.path, OpenMode::read);
  read_at(descriptor.get(), &header_size, sizeof header_size, 0);
  if (header_size > std::uint64_t{largest_header} ||
      header_size > static_cast<std::uint64_t>(shard.bytes - 8))
    throw IoError(
        fmt::format("its header would have {} bytes: truncated, or not a safetensors file", header_size));
  std::string text(header_size, '\0');
  read_at(descriptor.get(), text.data(), text.size(), 8);
  shard.data_begin = static_cast<std::int64_t>(8 + header_size);
  return parse_safetensors_header(text, shard.bytes - shard.data_begin);
}

std::map<std::string, std::string> read_index(const fs::path& folder) {
  const auto index = parse_json_object(read_model_file(folder, index_file), {.distinct_keys = true});
  const auto map = index.find("weight_map");
  if (map == index.end() || !map->is_object()) throw IoError("it has no weight_map");
  std::map<std::string, std::string> shard_of;
  for (const auto& [tensor, shard] : map->items()) {
    if (!shard.is_string()) throw IoError(fmt::format("tensor {} has no file name", printable(tensor)));
    shard_of[tensor] = shard.get<std::string>();
  }
  return shard_of;
}

StoredType type_of(const std::string& dtype) {
  if (dtype == "F32") return StoredType::fp32;
  if (dtype == "BF16") return StoredType::bf16;
  if (dtype == "F16") return StoredType::fp16;
  throw IoError(dtype + "; F32, BF16 and F16 can be read");
}

}  // namespace

std::int64_t SafetensorsTensor::elements() const {
  std::int64_t count = 1;
  for (const std::int64_t size : shape) count *= size;
  return count;
}

bool is_safetensors_folder(const fs::path& folder) {
  std::error_code ignored;
  return fs::exists(folder / index_file, ignored) || fs::exists(folder / single_file, ignored);
}

struct SafetensorsReader::State {
  struct Entry {
    SafetensorsPlace place;
    std::size_t shard;
  };
  fs::path path;
  std::vector<Shard> shards;
  std::map<std::string, Entry> entries;
  std::vector<SafetensorsTensor> tensors;
  std::map<std::size_t, FileDescriptor> descriptors;  // of some shards
  std::vector<std::byte> buffer;

  [[noreturn]] void fail(const fs::path& file, const std::string& reason) const {
    throw DataError(fmt::format("safetensors file {} cannot be used ({}); download or export it again",
                                printable(file.string()), reason));
  }

  template <class Action>
  auto guarded(const fs::path& file, Action&& action) {
    try {
      return action();
    } catch (const IoError& error) {
      fail(file, error.what());
    } catch (const JsonError& error) {
      fail(file, error.what());
    }
  }

  void add_file(const fs::path& file) {
    guarded(file, [&] {
      Shard shard{file};
      for (SafetensorsPlace& place : read_header(shard)) {
        const std::string name = place.tensor.name;
        const auto [entry, added] = entries.emplace(name, Entry{std::move(place), shards.size()});
        if (!added)
          throw IoError(fmt::format("tensor {} is also in {}", printable(name),
                                    shards[entry->second.shard].path.string()));
      }
      shards.push_back(std::move(shard));
    });
  }

  void add_folder(const fs::path& folder);
  int descriptor_of(std::size_t shard) {
    if (const auto open = descriptors.find(shard); open != descriptors.end()) return open->second.get();
    if (descriptors.size() >= most_open_files) descriptors.clear();
    return (descriptors[shard] = open_descriptor(shards[shard].path, OpenMode::read)).get();
  }
};

void SafetensorsReader::State::add_folder(const fs::path& folder) {
  // As transformers chooses where there are both.
  std::error_code ignored;
  if (fs::exists(folder / single_file, ignored)) return add_file(model_file(folder, single_file));
  const fs::path index = folder / index_file;
  if (!fs::exists(index, ignored))
    fail(folder / single_file, "neither this nor " + std::string(index_file) + " is there");
  const auto shard_of = guarded(index, [&] { return read_index(folder); });
  std::set<std::string> names;
  for (const auto& [tensor, shard] : shard_of) names.insert(shard);
  for (const std::string& name : names) add_file(model_file(folder, name));
  for (const auto& [tensor, shard] : shard_of) {
    const auto found = entries.find(tensor);
    if (found == entries.end() || shards[found->second.shard].path.filename() != shard)
      fail(folder / shard,
           fmt::format("tensor {} is missing, which the index says is there", printable(tensor)));
  }
  for (const auto& [tensor, entry] : entries)
    if (!shard_of.contains(tensor))
      fail(shards[entry.shard].path, fmt::format("tensor {} is not in the index", printable(tensor)));
}

SafetensorsReader::SafetensorsReader(const fs::path& path) : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.path = path;
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) {
    s.add_folder(path);
  } else {
    s.add_file(path);
  }
  for (const auto& [name, entry] : s.entries) s.tensors.push_back(entry.place.tensor);
}

SafetensorsReader::~SafetensorsReader() = default;
SafetensorsReader::SafetensorsReader(SafetensorsReader&&) noexcept = default;

const std::vector<SafetensorsTensor>& SafetensorsReader::tensors() const {
  return state_->tensors;
}
std::int64_t SafetensorsReader::files() const {
  return std::ssize(state_->shards);
}

std::int64_t SafetensorsReader::bytes() const {
  std::int64_t total = 0;
  for (const Shard& shard : state_->shards) total += shard.bytes;
  return total;
}

const SafetensorsTensor* SafetensorsReader::find(const std::string& name) const {
  const auto found = state_->entries.find(name);
  return found == state_->entries.end() ? nullptr : &found->second.place.tensor;
}

void SafetensorsReader::read(const std::string& name, const Rectangle& rectangle, void* out,
                             DType out_dtype) const {
  State& s = *state_;
  const auto found = s.entries.find(name);
  if (found == s.entries.end()) s.fail(s.path, "there is no tensor " + printable(name));
  const auto& [place, number] = found->second;
  const Shard& shard = s.shards[number];
  try {
    const auto dimensions = place.tensor.shape.size();
    if (dimensions != 1 && dimensions != 2) throw IoError(fmt::format("it has {} dimensions", dimensions));
    const Rectangle all = whole(place.tensor.shape);
    if (rectangle.empty()) return;
    if (intersection(rectangle, all) != rectangle)
      throw IoError(fmt::format("it is {}, so it has no part {}", to_string(all), to_string(rectangle)));
    const StoredType type = type_of(place.tensor.dtype);
    read_common_part({s.descriptor_of(number), shard.data_begin + place.begin, all, type},
                     {rectangle, static_cast<std::byte*>(out), out_dtype}, s.buffer);
  } catch (const IoError& error) {
    s.fail(shard.path, fmt::format("tensor {}: {}", printable(name), error.what()));
  }
}

}  // namespace llama3d
