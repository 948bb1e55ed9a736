#include "checkpoint/checkpoint_attributes.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/json.hpp"
#include "base/version.hpp"

namespace llama3d {
namespace {

using nlohmann::json;

template <class Value>
void put(json& object, const char* name, const std::optional<Value>& value) {
  if (value) object[name] = *value;
}

[[noreturn]] void refuse(const json& value, const char* name, const char* right) {
  throw JsonError(fmt::format("{} is {}; it must be {}", name, json_excerpt(value), right));
}

std::optional<std::int64_t> integer_at(const json& object, const char* name) {
  const json* value = find_json_member(object, name);
  return value ? std::optional(json_integer(*value, name)) : std::nullopt;
}

std::optional<std::string> text_at(const json& object, const char* name) {
  const json* value = find_json_member(object, name);
  return value ? std::optional(json_text(*value, name)) : std::nullopt;
}

std::optional<std::uint64_t> seed_at(const json& object) {
  const json* value = find_json_member(object, "seed");
  if (!value) return {};
  if (!value->is_number_unsigned()) refuse(*value, "seed", "an integer of 64 bits");
  return value->get<std::uint64_t>();
}

std::optional<double> number_at(const json& object, const char* name) {
  const json* value = find_json_member(object, name);
  if (!value) return {};
  if (!value->is_number()) refuse(*value, name, "a number");
  return value->get<double>();
}

std::optional<bool> truth_at(const json& object, const char* name) {
  const json* value = find_json_member(object, name);
  if (!value) return {};
  if (!value->is_boolean()) refuse(*value, name, "true or false");
  return value->get<bool>();
}

std::map<std::string, std::int64_t> sizes_at(const json& object, const char* name) {
  std::map<std::string, std::int64_t> sizes;
  const json* value = find_json_member(object, name);
  if (!value) return sizes;
  if (!value->is_object()) refuse(*value, name, "an object");
  for (const auto& [axis, size] : value->items()) sizes[axis] = json_integer(size, name, 1, INT32_MAX);
  return sizes;
}

RunRecord run_of(const json& object) {
  return {.position = {json_integer_in(object, "step", 0), json_integer_in(object, "consumed_samples", 0),
                       json_integer_in(object, "tokens", 0)},
          .grid = json_text_in(object, "grid", ""),
          .grid_sizes = sizes_at(object, "grid_sizes"),
          .seed = seed_at(object),
          .sequence = integer_at(object, "sequence"),
          .global_batch = integer_at(object, "global_batch_size"),
          .data = text_at(object, "data"),
          .packing = text_at(object, "packing"),
          .valid_fraction = number_at(object, "valid_fraction"),
          .separate_documents = truth_at(object, "separate_documents"),
          .tokenizer = {json_text_in(object, "tokenizer", ""), json_text_in(object, "tokenizer_sha256", "")},
          .configuration = json_text_in(object, "configuration", "")};
}

}  // namespace

std::string CheckpointAttributes::to_json() const {
  json object = {{"llama3d_version", version()},
                 {"git_revision", git_revision()},
                 {"model_config", llama3d::to_json(model)}};
  if (origin.known()) object["huggingface"] = parse_json(origin.to_json());
  if (!run) return object.dump();
  object["step"] = run->position.step;
  object["consumed_samples"] = run->position.consumed_samples;
  object["tokens"] = run->position.tokens;
  object["grid"] = run->grid;
  if (!run->grid_sizes.empty()) object["grid_sizes"] = run->grid_sizes;
  put(object, "seed", run->seed);
  put(object, "sequence", run->sequence);
  put(object, "global_batch_size", run->global_batch);
  put(object, "data", run->data);
  put(object, "packing", run->packing);
  put(object, "valid_fraction", run->valid_fraction);
  put(object, "separate_documents", run->separate_documents);
  object["tokenizer"] = run->tokenizer.name;
  object["tokenizer_sha256"] = run->tokenizer.hash;
  object["configuration"] = run->configuration;
  return object.dump();
}

CheckpointAttributes CheckpointAttributes::parse(const std::string& text) {
  const json object = parse_json_object(text);
  CheckpointAttributes attributes;
  attributes.model = parse_model_config(json_text_in(object, "model_config"), "its model_config");
  if (const json* origin = find_json_member(object, "huggingface"))
    attributes.origin = WeightOrigin::parse(origin->dump(), "huggingface");
  if (find_json_member(object, "step")) attributes.run = run_of(object);
  return attributes;
}

}  // namespace llama3d
