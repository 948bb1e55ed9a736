#include "convert/weight_output.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <system_error>

#include "base/error.hpp"
#include "base/printable.hpp"
#include "checkpoint/tokenizer_files.hpp"
#include "io/posix/whole_folder.hpp"
#include "io/safetensors/safetensors.hpp"

namespace llama3d {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void refuse(const fs::path& folder, const std::string& reason, const char* right) {
  throw ConfigurationError(fmt::format("`output {}`: {}; {}", folder.string(), reason, right));
}

/// An absolute path without dots and without a slash at its end, so that other names can be made of it. The
/// folders above are what they link to; a link of this name stays one.
fs::path full_name(const fs::path& folder) {
  fs::path name = fs::absolute(folder);
  if (!name.has_filename()) name = name.parent_path();
  if (name.filename() == "." || name.filename() == "..") return fs::weakly_canonical(name);
  return fs::weakly_canonical(name.parent_path()) / name.filename();
}

bool holds(const fs::path& outer, const fs::path& inner) {
  return std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end()).first == outer.end();
}

/// Replacing the one would take the other away, or put it where nobody looks for it.
void expect_apart(const WeightOutput& output, const fs::path& name) {
  const fs::path to = fs::weakly_canonical(name), from = fs::weakly_canonical(full_name(output.input));
  const char* right = "choose another name";
  if (to == from) refuse(output.folder, "the same as `input`", right);
  if (holds(to, from)) refuse(output.folder, fmt::format("holds `input {}`", output.input.string()), right);
  if (holds(from, to)) refuse(output.folder, fmt::format("lies in `input {}`", output.input.string()), right);
}

bool is_rank_file(const std::string& name) {
  return name.starts_with("rank_") && name.ends_with(".h5");
}

bool belongs(const std::string& name, WeightOutput::Kind kind) {
  if (kind == WeightOutput::Kind::checkpoint) return name == "checkpoint.h5" || is_rank_file(name);
  return name == "config.json" || name == "generation_config.json" ||
         name == "model.safetensors.index.json" ||
         (name.starts_with("model") && name.ends_with(".safetensors")) || is_tokenizer_file(name);
}

/// Everything in it would go.
void expect_replaceable(const WeightOutput& output, const fs::path& name) {
  const bool checkpoint = output.kind == WeightOutput::Kind::checkpoint;
  const char* right = "choose another name";
  if (!fs::is_directory(name)) refuse(output.folder, "there already, and no folder", right);
  if (fs::is_empty(name)) return;
  for (const auto& entry : fs::directory_iterator(name)) {
    const std::string found = entry.path().filename().string();
    if (entry.is_regular_file() && belongs(found, output.kind)) continue;
    refuse(output.folder,
           fmt::format("there already, and holds {}, which is none of {}", printable(found),
                       checkpoint ? "a checkpoint's files" : "the files that an export makes"),
           "choose another name, or move that file away");
  }
  const bool whole = checkpoint ? fs::exists(name / "checkpoint.h5")
                                : fs::exists(name / "config.json") && is_safetensors_folder(name);
  if (!whole)
    refuse(output.folder, fmt::format("there already, and no {}", checkpoint ? "checkpoint" : "model folder"),
           right);
  if (!output.overwrite) refuse(output.folder, "there already", "choose another name, or give `overwrite`");
  // The name that put_in_place() needs where folders can't be exchanged; it would remove what has it.
  const fs::path aside = with_suffix(name, ".replaced");
  if (fs::exists(fs::symlink_status(aside)))
    refuse(output.folder,
           fmt::format("{} is there, perhaps from a replacement that was cut off", aside.string()),
           "rename or remove it");
}

}  // namespace

fs::path check_output(const WeightOutput& output) {
  if (output.folder.empty()) refuse(output.folder, "no name given", "name the folder to make");
  try {
    const fs::path name = full_name(output.folder);
    expect_apart(output, name);
    if (fs::exists(fs::symlink_status(name))) expect_replaceable(output, name);
    return name;
  } catch (const fs::filesystem_error& error) {
    refuse(output.folder, error.code().message(), "give a folder that can be made");
  }
}

std::unique_ptr<io::PartialFolder> make_temporary(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder.parent_path(), error);
  std::string reason = error.message();
  try {
    if (!error) return std::make_unique<io::PartialFolder>(folder);
  } catch (const io::IoError& problem) {
    reason = problem.what();
  }
  refuse(folder, reason, "give a folder that can be made");
}

}  // namespace llama3d
