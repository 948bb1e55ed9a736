#include "io/model_folder.hpp"

#include <fmt/format.h>

#include <system_error>

#include "base/error.hpp"
#include "io/posix_file.hpp"
#include "io/printable.hpp"

namespace llama3d {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t largest_text = 100'000'000;

[[noreturn]] void refuse(const fs::path& folder, const std::string& name, const std::string& reason) {
  throw DataError(fmt::format("{} of the model folder {} cannot be used ({}); download or export it again",
                              io::printable(name), folder.string(), reason));
}

bool is_plain_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

bool lies_in(const fs::path& file, const fs::path& folder) {
  return file.parent_path() == folder;
}

}  // namespace

fs::path model_file(const fs::path& folder, const std::string& name) {
  if (!is_plain_name(name)) refuse(folder, name, "no name of a file in the folder");
  std::error_code error;
  const fs::path real_folder = fs::canonical(folder, error);
  if (error) refuse(folder, name, error.message());
  const fs::path real_file = fs::canonical(folder / name, error);
  if (error) refuse(folder, name, error.message());
  const fs::path snapshots = real_folder.parent_path();
  const bool in_hub_cache =
      snapshots.filename() == "snapshots" && lies_in(real_file, snapshots.parent_path() / "blobs");
  if (!lies_in(real_file, real_folder) && !in_hub_cache)
    refuse(folder, name, fmt::format("a link to {}, outside the folder", io::printable(real_file.string())));
  if (!fs::is_regular_file(real_file, error)) refuse(folder, name, "no regular file");
  return folder / name;
}

std::string read_model_file(const fs::path& folder, const std::string& name) {
  const fs::path path = model_file(folder, name);
  try {
    const std::int64_t size = io::size_of_file(path);
    if (size > largest_text) throw io::IoError(fmt::format("{} bytes are too many", size));
    std::string text(static_cast<std::size_t>(size), '\0');
    io::read_at(io::open_descriptor(path, io::OpenMode::read).get(), text.data(), text.size(), 0);
    return text;
  } catch (const io::IoError& problem) {
    refuse(folder, name, problem.what());
  }
}

}  // namespace llama3d
