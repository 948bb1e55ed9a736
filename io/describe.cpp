#include "io/describe.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/bytes.hpp"
#include "base/error.hpp"
#include "base/json.hpp"
#include "base/numbers.hpp"
#include "base/printable.hpp"
#include "io/checkpoint/checkpoint_file.hpp"
#include "io/checkpoint/manifest.hpp"
#include "io/hdf5/hdf5.hpp"
#include "io/metrics/metrics_format.hpp"
#include "io/safetensors/safetensors.hpp"
#include "io/tokens/token_file.hpp"
#include "io/tokens/token_format.hpp"
#include "io/tokens/token_source.hpp"
#include "io/verify.hpp"

namespace llama3d {
namespace {

using namespace io;

std::string shown(const std::filesystem::path& path) {
  return printable(path.string(), 4096);
}

std::string shape_as_text(const std::vector<std::int64_t>& shape) {
  return fmt::format("({})", fmt::join(shape, ", "));
}

std::string tensor_line(const std::string& name, std::string_view dtype,
                        const std::vector<std::int64_t>& shape) {
  return fmt::format("  {:<60} {:<6} {}\n", printable(name), printable(dtype, 20), shape_as_text(shape));
}

std::string attribute_line(const std::string& name, const std::string& value) {
  constexpr std::size_t longest = 65536;  // about what an attribute of ours may have
  return fmt::format("  {} = {}\n", printable(name), printable_lines(value, "    ", longest));
}

std::string attribute_lines(const std::vector<std::pair<std::string, std::string>>& attributes) {
  std::string text;
  for (const auto& [name, value] : attributes) {
    if (name != "format" && name != "version") text += attribute_line(name, value);
  }
  return text;
}

// Names of all datasets of a file, which may have no links into others.
std::vector<std::string> dataset_names(hid_t file) {
  struct Found {
    std::vector<std::string> names;
    std::string external;
  } found;
  const auto collect = [](hid_t location, const char* name, const H5L_info_t* link, void* out) -> herr_t {
    // The library visits groups in groups by recursion. In a file of ours they are three deep.
    constexpr std::ptrdiff_t deepest = 16;
    if (const std::string_view path = name; std::count(path.begin(), path.end(), '/') > deepest) return -1;
    auto& all = *static_cast<Found*>(out);
    if (link->type == H5L_TYPE_EXTERNAL) all.external = name;
    if (link->type != H5L_TYPE_HARD) return 0;
    const Hdf5Object object(H5Oopen(location, name, H5P_DEFAULT));
    if (!object) return -1;
    if (H5Iget_type(object.get()) == H5I_DATASET) all.names.emplace_back(name);
    return 0;
  };
  check_hdf5(H5Lvisit(file, H5_INDEX_NAME, H5_ITER_INC, collect, &found), "list the datasets");
  if (!found.external.empty())
    throw IoError("/" + printable(found.external) + " is a link into another file");
  return found.names;
}

// Other programs that read a checkpoint follow what checkpoint.h5 names, which may be the rank files alone.
void expect_own_sources(const std::filesystem::path& view) {
  const Hdf5File file = open_file(view);
  for (const std::string& name : dataset_names(file.get())) expect_virtual_of_neighbours(file.get(), name);
}

std::string describe_checkpoint(const std::filesystem::path& folder, bool verify) {
  const CheckpointReader reader(folder);
  expect_own_sources(folder / "checkpoint.h5");
  std::string text =
      fmt::format("checkpoint {}: {} tensors in {} rank files, {}\n", shown(folder), reader.datasets().size(),
                  reader.files(), format_bytes(static_cast<std::size_t>(reader.bytes())));
  text += "attributes:\n";
  const auto attributes = parse_json(reader.attributes());
  for (const auto& [name, value] : attributes.items())
    text += attribute_line(name, value.is_string() ? value.get<std::string>() : value.dump());
  text += "tensors:\n";
  for (const DatasetInfo& info : reader.datasets())
    text += tensor_line(info.name, name_of(info.dtype), info.shape);
  return verify ? text + verify_checkpoint(reader) : text;
}

std::string describe_rank_file(const std::filesystem::path& path, hid_t file, bool verify) {
  const auto names = dataset_names(file);
  std::string text = fmt::format("checkpoint file of rank {}: {} blocks, {} (part of {})\n",
                                 read_integer_attribute(file, "rank"), names.size(),
                                 format_bytes(static_cast<std::size_t>(size_of_file(path))),
                                 shown(std::filesystem::absolute(path).parent_path().filename()));
  for (const std::string& name : names) {
    const auto dataset = open_dataset(file, name);
    const auto extent = extent_of(dataset.get());
    text += tensor_line("/" + name, name_of(dtype_of_dataset(dataset.get())), {extent.begin(), extent.end()});
  }
  if (verify) text += "not verified: its checksums are in checkpoint.h5; give the checkpoint's folder\n";
  return text;
}

std::string describe_tokens(const std::filesystem::path& path, bool verify) {
  const TokenFileReader reader(path);
  const TokenFileInfo& info = reader.info();
  const auto documents = std::ssize(reader.documents()) - 1;
  std::string text =
      fmt::format("token file {}: {} tokens in {} documents, {}\n", shown(path), reader.tokens(), documents,
                  format_bytes(static_cast<std::size_t>(size_of_file(path))));
  text += attribute_line("tokenizer", info.tokenizer);
  if (!info.tokenizer_hash.empty()) text += attribute_line("tokenizer_sha256", info.tokenizer_hash);
  text += attribute_line("vocabulary_size",
                         info.vocabulary_size > 0 ? std::to_string(info.vocabulary_size) : "unknown");
  text += attribute_line("loss_mask", info.has_loss_mask ? "yes" : "no");
  text += attribute_line("created_by", info.created_by);
  std::vector<std::uint32_t> tokens(static_cast<std::size_t>(std::min<std::int64_t>(reader.tokens(), 16)));
  reader.read(0, tokens);
  if (!tokens.empty()) text += fmt::format("  first tokens: {}\n", fmt::join(tokens, " "));
  return verify ? text + verify_tokens(reader) : text;
}

std::string row_as_text(const TableDescriptor& table, const std::byte* row) {
  std::string text;
  for (const FieldDescriptor& field : table.fields) {
    text += fmt::format(" {}=", field.name);
    const std::byte* at = row + field.offset;
    if (field.type == FieldType::text) {
      std::string value(reinterpret_cast<const char*>(at), field.bytes);
      text += printable(value.c_str());
    } else if (field.type == FieldType::int64) {
      std::int64_t value;
      std::memcpy(&value, at, sizeof value);
      text += fmt::format("{}", value);
    } else {
      double value;
      std::memcpy(&value, at, sizeof value);
      text += fmt::format("{:.6g}", unsigned_nan(value));
    }
  }
  return text + "\n";
}

std::string describe_metrics(const std::filesystem::path& path, hid_t file, bool verify) {
  std::string text = fmt::format("metrics file {}\n", shown(path));
  for (const TableDescriptor& table : metrics_tables()) {
    if (!table.in_every_file && !has_link(file, table.name)) continue;
    const auto dataset = open_dataset(file, table.name);
    const auto extent = extent_of(dataset.get());
    if (extent.size() != 1) throw IoError("/" + table.name + " is no table");
    text += fmt::format("/{}: {} rows\n", table.name, extent[0]);
    std::vector<std::byte> row(table.row_bytes);
    const auto type = row_type(table);
    for (hsize_t i = 0; i < extent[0]; i += std::max<hsize_t>(1, extent[0] - 1)) {
      read_range(dataset.get(), type.get(), i, 1, row.data());
      text += fmt::format("  {}", i == 0 ? "first:" : "last: ") + row_as_text(table, row.data());
    }
  }
  const auto run = open_group(file, "run");
  text += "/run:\n" + attribute_lines(attributes_as_text(run.get()));
  return verify ? text + verify_metrics(file) : text;
}

std::string describe_safetensors(const std::filesystem::path& path, bool verify) {
  const SafetensorsReader reader(path);
  std::string text =
      fmt::format("safetensors {}: {} tensors in {} files, {}\n", shown(path), reader.tensors().size(),
                  reader.files(), format_bytes(static_cast<std::size_t>(reader.bytes())));
  for (const SafetensorsTensor& tensor : reader.tensors())
    text += tensor_line(tensor.name, tensor.dtype, tensor.shape);
  return verify ? text + verify_safetensors(reader) : text;
}

std::string describe_hdf5(const std::filesystem::path& path, bool verify) {
  const Hdf5File file = open_file(path);
  const std::string format = format_of(file.get());
  if (format == checkpoint_format)
    return describe_checkpoint(std::filesystem::absolute(path).parent_path(), verify);
  if (format == rank_file_format) return describe_rank_file(path, file.get(), verify);
  if (format == token_file_format) return describe_tokens(path, verify);
  if (format == metrics_file_format) return describe_metrics(path, file.get(), verify);
  throw IoError(format.empty() ? "it is HDF5, but not one of our files"
                               : "'" + format + "' files are unknown");
}

}  // namespace

std::string describe_file(const std::filesystem::path& path, bool verify) {
  try {
    if (!std::filesystem::exists(path)) throw IoError("there is no such file or folder");
    if (std::filesystem::is_directory(path)) {
      if (std::filesystem::exists(path / "checkpoint.h5")) return describe_checkpoint(path, verify);
      if (is_safetensors_folder(path)) return describe_safetensors(path, verify);
      throw IoError("the folder holds neither checkpoint.h5 nor model.safetensors");
    }
    if (path.extension() == ".safetensors") return describe_safetensors(path, verify);
    if (is_foreign_token_file(path)) return describe_tokens(path, verify);
    return describe_hdf5(path, verify);
  } catch (const IoError& error) {
    throw DataError(
        fmt::format("{} cannot be inspected ({}); give a checkpoint, token file, metrics file or "
                    "safetensors file",
                    path.string(), error.what()));
  } catch (const std::filesystem::filesystem_error& error) {
    throw DataError(fmt::format("{} cannot be inspected ({}); check the path", path.string(), error.what()));
  } catch (const CheckpointError& error) {
    throw DataError(error.what());
  }
}

}  // namespace llama3d
