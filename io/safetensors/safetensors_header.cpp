#include "io/safetensors/safetensors_header.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>

#include <nlohmann/json.hpp>
#include "base/json.hpp"
#include "base/printable.hpp"
#include "io/posix/posix_file.hpp"

namespace llama3d {
namespace {

using namespace io;
using Json = nlohmann::json;

std::optional<std::int64_t> bytes_of(const std::string& dtype) {
  static const std::map<std::string, std::int64_t> sizes = {
      {"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8},  {"I32", 4},     {"I16", 2},    {"I8", 1},
      {"U64", 8}, {"U32", 4}, {"U16", 2}, {"U8", 1},   {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};
  const auto found = sizes.find(dtype);
  return found == sizes.end() ? std::nullopt : std::optional(found->second);
}

// Of a shape; nothing when it has more elements than a file can hold.
std::optional<std::int64_t> element_count(const std::vector<std::int64_t>& shape) {
  std::int64_t count = 1;
  for (const std::int64_t size : shape) {
    if (__builtin_mul_overflow(count, size, &count)) return std::nullopt;
  }
  return count;
}

const Json& member(const Json& object, const std::string& name, const char* key) {
  if (!object.is_object()) throw IoError(fmt::format("tensor {} is described by no object", name));
  const auto found = object.find(key);
  if (found == object.end()) throw IoError(fmt::format("tensor {} has no {}", name, key));
  return *found;
}

std::vector<std::int64_t> integers(const Json& object, const std::string& name, const char* key) {
  return json_integers(member(object, name, key), fmt::format("{} of tensor {}", key, name));
}

SafetensorsPlace parse_place(const std::string& name, const Json& json, std::int64_t data_bytes) {
  const std::string shown = printable(name);
  const Json& dtype = member(json, shown, "dtype");
  if (!dtype.is_string()) throw IoError(fmt::format("dtype of tensor {} is no text", shown));
  SafetensorsPlace place{{name, dtype.get<std::string>(), integers(json, shown, "shape")}, 0, 0};
  const auto offsets = integers(json, shown, "data_offsets");
  const auto element = bytes_of(place.tensor.dtype);
  if (!element)
    throw IoError(fmt::format("tensor {} has the unknown type {}", shown, printable(place.tensor.dtype)));
  const auto count = element_count(place.tensor.shape);
  std::int64_t bytes = 0;
  if (!count || __builtin_mul_overflow(*count, *element, &bytes) || offsets.size() != 2 ||
      offsets[0] > offsets[1] || offsets[1] > data_bytes || offsets[1] - offsets[0] != bytes)
    throw IoError(
        fmt::format("tensor {}: shape, type and place do not fit each other or the file's size", shown));
  place.begin = offsets[0];
  place.end = offsets[1];
  return place;
}

void expect_no_gaps(const std::vector<SafetensorsPlace>& places, std::int64_t data_bytes) {
  std::vector<const SafetensorsPlace*> in_order;
  for (const SafetensorsPlace& place : places) in_order.push_back(&place);
  std::sort(in_order.begin(), in_order.end(), [](const auto* a, const auto* b) {
    return std::pair(a->begin, a->end) < std::pair(b->begin, b->end);
  });
  std::int64_t end = 0;
  for (const SafetensorsPlace* place : in_order) {
    if (place->begin != end)
      throw IoError(fmt::format("its tensors overlap or leave gaps, tensor {} begins at byte {}, not {}",
                                printable(place->tensor.name), place->begin, end));
    end = place->end;
  }
  if (end != data_bytes) throw IoError(fmt::format("it has {} bytes of data, not {}", data_bytes, end));
}

}  // namespace

std::vector<SafetensorsPlace> io::parse_safetensors_header(std::string_view text, std::int64_t data_bytes) {
  std::vector<SafetensorsPlace> places;
  try {
    const Json header = parse_json_object(text, {.distinct_keys = true});
    for (const auto& [name, json] : header.items())
      if (name != "__metadata__") places.push_back(parse_place(name, json, data_bytes));
  } catch (const JsonError& error) {
    throw IoError(error.what());
  }
  expect_no_gaps(places, data_bytes);
  return places;
}

}  // namespace llama3d
