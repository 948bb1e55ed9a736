#include "base/model_folder.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <fstream>
#include <stdexcept>
#include <system_error>

#include "base/error.hpp"
#include "base/printable.hpp"

namespace llama3d {
namespace {

namespace fs = std::filesystem;

constexpr std::uintmax_t largest_text = 100'000'000;

[[noreturn]] void refuse(const fs::path& folder, const std::string& name, const std::string& reason) {
  throw DataError(fmt::format("{} of the model folder {} cannot be used ({}); download or export it again",
                              printable(name), folder.string(), reason));
}

bool lies_in(const fs::path& file, const fs::path& folder) {
  return file.parent_path() == folder;
}

}  // namespace

bool is_plain_file_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

std::string read_file(const fs::path& path, std::uintmax_t most) {
  std::error_code error;
  if (fs::is_directory(path, error)) throw std::runtime_error("it is a folder");
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file)
    throw std::runtime_error(fmt::format("it can't be opened: {}", std::generic_category().message(errno)));
  std::string text;
  constexpr std::size_t piece = std::size_t{1} << 20;
  while (file && text.size() <= most) {
    const std::size_t before = text.size();
    text.resize(before + piece);
    file.read(text.data() + before, piece);
    text.resize(before + static_cast<std::size_t>(file.gcount()));
  }
  if (file.bad()) throw std::runtime_error("it can't be read: input error");
  if (text.size() > most) throw std::runtime_error(fmt::format("it has more than {} bytes", most));
  return text;
}

fs::path model_file(const fs::path& folder, const std::string& name) {
  if (!is_plain_file_name(name)) refuse(folder, name, "no name of a file in the folder");
  std::error_code error;
  const fs::path real_folder = fs::canonical(folder, error);
  if (error) refuse(folder, name, error.message());
  const fs::path real_file = fs::canonical(folder / name, error);
  if (error) refuse(folder, name, error.message());
  const fs::path snapshots = real_folder.parent_path();
  const bool in_hub_cache =
      snapshots.filename() == "snapshots" && lies_in(real_file, snapshots.parent_path() / "blobs");
  if (!lies_in(real_file, real_folder) && !in_hub_cache)
    refuse(folder, name, fmt::format("a link to {}, outside the folder", printable(real_file.string())));
  if (!fs::is_regular_file(real_file, error)) refuse(folder, name, "no regular file");
  return folder / name;
}

std::string read_model_file(const fs::path& folder, const std::string& name) {
  const fs::path path = model_file(folder, name);
  try {
    return read_file(path, largest_text);
  } catch (const std::runtime_error& problem) {
    refuse(folder, name, problem.what());
  }
}

}  // namespace llama3d
