#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <set>

#include "base/error.hpp"
#include "io/convert.hpp"
#include "io/posix_file.hpp"
#include "io/safetensors.hpp"

namespace llama3d {

using namespace io;

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* single_file = "model.safetensors";
constexpr const char* index_file = "model.safetensors.index.json";
constexpr std::uint64_t largest_header = 100'000'000;  // the format's own limit

// A file mapped for reading.
class Mapping {
 public:
  explicit Mapping(const fs::path& path) : size_(static_cast<std::size_t>(size_of_file(path))) {
    if (size_ == 0) throw IoError("the file is empty");
    const FileDescriptor descriptor = open_descriptor(path, OpenMode::read);
    void* address = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, descriptor.get(), 0);
    if (address == MAP_FAILED) throw IoError(fmt::format("cannot map the file: {}", std::strerror(errno)));
    data_ = static_cast<const std::byte*>(address);
  }
  ~Mapping() { ::munmap(const_cast<std::byte*>(data_), size_); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  const std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  std::size_t size_;
  const std::byte* data_;
};

struct Entry {
  SafetensorsTensor tensor;
  fs::path file;
  const std::byte* data;
};

std::optional<std::size_t> bytes_of(const std::string& dtype) {
  static const std::map<std::string, std::size_t> sizes = {
      {"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8},  {"I32", 4},     {"I16", 2},    {"I8", 1},
      {"U64", 8}, {"U32", 4}, {"U16", 2}, {"U8", 1},   {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};
  const auto found = sizes.find(dtype);
  return found == sizes.end() ? std::nullopt : std::optional(found->second);
}

// The JSON library keeps the last of two equal keys; here a repeated name is a damaged file.
Json parse_header(const std::byte* begin, std::size_t size) {
  std::set<std::string> names;
  const auto refuse_twins = [&](int depth, Json::parse_event_t event, Json& value) {
    if (event == Json::parse_event_t::key && depth == 1 && !names.insert(value.get<std::string>()).second) {
      throw IoError("tensor " + value.get<std::string>() + " is listed twice");
    }
    return true;
  };
  const auto* text = reinterpret_cast<const char*>(begin);
  return Json::parse(text, text + size, refuse_twins);
}

// Elements of a shape; nothing when it has a negative size or more elements than a file can hold.
std::optional<std::int64_t> element_count(const std::vector<std::int64_t>& shape) {
  std::int64_t count = 1;
  for (const std::int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(count, size, &count)) return std::nullopt;
  }
  return count;
}

Entry read_entry(const std::string& name, const Json& json, const fs::path& file, const std::byte* data,
                 std::uint64_t data_size, std::uint64_t& begin, std::uint64_t& end) {
  Entry entry{{name, json.at("dtype").get<std::string>(), json.at("shape").get<std::vector<std::int64_t>>()},
              file,
              data};
  const auto offsets = json.at("data_offsets").get<std::vector<std::uint64_t>>();
  const auto element = bytes_of(entry.tensor.dtype);
  if (!element) throw IoError("tensor " + name + " has the unknown type " + entry.tensor.dtype);
  const auto count = element_count(entry.tensor.shape);
  std::int64_t bytes = 0;
  if (!count || __builtin_mul_overflow(*count, static_cast<std::int64_t>(*element), &bytes) ||
      offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] > data_size ||
      offsets[1] - offsets[0] != static_cast<std::uint64_t>(bytes)) {
    throw IoError("tensor " + name + ": shape, type and place do not fit each other or the file's size");
  }
  begin = offsets[0];
  end = offsets[1];
  entry.data += begin;
  return entry;
}

std::vector<Entry> read_header(const fs::path& path, const Mapping& mapping) {
  std::uint64_t header_size = 0;
  if (mapping.size() < sizeof header_size) throw IoError("too short to be a safetensors file");
  std::memcpy(&header_size, mapping.data(), sizeof header_size);
  if (header_size > largest_header || header_size > mapping.size() - 8) {
    throw IoError(
        fmt::format("its header would have {} bytes: truncated, or not a safetensors file", header_size));
  }
  const std::byte* data = mapping.data() + 8 + header_size;
  const std::uint64_t data_size = mapping.size() - 8 - header_size;
  std::vector<Entry> entries;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges;
  const Json header = parse_header(mapping.data() + 8, header_size);
  if (!header.is_object()) throw IoError("its header is not a JSON object");
  for (const auto& [name, json] : header.items()) {
    if (name == "__metadata__") continue;
    auto& range = ranges.emplace_back();
    entries.push_back(read_entry(name, json, path, data, data_size, range.first, range.second));
  }
  std::sort(ranges.begin(), ranges.end());
  std::uint64_t place = 0;
  for (const auto& [begin, end] : ranges) {
    if (begin != place) throw IoError("its tensors overlap or leave gaps");
    place = end;
  }
  if (place != data_size) throw IoError(fmt::format("it has {} bytes of data, not {}", data_size, place));
  return entries;
}

std::map<std::string, std::string> read_index(const fs::path& path) {
  std::ifstream stream(path);
  if (!stream) throw IoError("cannot open");
  return Json::parse(stream).at("weight_map").get<std::map<std::string, std::string>>();
}

}  // namespace

std::int64_t SafetensorsTensor::elements() const {
  return element_count(shape).value_or(0);
}

bool is_safetensors_folder(const fs::path& folder) {
  return fs::exists(folder / index_file) || fs::exists(folder / single_file);
}

struct SafetensorsReader::State {
  fs::path path;
  std::vector<std::unique_ptr<Mapping>> mappings;
  std::map<std::string, Entry> entries;
  std::vector<SafetensorsTensor> tensors;

  [[noreturn]] void fail(const fs::path& file, const std::string& reason) const {
    throw DataError(fmt::format("safetensors file {} cannot be used ({}); download or export it again",
                                file.string(), reason));
  }

  template <class Action>
  auto guarded(const fs::path& file, Action&& action) {
    try {
      return action();
    } catch (const IoError& error) {
      fail(file, error.what());
    } catch (const Json::exception& error) {
      fail(file, std::string("damaged JSON: ") + error.what());
    }
  }

  void add_file(const fs::path& file) {
    guarded(file, [&] {
      mappings.push_back(std::make_unique<Mapping>(file));
      for (Entry& entry : read_header(file, *mappings.back())) {
        const std::string name = entry.tensor.name;
        const auto [place, added] = entries.emplace(name, std::move(entry));
        if (!added) throw IoError("tensor " + name + " is also in " + place->second.file.string());
      }
    });
  }

  void add_folder(const fs::path& folder);
};

void SafetensorsReader::State::add_folder(const fs::path& folder) {
  const fs::path index = folder / index_file;
  if (!fs::exists(index)) return add_file(folder / single_file);
  const auto shard_of = guarded(index, [&] { return read_index(index); });
  std::set<std::string> shards;
  for (const auto& [name, shard] : shard_of) shards.insert(shard);
  for (const std::string& shard : shards) {
    if (shard.find('/') != std::string::npos)
      fail(index, "it names the file " + shard + " outside the folder");
    add_file(folder / shard);
  }
  for (const auto& [name, shard] : shard_of) {
    const auto found = entries.find(name);
    if (found == entries.end() || found->second.file.filename() != shard) {
      fail(folder / shard, "tensor " + name + " is missing, which the index says is there");
    }
  }
}

SafetensorsReader::SafetensorsReader(const fs::path& path) : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.path = path;
  if (fs::is_directory(path)) {
    s.add_folder(path);
  } else {
    s.add_file(path);
  }
  for (const auto& [name, entry] : s.entries) s.tensors.push_back(entry.tensor);
}

SafetensorsReader::~SafetensorsReader() = default;
SafetensorsReader::SafetensorsReader(SafetensorsReader&&) noexcept = default;

const std::vector<SafetensorsTensor>& SafetensorsReader::tensors() const {
  return state_->tensors;
}
std::int64_t SafetensorsReader::files() const {
  return std::ssize(state_->mappings);
}

std::int64_t SafetensorsReader::bytes() const {
  std::int64_t total = 0;
  for (const auto& mapping : state_->mappings) total += static_cast<std::int64_t>(mapping->size());
  return total;
}

const SafetensorsTensor* SafetensorsReader::find(const std::string& name) const {
  const auto found = state_->entries.find(name);
  return found == state_->entries.end() ? nullptr : &found->second.tensor;
}

void SafetensorsReader::read(const std::string& name, const Rectangle& rectangle, void* out,
                             DType out_dtype) const {
  const auto found = state_->entries.find(name);
  if (found == state_->entries.end()) state_->fail(state_->path, "there is no tensor " + name);
  const Entry& entry = found->second;
  const auto dimensions = entry.tensor.shape.size();
  if (dimensions != 1 && dimensions != 2) {
    state_->fail(entry.file, fmt::format("tensor {} has {} dimensions", name, dimensions));
  }
  const Rectangle all = whole(entry.tensor.shape);
  if (rectangle.empty()) return;
  if (intersection(rectangle, all) != rectangle) {
    state_->fail(entry.file, fmt::format("tensor {} is {}, so it has no part {}", name, to_string(all),
                                         to_string(rectangle)));
  }
  const std::string& type = entry.tensor.dtype;
  if (type != "F32" && type != "BF16" && type != "F16") {
    state_->fail(entry.file, fmt::format("tensor {} is {}; F32, BF16 and F16 can be read", name, type));
  }
  const std::size_t element = type == "F32" ? 4 : 2;
  const auto columns = static_cast<std::size_t>(rectangle.columns());
  auto* target = static_cast<std::byte*>(out);
  std::vector<float> widened(type == "F16" ? columns : 0);
  for (std::int64_t row = rectangle.row_begin; row < rectangle.row_end; ++row) {
    const std::byte* source =
        entry.data + static_cast<std::size_t>(row * all.columns() + rectangle.column_begin) * element;
    if (type == "F16") {
      for (std::size_t i = 0; i < columns; ++i) {
        std::uint16_t bits;
        std::memcpy(&bits, source + 2 * i, 2);
        widened[i] = float_of_fp16(bits);
      }
      convert_elements(widened.data(), DType::fp32, target, out_dtype, columns);
    } else {
      convert_elements(source, type == "F32" ? DType::fp32 : DType::bf16, target, out_dtype, columns);
    }
    target += columns * size_of(out_dtype);
  }
}

}  // namespace llama3d
