#pragma once
// The folder that import or export makes: where it may be and what it may replace.

#include <filesystem>
#include <memory>

#include "io/posix/partial_file.hpp"

namespace llama3d {

struct WeightOutput {
  enum class Kind { checkpoint, model_folder };
  Kind kind = Kind::model_folder;
  std::filesystem::path input;   ///< what the weights are read from
  std::filesystem::path folder;  ///< to make, as the user wrote it
  bool overwrite = false;        ///< `folder` may be one of this kind, which is replaced
};

/// The folder's full name. Throws ConfigurationError when it and the input lie in each other, or when
/// something is there that may not be replaced: a file, a folder with anything in it that is not of this
/// kind, or one of this kind without `overwrite`. An empty folder may always be replaced.
std::filesystem::path check_output(const WeightOutput& output);

/// An empty new folder to write in, beside `folder` (its full name), gone with the object unless it was
/// renamed. Leftovers of killed writers of the same folder go. Throws ConfigurationError.
std::unique_ptr<io::PartialFolder> make_temporary(const std::filesystem::path& folder);

}  // namespace llama3d
