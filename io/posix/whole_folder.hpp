#pragma once
// Folders whose name means complete: written under another name, synced, renamed.

#include <filesystem>
#include <string>

namespace llama3d {

/// The path with `suffix` at the end of its last name, whether or not it is written with a slash behind it.
std::filesystem::path with_suffix(std::filesystem::path folder, const char* suffix);

/// "there is no such folder", or what else is wrong with `path`; empty where it is a folder.
std::string why_no_folder(const std::filesystem::path& path);

/// Syncs the folder `temporary` and gives it the name `final_folder`, beside it. What had the name before
/// goes once the new one is in place: where the file system can't exchange names it is called NAME.replaced
/// for a moment. Throws io::IoError, std::filesystem::filesystem_error.
void put_in_place(const std::filesystem::path& temporary, const std::filesystem::path& final_folder);

}  // namespace llama3d
