#pragma once

#include <string>

namespace llama3d {

/// The whole table as a page in Markdown, jobs/OPTIONS.md: a section a command, a table a heading.
std::string options_reference();

}  // namespace llama3d
